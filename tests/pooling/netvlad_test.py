"""Tests for NetVLAD. Axes: B videos, T frames, D features, K centres."""

import functools
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import democratic, netvlad
from tests import layers
from tests.references import layers as references

_D, _K = 3, 4  # B and T are 2 and 5, or what `lengths` says.
# Full, ragged, with an empty video last, first, and nothing else.
_LENGTHS = ([5, 5], [5, 2], [3, 0], [0, 1, 6], [0, 0])


def _kwargs(add_batch_norm=True, is_training=True, **kwargs):
  return {
    "num_clusters": _K,
    "mode": layers.mode(is_training, add_batch_norm=add_batch_norm),
    **kwargs,
  }


_PLAIN = democratic.Config(
  enabled=False, let_gradients_through=False, projection_size=0
)


def _netvlad(frames, mask, *, residuals=True, scope="netvlad", **kwargs):
  """The layers as the models put them together: float32 [B, K * D]."""
  with tf.variable_scope(scope):
    assignments = netvlad.soft_assignments(frames, mask, **kwargs)
    centres = None
    if residuals:
      depth = frames.shape.as_list()[2]
      centres = netvlad.make_centres(kwargs["num_clusters"], depth)
    sums = netvlad.vlad(frames, mask, assignments, centres, democratic=_PLAIN)
  return netvlad.descriptor(sums)


def _layer(**kwargs):
  return layers.Layer(
    functools.partial(_netvlad, **_kwargs(**kwargs)),
    frames=[None, None, _D],
    mask=[None, None],
  )


@pytest.mark.parametrize("add_batch_norm", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
class TestAgainstLoops:
  @pytest.mark.parametrize("residuals", [True, False])
  def test_matches_equation_4(self, add_batch_norm, is_training, residuals):
    with _layer(
      add_batch_norm=add_batch_norm,
      is_training=is_training,
      residuals=residuals,
    ) as layer:
      assert layer.outputs.shape.as_list() == [None, _K * _D]
      for lengths in _LENGTHS:
        videos = layers.random_videos(lengths, _D)
        actual = layer.run(layer.outputs, *layers.pad(videos))
        expected = references.netvlad(
          videos, layer.initial, "netvlad", residuals, is_training
        )
        layers.assert_close(actual, expected)
        for row, n in zip(actual, lengths):
          assert references.dot(row, row) == pytest.approx(
            float(n > 0), rel=1e-5
          )


class TestVlad:
  @pytest.mark.parametrize("lengths", _LENGTHS)
  @pytest.mark.parametrize("with_centres", [True, False])
  def test_matches_the_loop_for_assignments_of_any_sum(
    self, lengths, with_centres
  ):
    videos = layers.random_videos(lengths, _D)
    assignments = [np.abs(a) for a in layers.random_videos(lengths, _K, seed=2)]
    centres = np.random.RandomState(3).randn(_K, _D).astype(np.float32)
    if not with_centres:
      centres[:] = 0.0
    padded, real = layers.pad(videos)
    assigned, _ = layers.pad(assignments)
    with tf.Graph().as_default(), tf.Session() as session:
      frames = tf.placeholder(tf.float32, [None, None, _D])
      mask = tf.placeholder(tf.bool, [None, None])
      weights = tf.placeholder(tf.float32, [None, None, _K])
      sums = netvlad.vlad(
        frames,
        mask,
        weights,
        tf.constant(centres) if with_centres else None,
        democratic=_PLAIN,
      )
      outputs = netvlad.descriptor(sums)
      assert outputs.shape.as_list() == [None, _K * _D]
      actual = session.run(
        outputs, {frames: padded, mask: real, weights: assigned}
      )
    layers.assert_close(actual, references.vlad(videos, assignments, centres))

  def test_gates_are_those_of_each_centre_and_feature(self):
    sums = np.random.RandomState(0).randn(2, _K, _D)
    with layers.Layer(netvlad.gate_sums, sums=[None, _K, _D]) as layer:
      weights = layer.initial["gate_weights"]
      expected = [
        [
          [x / (1.0 + math.exp(-w)) for x, w in zip(*rows)]
          for rows in zip(video, weights)
        ]
        for video in sums
      ]
      layers.assert_close(layer.run(layer.outputs, sums), expected)

  def test_a_centre_that_no_frame_belongs_to_is_zero(self):
    with tf.Graph().as_default(), tf.Session() as session:
      actual = session.run(
        netvlad.vlad(
          tf.constant([[[3.0, 5.0], [0.0, 4.0]]]),
          tf.constant([[True, True]]),
          tf.constant([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.5]]]),
          tf.constant([[2.0, 5.0], [7.0, 7.0], [0.0, 6.0]]),
          democratic=_PLAIN,
        )
      )
    # (3, 5) - (2, 5) and half of (0, 4) - (0, 6).
    layers.assert_close(actual, [[[1, 0], [0, 0], [0, -1]]])


class TestGraph:
  @pytest.mark.parametrize("num_clusters", [0, -1])
  def test_refuses_fewer_than_one_centre(self, num_clusters):
    with (
      tf.Graph().as_default(),
      pytest.raises(ValueError, match=f"got D=3, K={num_clusters}"),
    ):
      _netvlad(
        tf.zeros([2, 5, _D]),
        tf.ones([2, 5], tf.bool),
        **_kwargs(num_clusters=num_clusters),
      )
