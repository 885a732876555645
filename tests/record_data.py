"""Tiny records in YouTube-8M's formats, for tests: flawed ones too."""

import numpy as np

from records import writer


def frame_record(video_id, labels, features, id_key="id", ratings=None):
  """A serialized SequenceExample.

  Args:
    video_id: bytes, or None for no id.
    labels: list of int, or None for no labels.
    features: dict of name to uint8 [T, size], or to a list of bytes.
    id_key: key of the id.
    ratings: list of (start time, class, score) of segments, or None.
  """
  return writer.frame_record(
    video_id, features, labels, ratings=ratings, id_key=id_key, check=False
  )


def video_record(video_id, labels, features, id_key="id"):
  """A serialized Example; features: dict of name to floats [size]."""
  return writer.video_record(
    video_id, features, labels, id_key=id_key, check=False
  )


def write(path, records):
  """Writes a TFRecord file; returns its path as a str."""
  writer.write_shards([str(path)], [records])
  return str(path)


def random_frames(rng, count, sizes):
  """dict of name to uint8 [count, size]."""
  return {
    name: rng.integers(0, 256, (count, size), dtype=np.uint8)
    for name, size in sizes.items()
  }
