"""Frames as records hold them: strings of bytes, or lists of floats.

Axes: R records, F frames of all of them, V values (strings or floats), D
numbers of a frame. The frames of a feature, its steps, are a triple:

- values, string or float32 [V];
- splits, int32 [R + 1], where a record's frames begin;
- value_splits, int32 [F + 1], where a frame's values begin.
"""

import tensorflow.compat.v1 as tf

FLOAT_LIST = "float_list"


def storage(dtype):
  """How to read frames that are stored as one of `features_file.DTYPES`."""
  return Floats() if dtype == FLOAT_LIST else Strings(dtype)


class Strings:
  """A string a frame: the bytes of its numbers, little endian."""

  feature = tf.io.RaggedFeature(tf.string)

  def __init__(self, dtype):
    """Keeps the type: "uint8", "float16" or "float32"."""
    self.dtype = tf.as_dtype(dtype)

  def sound(self, steps, size):
    """Which records have frames of that size, of finite numbers: bool [R]."""
    strings, splits, string_splits = steps
    num_bytes = size * self.dtype.size
    of_record = tf.gather(string_splits, splits)
    wrong = _any_by_row(
      tf.not_equal(tf.strings.length(strings), num_bytes), of_record
    )
    counts = string_splits[1:] - string_splits[:-1]
    wrong |= _any_by_row(tf.not_equal(counts, 1), splits)
    if self.dtype.is_floating:
      # What does not fit is padded or cut, and wrong already.
      # Of float16 there is no such operation.
      numbers = tf.raw_ops.DecodePaddedRaw(
        input_bytes=strings,
        fixed_length=num_bytes,
        out_type=tf.uint16 if self.dtype == tf.float16 else self.dtype,
      )
      numbers = tf.bitcast(numbers, self.dtype)
      finite = tf.reduce_all(tf.math.is_finite(numbers), axis=1)
      wrong |= _any_by_row(tf.logical_not(finite), of_record)
    return tf.logical_not(wrong)

  def select(self, steps, size, *, whole, num_frames, keep):
    """Frames of sound records: [N, D], of the type that is stored.

    Args:
      steps: of the feature.
      size: int, D.
      whole: bool scalar, whether all frames of all records are wanted.
      num_frames: int32 [R], how many to take of each.
      keep: bool [R], which records to take any of.
    """
    strings, splits, string_splits = steps

    def cut():
      # Only frames of a record that is left out may have no string, or two.
      wanted = _wanted(splits, num_frames, keep)
      return tf.gather(strings, tf.boolean_mask(string_splits[:-1], wanted))

    # Cutting copies the strings: a third more CPU time for all of reading.
    strings = tf.cond(whole, lambda: strings, cut)
    # No string at all decodes to [0, 0].
    return tf.reshape(tf.io.decode_raw(strings, self.dtype), [-1, size])


class Floats:
  """A float list a frame."""

  feature = tf.io.RaggedFeature(tf.float32)

  def sound(self, steps, size):
    """See `Strings.sound`."""
    numbers, splits, number_splits = steps
    counts = number_splits[1:] - number_splits[:-1]
    wrong = _any_by_row(tf.not_equal(counts, size), splits)
    wrong |= _any_by_row(
      tf.logical_not(tf.math.is_finite(numbers)),
      tf.gather(number_splits, splits),
    )
    return tf.logical_not(wrong)

  def select(self, steps, size, *, whole, num_frames, keep):
    """See `Strings.select`."""
    numbers, splits, number_splits = steps

    def cut():
      # Frames of another size are of a record that is left out.
      rows = tf.RaggedTensor.from_row_splits(
        numbers, number_splits, validate=False
      ).to_tensor(shape=[None, size])
      return tf.boolean_mask(rows, _wanted(splits, num_frames, keep))

    return tf.cond(whole, lambda: tf.reshape(numbers, [-1, size]), cut)


def _wanted(splits, num_frames, keep):
  """Which frames are the first num_frames of records to keep: bool [F]."""
  lengths = splits[1:] - splits[:-1]
  rows = tf.repeat(tf.range(tf.size(lengths)), lengths)
  step = tf.range(tf.size(rows)) - tf.gather(splits, rows)
  return (step < tf.gather(num_frames, rows)) & tf.gather(keep, rows)


def _any_by_row(flags, splits):
  """Whether a flag of [N] is set between one split and the next: bool [R].

  Args:
    flags: bool [N], few of them True.
    splits: int32 [R + 1].
  """
  places = tf.cast(tf.where_v2(flags)[:, 0], splits.dtype)
  rows = tf.searchsorted(splits, places, side="right") - 1
  return (
    tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, tf.size(splits) - 1)
    > 0
  )
