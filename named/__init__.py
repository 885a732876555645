"""Arrays, media and records in, names and scores out: predict.py's parts."""
