"""One job in parts, a process each: `--shard`, what parts say, joining them.

Nothing runs between the parts: each finds its own share of the input, and
writes an output of its own, whole or not at all.
"""
