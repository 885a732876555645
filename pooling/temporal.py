"""Parts of a video in time, to be pooled on their own.

NetVLAD++ (Giancola & Ghanem 2021, arXiv:2104.06779) pools what comes before a
moment and what comes after it with weights of their own; here a video is cut
into any number of parts.

Axes: B videos, T frames, D features, N parts.
"""

import dataclasses
import itertools

import tensorflow.compat.v1 as tf

from pooling.affine_frames import AffineFrames


def cut(frames, mask, num_parts):
  """Cuts each video's real frames into N parts, in the order of time.

  Part p of a video of n frames has those from floor(p n / N) up to
  floor((p + 1) n / N): sizes that differ by 1 at most, the last part the
  largest; with n < N some parts are empty. Parts are gathered, not masked, so
  that pooling all of them costs no more than pooling the video.

  Args:
    frames: float32 [B, T, D], or `AffineFrames`.
    mask: bool [B, T], True on real frames, which come first.
    num_parts: int, N >= 1.

  Returns:
    list of N pairs: what frames is, but [B, ceil(T / N), D]; and its mask. With
    N = 1 the frames and the mask as they are.

  Raises:
    ValueError: num_parts < 1.
  """
  if num_parts < 1:
    raise ValueError(f"Need num_parts >= 1, got {num_parts}.")
  if num_parts == 1:
    return [(frames, mask)]
  if isinstance(frames, AffineFrames):
    return [
      (dataclasses.replace(frames, raw=raw), real)
      for raw, real in cut(frames.raw, mask, num_parts)
    ]
  length = frames.shape.as_list()[1]
  if length is None:
    length = tf.shape(frames)[1]
  longest = -(-length // num_parts)
  counts = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)  # [B]
  bounds = [part * counts // num_parts for part in range(num_parts + 1)]
  parts = []
  for start, end in itertools.pairwise(bounds):
    places = start[:, tf.newaxis] + tf.range(longest)
    # Past a part's end come frames of the next one, or the last again.
    places = tf.minimum(places, length - 1)
    part = tf.gather(frames, places, batch_dims=1)
    parts.append((part, tf.sequence_mask(end - start, longest)))
  return parts
