"""What is measured of a checkpoint on a whole data set, and shown of it."""
