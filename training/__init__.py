"""Training: the step, again and again."""
