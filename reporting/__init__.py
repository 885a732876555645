"""The page of report.py: what is read of runs, and the page itself."""
