"""Layers: plain arguments in, tensors out. No flags, summaries or files."""
