"""The parts of scripts/make_records.py: clips and labels to records."""
