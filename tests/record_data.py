"""Tiny records in YouTube-8M's formats, for tests."""

import numpy as np
import tensorflow.compat.v1 as tf


def _bytes(value):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))


def _ints(values):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _context(video_id, labels, id_key):
  feature = {}
  if video_id is not None:
    feature[id_key] = _bytes([video_id])
  if labels is not None:
    feature["labels"] = _ints(labels)
  return feature


def frame_record(video_id, labels, features, id_key="id", ratings=None):
  """A serialized SequenceExample.

  Args:
    video_id: bytes, or None for no id.
    labels: list of int, or None for no labels.
    features: dict of name to uint8 [T, size], or to a list of bytes.
    id_key: key of the id.
    ratings: list of (start time, class, score) of segments, or None.
  """
  lists = {
    name: tf.train.FeatureList(
      feature=[_bytes([bytes(frame)]) for frame in frames]
    )
    for name, frames in features.items()
  }
  context = _context(video_id, labels, id_key)
  if ratings is not None:
    starts, classes, scores = zip(*ratings)
    context |= {
      "segment_start_times": _ints(starts),
      "segment_labels": _ints(classes),
      "segment_scores": tf.train.Feature(
        float_list=tf.train.FloatList(value=scores)
      ),
    }
  return tf.train.SequenceExample(
    context=tf.train.Features(feature=context),
    feature_lists=tf.train.FeatureLists(feature_list=lists),
  ).SerializeToString()


def video_record(video_id, labels, features, id_key="id"):
  """A serialized Example; features: dict of name to floats [size]."""
  feature = _context(video_id, labels, id_key)
  for name, values in features.items():
    feature[name] = tf.train.Feature(
      float_list=tf.train.FloatList(value=values)
    )
  return tf.train.Example(
    features=tf.train.Features(feature=feature)
  ).SerializeToString()


def write(path, records):
  """Writes a TFRecord file; returns its path as a str."""
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)
  return str(path)


def random_frames(rng, count, sizes):
  """dict of name to uint8 [count, size]."""
  return {
    name: rng.integers(0, 256, (count, size), dtype=np.uint8)
    for name, size in sizes.items()
  }
