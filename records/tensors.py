"""Parsed records as tensors: what the readers of both levels share.

Axes: R records, C classes, L values of all records together.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from records import diagnosis

# A batch of as many as there are.
ALL = np.iinfo(np.int64).max
ID_FEATURES = {
  key: tf.io.FixedLenFeature([], tf.string, default_value="")
  for key in diagnosis.ID_KEYS
}
# Besides `segment_labels`.
RATING_FEATURES = {
  "segment_start_times": tf.io.VarLenFeature(tf.int64),
  "segment_scores": tf.io.VarLenFeature(tf.float32),
}


def kept(values, mask):
  """The rows of tensors [R, ...] where a mask, bool [R], is True: a list."""
  # A fifth of a reader's graph would be tf.boolean_mask, of each on its own.
  rows = tf.where_v2(mask)[:, 0]
  return [tf.gather(value, rows) for value in values]


def first_id(values):
  """The id under either name; "" where there is none: string [R]."""
  return tf.where_v2(
    tf.equal(values["id"], ""), values["video_id"], values["id"]
  )


def label_facts(labels, num_records, num_classes):
  """Labels as sets, and what they are like.

  Args:
    labels: (int64 [L] record, int64 [L] label).
    num_records: R.
    num_classes: int, C.

  Returns:
    dict of `labels` bool [R, C], `num_labels` and, of these, outside the
    classes, `num_strays`, int64 [R], and bool [R]: has_labels, and for
    segments, here as if there were none, labels_are_sound (if not, the record
    can't be used) and beyond (a segment is to be left out).
  """
  rows, values = labels
  valid = (values >= 0) & (values < num_classes)
  places = tf.boolean_mask(tf.stack([rows, values], axis=1), valid)
  shape = tf.stack([num_records, num_classes])
  sets = tf.tensor_scatter_nd_update(
    tf.zeros(shape, tf.bool), places, tf.fill([tf.shape(places)[0]], True)
  )
  strays = tf.boolean_mask(rows, tf.logical_not(valid))
  has_labels = tf.reduce_any(sets, axis=1)
  return {
    "labels": sets,
    "num_labels": count_rows(rows, num_records),
    "num_strays": count_rows(strays, num_records),
    "has_labels": has_labels,
    "labels_are_sound": tf.ones_like(has_labels),
    "beyond": tf.zeros_like(has_labels),
  }


def count_rows(rows, num_records):
  """How often each record comes among rows, int64 [L]: int64 [R]."""
  return tf.math.bincount(
    tf.cast(rows, tf.int32),
    minlength=num_records,
    maxlength=num_records,
    dtype=tf.int64,
  )


def parse_ratings(context, num_frames):
  """The rated (segment, class) pairs of records.

  Args:
    context: dict of (int64 [L] record, int64 or float32 [L] value).
    num_frames: int32 [R].

  Returns:
    ((int64 [L] record, int64 [L] start, int64 [L] class, float32 [L] score),
    bool [R] whether a record has as many of each and its scores are finite,
    bool [R] whether one of its segments begins after its frames). Pairs of
    records that do not are left out.
  """
  keys = diagnosis.RATING_KEYS
  rows = [context[key][0] for key in keys]
  size = tf.size(num_frames)
  counts = [count_rows(row, size) for row in rows]
  scores = context["segment_scores"][1]
  odd = tf.boolean_mask(rows[2], tf.logical_not(tf.is_finite(scores)))
  good = tf.equal(counts[0], counts[1]) & tf.equal(counts[0], counts[2])
  good &= tf.equal(count_rows(odd, size), 0)
  starts, classes, scores = (
    tf.boolean_mask(context[key][1], tf.gather(good, row))
    for key, row in zip(keys, rows)
  )
  videos = tf.boolean_mask(rows[0], tf.gather(good, rows[0]))
  ends = tf.cast(tf.gather(num_frames, videos), tf.int64)
  outside = tf.cast((starts < 0) | (starts >= ends), tf.int32)
  beyond = tf.math.unsorted_segment_sum(outside, videos, size) > 0
  return (videos, starts, classes, scores), good, beyond


def flat(sparse):
  """(int64 [L] record, [L] value) of a SparseTensor [R, any]."""
  return sparse.indices[:, 0], sparse.values


def no_values(features):
  """What `flat` would give of VarLenFeatures if there were no value."""
  return {
    key: (tf.zeros([0], tf.int64), tf.zeros([0], feature.dtype))
    for key, feature in features.items()
  }


def frame_facts(frames, sizes, storage, max_frames):
  """What the frames of records are like.

  Args:
    frames: dict of a feature's steps, see `stored_frames`.
    sizes: dict of int, the numbers of its frames.
    storage: how they are stored, see `stored_frames`.
    max_frames: int >= 1; what a video has beyond is left out.

  Returns:
    dict of num_frames, int32 [R], `whole`, bool, whether there are num_frames
    of each feature, so that nothing is to be cut; and bool [R]: unequal,
    has_frames and frames_are_sound (if not, the record can't be used).
  """
  lengths, sound = [], []
  for name, size in sizes.items():
    _, splits, _ = frames[name]
    lengths.append(splits[1:] - splits[:-1])
    sound.append(storage.sound(frames[name], size))
  lengths = tf.stack(lengths)  # [features, R]
  shortest = tf.reduce_min(lengths, axis=0)
  longest = tf.reduce_max(lengths, axis=0)
  # A feature that is missing leaves no frame; if all are, it is no frames.
  complete = tf.equal(longest, 0) | (shortest > 0)
  return {
    "num_frames": tf.minimum(shortest, max_frames),
    "whole": tf.reduce_all(tf.equal(lengths, shortest))
    & tf.reduce_all(shortest <= max_frames),
    "unequal": tf.not_equal(shortest, longest),
    "has_frames": shortest > 0,
    "frames_are_sound": tf.reduce_all(sound, axis=0) & complete,
  }


def try_else(dataset, fallback):
  """A dataset's one element; the fallback's if computing that fails.

  tf.data has no exceptions: an error that is ignored leaves the dataset empty,
  and what then comes first is the fallback's.

  Args:
    dataset: of one element.
    fallback: of one element at most.

  Returns:
    Dataset of one element at most.
  """
  return dataset.ignore_errors().concatenate(fallback).take(1)


def parse_good(records, parse):
  """Parses the records that parse; all at once where all do.

  Args:
    records: string [R].
    parse: function of string [any] to a nest of tensors, which fails if one of
      the records does not parse.

  Returns:
    (what parse gives of those that parse, bool [R] which do).
  """
  whole = tf.data.Dataset.from_tensors(records).map(
    lambda records: (parse(records), tf.fill(tf.shape(records), True))
  )

  def parses(record):
    alone = tf.data.Dataset.from_tensors(tf.expand_dims(record, 0))
    good = alone.map(parse).map(lambda _: True)
    return try_else(good, tf.data.Dataset.from_tensors(False))

  one_by_one = tf.data.Dataset.from_tensor_slices(records).flat_map(parses)
  one_by_one = one_by_one.batch(ALL).map(
    lambda good: (parse(tf.boolean_mask(records, good)), good)
  )
  return try_else(whole, one_by_one).get_single_element()
