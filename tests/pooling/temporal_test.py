"""Tests for parts in time. Axes: B videos, T frames, D features, N parts."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import temporal
from pooling.affine_frames import AffineFrames, formed
from tests import layers

_D = 3
_FACTOR, _OFFSET = np.float32([2.0, -1.0, 0.5]), np.float32([1.0, 0.0, -3.0])


def _parts(video, num_parts):
  """Frame by frame: i is in the last part that begins at or before it."""
  parts = [[] for _ in range(num_parts)]
  for i, frame in enumerate(video):
    begun = [p for p in range(num_parts) if p * len(video) // num_parts <= i]
    parts[begun[-1]].append(frame)
  return parts


@pytest.mark.parametrize("is_affine", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 5])
# Full, ragged, of one frame, of fewer frames than parts, empty.
@pytest.mark.parametrize("lengths", [[7, 2, 0, 1, 4, 6], [4], [0, 0]])
def test_matches_the_loop(lengths, num_parts, is_affine):
  videos = layers.random_videos(lengths, _D)
  padded, real = layers.pad(videos)

  def cut(mask, frames):
    if is_affine:
      frames = AffineFrames(frames, tf.constant(_FACTOR), tf.constant(_OFFSET))
    parts = temporal.cut(frames, mask, num_parts)
    assert num_parts == 1 or isinstance(parts[0][0], AffineFrames) == is_affine
    return [(formed(part), found) for part, found in parts]

  found = layers.evaluate(cut, real, padded)
  assert len(found) == num_parts
  longest = -(-padded.shape[1] // num_parts)
  for p, (frames, mask) in enumerate(found):
    assert frames.shape == (len(lengths), longest, _D)
    assert np.isfinite(frames).all()
    for row, is_real, video in zip(frames, mask, videos, strict=True):
      expected = np.reshape(_parts(video, num_parts)[p], [-1, _D])
      if is_affine:
        expected = expected * _FACTOR + _OFFSET
      assert is_real.tolist() == [i < len(expected) for i in range(longest)]
      layers.assert_close(row[is_real], expected)


def test_parts_of_known_length_are_of_known_length():
  with tf.Graph().as_default():
    frames = tf.placeholder(tf.float32, [None, 7, _D])
    parts = temporal.cut(frames, tf.ones([1, 7], tf.bool), 2)
  assert [part.shape.as_list() for part, _ in parts] == [[None, 4, _D]] * 2


def test_refuses_no_part():
  with (
    tf.Graph().as_default(),
    pytest.raises(ValueError, match="num_parts >= 1, got 0"),
  ):
    temporal.cut(tf.zeros([1, 2, _D]), tf.ones([1, 2], tf.bool), 0)
