"""Which frames of a video a model sees, and how stored frames become floats.

A batch holds its frames flat, those of one video after those of the other:
[N, D] with N = sum(num_frames), uint8 or floats. Frames are chosen as indices
first, then gathered, and only what was gathered is dequantised, so that neither
padding nor an unused frame is ever turned into float32.

Axes: B videos, N frames of the whole batch, S sampled frames a video,
T frames a video after padding, D features.
"""

import numpy as np
import tensorflow.compat.v1 as tf


def uniform_indices(num_frames, num_samples):
  """Spreads S samples evenly: index floor(i * n / S), i = 0..S-1.

  A video of n < S frames has frames repeated, in order; one of n > S frames
  has frames left out. Deterministic: the sampling of the paper (section 4.1),
  and of every model at evaluation.

  Args:
    num_frames: int32 [B], n >= 0.
    num_samples: int, S >= 1.

  Returns:
    int32 [B, S] in [0, max(n, 1)), ascending; zeros for an empty video.

  Raises:
    ValueError: num_samples < 1.
  """
  _check_num_samples(num_samples)
  steps = tf.range(num_samples, dtype=tf.int32)
  # Integers throughout: in float32 floor(i * n / S) misses exact multiples.
  return steps[tf.newaxis, :] * num_frames[:, tf.newaxis] // num_samples


def random_frame_indices(num_frames, num_samples, seed=None):
  """Draws S frames of each video independently, with replacement.

  Args:
    num_frames: int32 [B], n >= 0.
    num_samples: int, S >= 1.
    seed: int or None, the operation's seed.

  Returns:
    int32 [B, S] in [0, max(n, 1)); zeros for an empty video.

  Raises:
    ValueError: num_samples < 1.
  """
  _check_num_samples(num_samples)
  batch = tf.shape(num_frames)[0]
  draws = tf.random.uniform([batch, num_samples], seed=seed)
  count = tf.cast(num_frames, tf.float32)[:, tf.newaxis]
  indices = tf.cast(draws * count, tf.int32)
  # A draw just under 1 times n may round up to n.
  last = tf.maximum(num_frames - 1, 0)[:, tf.newaxis]
  return tf.minimum(indices, last)


def random_sequence_indices(num_frames, num_samples, seed=None):
  """Draws a run of S consecutive frames; all frames of a video of n <= S.

  Args:
    num_frames: int32 [B], n >= 0.
    num_samples: int, S >= 1.
    seed: int or None, the operation's seed.

  Returns:
    int32 [B, S] in [0, max(n, 1)), ascending. Where n < S only the first n
    are frames, the rest repeats the last: mask with min(n, S).

  Raises:
    ValueError: num_samples < 1.
  """
  _check_num_samples(num_samples)
  batch = tf.shape(num_frames)[0]
  starts = tf.maximum(num_frames - num_samples + 1, 1)
  draws = tf.random.uniform([batch], seed=seed)
  start = tf.cast(draws * tf.cast(starts, tf.float32), tf.int32)
  start = tf.minimum(start, starts - 1)
  steps = tf.range(num_samples, dtype=tf.int32)
  indices = start[:, tf.newaxis] + steps[tf.newaxis, :]
  last = tf.maximum(num_frames - 1, 0)[:, tf.newaxis]
  return tf.minimum(indices, last)


def all_indices(num_frames):
  """Every frame of every video, padded to the longest.

  Args:
    num_frames: int32 [B], n >= 0.

  Returns:
    int32 [B, T], T = max(n) (0 for a batch of empty videos); past its n
    frames a video repeats its last index: mask with n.
  """
  longest = tf.reduce_max(tf.concat([[0], num_frames], axis=0))
  steps = tf.range(longest, dtype=tf.int32)
  last = tf.maximum(num_frames - 1, 0)[:, tf.newaxis]
  return tf.minimum(steps[tf.newaxis, :], last)


def gather_frames(frames, num_frames, indices):
  """Picks frames out of the flat batch.

  Args:
    frames: [N, D], N = sum(num_frames), any dtype.
    num_frames: int32 [B].
    indices: int32 [B, T], each in [0, n) of its video; ignored for an empty
      video.

  Returns:
    [B, T, D] of the frames' dtype. Rows of an empty video hold frames of its
    neighbours or zeros: whoever pools them masks them.
  """
  starts = tf.cumsum(num_frames, exclusive=True)
  positions = starts[:, tf.newaxis] + indices
  # An empty video at the end of the batch points past the last frame, and a
  # batch of empty videos has no frame at all to point to.
  frames = tf.cond(
    tf.equal(tf.shape(frames)[0], 0),
    lambda: tf.zeros([1, frames.shape[1]], frames.dtype),
    lambda: frames,
  )
  positions = tf.minimum(positions, tf.shape(frames)[0] - 1)
  return tf.gather(frames, positions)


def dequantize(frames, max_value=2.0, min_value=-2.0):
  """Maps stored bytes back to floats: x * 4 / 255 + 4 / 512 - 2.

  The half step of 4 / 512 is that of the YouTube-8M feature extractor.

  Args:
    frames: uint8 [anything, D]; or floats, which stand for themselves.
    max_value: float, what the largest byte stands for, less half a step; or
      floats [D], one for each feature.
    min_value: likewise for the smallest.

  Returns:
    float32 of the same shape.

  Raises:
    ValueError: max_value <= min_value.
  """
  if np.any(np.less_equal(max_value, min_value)):
    raise ValueError(
      "Need max_value > min_value, got "
      f"max_value={max_value}, min_value={min_value}."
    )
  if frames.dtype.is_floating:
    return tf.cast(frames, tf.float32)
  span = np.subtract(max_value, min_value)
  scale, shift = np.float32(span / 255.0), np.float32(span / 512.0 + min_value)
  return tf.cast(frames, tf.float32) * scale + shift


def _check_num_samples(num_samples):
  if num_samples < 1:
    raise ValueError(f"Need num_samples >= 1, got {num_samples}.")
