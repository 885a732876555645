"""Tests for transport plans. Axes: B videos, T frames, K centres."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import sinkhorn
from tests import layers

_K, _DUSTBIN = 3, 0.7
# More frames than centres, one more, as many, fewer, none.
_LENGTHS = [9, 4, 3, 2, 0, 1, 7]


def _plans(scores, rounds):
  """{float [B, T, K]} of one video after the other, and where it is real."""
  padded, real = layers.pad(scores)

  def transport(mask, scores):
    return sinkhorn.transport(
      scores, mask, tf.constant(_DUSTBIN), rounds=rounds
    )

  found = layers.evaluate(transport, real, padded)
  assert found.shape == padded.shape
  assert not found[~real].any()
  return [row[: len(video)] for row, video in zip(found, scores)]


def _masses(num_frames):
  """What each centre asks for, and the dustbin."""
  if num_frames > _K:
    return [1.0] * _K + [num_frames - _K]
  return [num_frames / (_K + 1)] * (_K + 1)


def _loop(scores, rounds):
  """Sinkhorn & Knopp: rows and columns of exp(scores) scaled in turn.

  As SALAD's code: all masses over n + K, the plan times n + K at the end.
  """
  n = len(scores)
  kernel = [[math.exp(s) for s in (*row, _DUSTBIN)] for row in scores]
  of_frames = [1.0] * n
  for _ in range(rounds):
    of_bins = [
      mass / (n + _K) / sum(kernel[t][j] * of_frames[t] for t in range(n))
      for j, mass in enumerate(_masses(n))
    ]
    of_frames = [
      1.0 / (n + _K) / sum(kernel[t][j] * of_bins[j] for j in range(_K + 1))
      for t in range(n)
    ]
  return [
    [kernel[t][j] * of_frames[t] * of_bins[j] * (n + _K) for j in range(_K)]
    for t in range(n)
  ]


@pytest.mark.parametrize("rounds", [1, 3])
def test_matches_the_loop(rounds):
  scores = layers.random_videos(_LENGTHS, _K)
  for plan, video in zip(_plans(scores, rounds), scores, strict=True):
    expected = _loop(video.astype(np.float64), rounds) if len(video) else []
    layers.assert_close(plan, np.reshape(expected, [-1, _K]))


def test_has_the_masses_after_many_rounds():
  scores = layers.random_videos(_LENGTHS, _K)
  for plan, n in zip(_plans(scores, 50), _LENGTHS, strict=True):
    *of_centres, dustbin = _masses(n)
    np.testing.assert_allclose(plan.sum(axis=0), of_centres, atol=1e-5)
    assert (1.0 - plan.sum(axis=1)).sum() == pytest.approx(dustbin, abs=1e-5)
    assert (plan.sum(axis=1) < 1.0).all()


def test_scores_may_be_large():
  """A plan of no finite exp(score), and padding that would win by far."""
  scores = [100.0 * video for video in layers.random_videos(_LENGTHS, _K)]
  padded, real = layers.pad(scores, poison=1e30)

  def transport(mask, scores):
    dustbin = tf.constant(_DUSTBIN)
    plan = sinkhorn.transport(scores, mask, dustbin)
    return plan, *tf.gradients(tf.reduce_sum(plan**2), [scores, dustbin])

  found = layers.evaluate(transport, real, padded)
  layers.assert_all_finite(dict(enumerate(found)))
  assert found[0].sum() > 0.0


def test_refuses_no_round():
  with (
    tf.Graph().as_default(),
    pytest.raises(ValueError, match="rounds >= 1, got 0"),
  ):
    sinkhorn.transport(
      tf.zeros([1, 2, _K]), tf.ones([1, 2], tf.bool), 1.0, rounds=0
    )
