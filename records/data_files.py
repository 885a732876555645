"""The files that a data flag names, and about how many records they hold."""

import os
import zlib

import tensorflow.compat.v1 as tf

from records import framing


def expand_data_pattern(
  pattern: str, flag_name: str = "data_pattern"
) -> list[str]:
  """Lists the files that a data flag names.

  Args:
    pattern: comma-separated globs, files or directories, local or of any file
      system TensorFlow knows (gs://...); of a directory, its *.tfrecord files.
    flag_name: the flag, for the error.

  Returns:
    Paths, sorted, each file once.

  Raises:
    ValueError: nothing given, or one of the globs matches no file.
  """
  parts = [part.strip() for part in pattern.split(",") if part.strip()]
  if not parts:
    raise ValueError(
      f"--{flag_name} is empty: give the files to read, such as "
      f"--{flag_name}='/data/yt8m/train*.tfrecord'."
    )
  paths: set[str] = set()
  for part in parts:
    found = set()
    for path in tf.io.gfile.glob(part):
      if tf.io.gfile.isdir(path):
        found.update(tf.io.gfile.glob(os.path.join(path, "*.tfrecord")))
      else:
        found.add(path)
    if not found:
      raise ValueError(
        f"--{flag_name}: no file matches {part!r}. Is the path right, and is "
        "a glob quoted, so that the shell leaves it alone?"
      )
    paths |= found
  return sorted(paths)


def estimate_num_records(paths: list[str], sample: int = 32) -> int:
  """About how many records files hold, from their sizes and first records.

  Args:
    paths: the files.
    sample: how many of them to look into.

  Returns:
    0 if nothing can be told.
  """
  sampled = paths[:: max(1, len(paths) // sample)]
  sizes: list[int] = []
  lengths: list[int] = []
  for path in sampled:
    opened = framing.look(path)
    if not opened:
      continue  # Reading it will report it.
    try:
      lengths += framing.first_lengths(path, opened)
      sizes.append(framing.unpacked_size(path, opened))
    except (tf.errors.OpError, OSError, EOFError, zlib.error):
      continue  # The same.
  if not lengths:
    return 0
  total = sum(sizes) * len(paths) / len(sizes)
  return round(total / (sum(lengths) / len(lengths)))
