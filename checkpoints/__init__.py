"""What is on disk of a training: checkpoints, results, archives."""
