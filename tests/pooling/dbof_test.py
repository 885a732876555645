"""Tests for the bag of frames. Axes: B videos, T frames, D features, K."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import dbof
from tests import layers
from tests.references import layers as references

_D, _K = 3, 7
# Full, ragged, with an empty video last, first, and nothing else.
_LENGTHS = ([5, 5], [5, 2], [3, 0], [0, 1, 6, 4], [0, 0])
_METHODS = ("average", "max")


def _kwargs(add_batch_norm=True, is_training=True, **kwargs):
  return {
    "num_clusters": _K,
    "pooling_method": "average",
    "activation": "relu6",
    "mode": layers.mode(is_training, add_batch_norm=add_batch_norm),
    **kwargs,
  }


@pytest.mark.parametrize("method", _METHODS)
def test_pool_frames_matches_the_loop(method):
  with tf.Graph().as_default(), tf.Session() as session:
    activations = tf.placeholder(tf.float32, [None, None, _K], name="units")
    mask = tf.placeholder(tf.bool, [None, None])
    pooled = dbof.pool_frames(activations, mask, method)
    assert pooled.shape.as_list() == [None, _K]
    gradients = layers.gradients(pooled, [activations])
    # Larger, and smaller, than any frame.
    for poison in (1e3, -1e3, np.inf, -np.inf, np.nan):
      for lengths in _LENGTHS:
        videos = layers.random_videos(lengths, _K)
        videos[0] -= 9.0  # A maximum below 0.
        padded, real = layers.pad(videos, poison)
        actual, found = session.run(
          [pooled, gradients], {activations: padded, mask: real}
        )
        layers.assert_close(actual, references.pool_frames(videos, _K, method))
        layers.assert_all_finite(found)
        assert not found["units"][~real].any()


@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize("activation", ["relu", "relu6", "sigmoid"])
@pytest.mark.parametrize(
  "add_batch_norm, is_training", [(True, True), (True, False), (False, True)]
)
def test_matches_the_loop(method, activation, add_batch_norm, is_training):
  with tf.Graph().as_default(), tf.Session() as session:
    frames = tf.placeholder(tf.float32, [None, None, _D])
    mask = tf.placeholder(tf.bool, [None, None])
    outputs = dbof.dbof(
      frames,
      mask,
      **_kwargs(
        pooling_method=method,
        activation=activation,
        add_batch_norm=add_batch_norm,
        is_training=is_training,
      ),
    )
    assert outputs.shape.as_list() == [None, _K]
    gradients = layers.gradients(outputs)
    assert sorted(gradients) == layers.names(tf.trainable_variables())
    variables = layers.randomize(session)
    for lengths in _LENGTHS:
      # So large that some units pass 6.
      videos = [5.0 * video for video in layers.random_videos(lengths, _D)]
      padded, real = layers.pad(videos)
      actual, found = session.run(
        [outputs, gradients], {frames: padded, mask: real}
      )
      expected = references.dbof(
        videos, variables, "dbof", method, activation, is_training
      )
      # Before the activation units are of size 10.
      layers.assert_close(actual, expected, atol=5e-6)
      layers.assert_all_finite(found)
      for row, n in zip(actual, lengths):
        assert n or not row.any()


def _mean_and_max(videos, variables, is_training):
  pooled = [
    references.dbof(videos, variables, "bag", how, "relu6", is_training)
    for how in _METHODS
  ]
  return [references.unit(a) + references.unit(b) for a, b in zip(*pooled)]


def _soft(videos, variables, is_training):
  sums, maxima = references.soft_bags(videos, variables, "bag", is_training)
  return [references.unit(s) + m for s, m in zip(sums, maxima)]


def _gated(videos, variables, is_training):
  return references.gated_bags(videos, variables, "bag", is_training)


@pytest.mark.parametrize(
  ("layer", "reference", "kwargs"),
  [
    (dbof.mean_and_max, _mean_and_max, {"activation": "relu6"}),
    (dbof.soft, _soft, {"with_max": True}),
    (dbof.gated, _gated, {}),
  ],
)
@pytest.mark.parametrize(
  "add_batch_norm, is_training", [(True, True), (True, False), (False, True)]
)
def test_late_fusions_bags_match_the_loops(
  layer, reference, kwargs, add_batch_norm, is_training
):
  def build(frames, mask):
    mode = layers.mode(is_training, add_batch_norm=add_batch_norm)
    with tf.variable_scope("bag"):
      return layer(frames, mask, num_clusters=_K, mode=mode, **kwargs)

  with layers.Layer(build, frames=[None, None, _D], mask=[None, None]) as built:
    for lengths in _LENGTHS:
      videos = layers.random_videos(lengths, _D)
      actual = built.run(built.outputs, *layers.pad(videos))
      expected = reference(videos, built.initial, is_training)
      layers.assert_close(actual, expected, atol=5e-6)
      assert not actual[np.array(lengths) == 0].any()


class TestErrors:
  def _build(self, frames=None, **kwargs):
    with tf.Graph().as_default():
      if frames is None:
        frames = tf.zeros([2, 5, _D])
      elif callable(frames):
        frames = frames()
      dbof.dbof(frames, tf.ones([2, 5], tf.bool), **_kwargs(**kwargs))

  @pytest.mark.parametrize("num_clusters", [0, -1])
  def test_refuses_fewer_than_one_cluster(self, num_clusters):
    with pytest.raises(ValueError, match=f"got D=3, K={num_clusters}"):
      self._build(num_clusters=num_clusters)

  def test_refuses_an_unknown_activation(self):
    with pytest.raises(
      ValueError, match=r"one of \['relu', 'relu6', 'sigmoid'\], got 'tanh'"
    ):
      self._build(activation="tanh")

  def test_refuses_an_unknown_pooling_method(self):
    with pytest.raises(ValueError, match="'average' or 'max', got 'sum'"):
      self._build(pooling_method="sum")
