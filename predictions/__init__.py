"""A checkpoint that predicts, and the files that predictions are kept in."""
