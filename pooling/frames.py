"""The frames of a batch: which are real, and their normalisation.

Axes: B videos, T frames, D features.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from pooling import batch_norm as bn
from pooling.affine_frames import AffineFrames


def frame_mask(frames, num_frames):
  """True on the real frames.

  Args:
    frames: [B, T, D].
    num_frames: int32 [B], real frames of each video, the first of its T.

  Returns:
    bool [B, T].
  """
  # Whole numbers throughout, which are the host's: `tf.sequence_mask` casts
  # them, on a GPU too.
  return tf.range(tf.shape(frames)[1]) < num_frames[:, tf.newaxis]


def known_sizes(tensor):
  """A tensor's sizes: list of int where known, else of int32 scalars."""
  dynamic = tf.shape(tensor)
  return [
    dynamic[axis] if size is None else size
    for axis, size in enumerate(tensor.shape.as_list())
  ]


def zero_padding(values, mask):
  """Zeros in place of padding.

  A select, not a product: what padding holds may be as large as it likes.

  Args:
    values: float [B, T, anything], or `AffineFrames`, whose raw frames are then
      zeros there.
    mask: bool [B, T], True on real frames; None if padding is zero already.

  Returns:
    values' shape and type.
  """
  if mask is None:
    return values
  if isinstance(values, AffineFrames):
    raw = zero_padding(values.raw, mask)
    return dataclasses.replace(values, raw=raw)
  zero = tf.zeros([], values.dtype)
  return tf.where_v2(mask[:, :, tf.newaxis], values, zero)


def normalize_input(frames, mask, *, mode, centred=False, scope="input_bn"):
  """Batch-normalises frames over the real ones, if the mode asks for it.

  Args:
    frames: float32 [B, T, D], D static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    mode: `Mode`.
    centred: bool, let the raw frames have a mean of 0, for what is a difference
      of their products.
    scope: variable scope, see `batch_norm`.

  Returns:
    `AffineFrames` of [B, T, D], or the frames as they are.
  """
  if not mode.add_batch_norm:
    return frames
  mean, factor, beta = bn.normalizing_map(
    tf.reshape(frames, [-1, frames.shape.as_list()[2]]),
    tf.reshape(mask, [-1]),
    mode=mode,
    scope=scope,
  )
  if centred or mode.dtype is not None:
    # Of a mean far from 0, rounding frames would leave little else.
    return AffineFrames(frames - mean, factor, beta)
  return AffineFrames(frames, factor, beta - mean * factor)
