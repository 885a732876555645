"""Frames behind a map of each feature that need not be formed.

Batch normalisation of frames x is y = x f + o, with a factor and an offset for
each feature. What is linear in y can take both out of its sums:

  y W                = x (f W) + o W
  sum_t w (y_t - c)  = f sum_t w x_t + (o - c) sum_t w

Neither y nor its gradient, each of the size of all frames, is then made, nor
the two products behind that gradient: f and o get theirs from what is summed.

Axes: B videos, T frames, D features.
"""

import tensorflow.compat.v1 as tf


class AffineFrames:
  """Frames y = x f + o; TensorFlow's functions take them as the tensor y.

  Attributes:
    raw: float [B, T, D], x.
    factor: float [D], f.
    offset: float [D], o.
    formed: float [B, T, D], y; computed only if something depends on it.
  """

  def __init__(self, raw, factor, offset):
    self.raw = raw
    self.factor = factor
    self.offset = offset
    self.formed = raw * factor + offset

  @property
  def shape(self):
    """Static shape [B, T, D]."""
    return self.raw.shape

  @property
  def dtype(self):
    """Type of the elements."""
    return self.raw.dtype

  def split(self, sizes):
    """One `AffineFrames` for each part of the features, as `tf.split`."""
    return [
      AffineFrames(*parts)
      for parts in zip(
        tf.split(self.raw, sizes, axis=2),
        tf.split(self.factor, sizes),
        tf.split(self.offset, sizes),
      )
    ]


def _to_tensor(frames, dtype=None, name=None, as_ref=False):
  del name, as_ref
  if dtype is not None and not dtype.is_compatible_with(frames.dtype):
    raise TypeError(f"Need {dtype}, got frames of {frames.dtype}.")
  return frames.formed


tf.register_tensor_conversion_function(AffineFrames, _to_tensor)
