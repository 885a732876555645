"""Tests for context gating. Axes: B videos, D features."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import gating
from tests import layers
from tests.references import layers as references
from tests.references import nextvlad as loops

_B, _D = 5, 3


def _kwargs(add_batch_norm=True, remove_diag=False, is_training=True):
  return {
    "remove_diag": remove_diag,
    "mode": layers.mode(is_training, add_batch_norm=add_batch_norm),
  }


@pytest.mark.parametrize("add_batch_norm", [True, False])
@pytest.mark.parametrize("remove_diag", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_matches_the_loop(add_batch_norm, remove_diag, is_training):
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.float32, [None, _D], name="inputs")
    outputs = gating.context_gating(
      inputs, **_kwargs(add_batch_norm, remove_diag, is_training)
    )
    assert outputs.shape.as_list() == [None, _D]
    gradients = layers.gradients(outputs, [inputs])
    variables = layers.randomize(session)
    for batch in (_B, 1, 0):
      rows = np.random.RandomState(0).randn(batch, _D).astype(np.float32)
      actual, found = session.run([outputs, gradients], {inputs: rows})
      expected = references.context_gating(
        rows, variables, "gating", remove_diag, is_training
      )
      layers.assert_close(actual, np.reshape(expected, [batch, _D]))
      layers.assert_all_finite(found)


def test_a_gate_without_its_diagonal_does_not_depend_on_its_own_feature():
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.float32, [None, _D])
    outputs = gating.context_gating(
      inputs, **_kwargs(add_batch_norm=False, remove_diag=True)
    )
    layers.randomize(session)
    # One feature changes at a time, from 1 to 2.
    rows = np.ones([1 + _D, _D], np.float32)
    for d in range(_D):
      rows[1 + d, d] = 2.0
    gates = session.run(outputs, {inputs: rows}) / rows
  for d in range(_D):
    layers.assert_close(gates[1 + d, d], gates[0, d])
    for other in range(_D):
      if other != d:
        assert abs(gates[1 + d, other] - gates[0, other]) > 1e-3


@pytest.mark.parametrize("remove_diag", [True, False])
def test_the_diagonal_learns_only_where_it_counts(remove_diag):
  rows = np.random.RandomState(0).randn(_B, _D).astype(np.float32)
  with tf.Graph().as_default(), tf.Session() as session:
    outputs = gating.context_gating(
      tf.constant(rows), **_kwargs(remove_diag=remove_diag)
    )
    gradients = layers.gradients(outputs)
    layers.randomize(session)
    found = session.run(gradients)["gating/weights"]
  for d in range(_D):
    assert (abs(found[d, d]) < 1e-6) == remove_diag


@pytest.mark.parametrize("shape", [[3], [2, 4, 3]])
def test_refuses_another_rank(shape):
  with tf.Graph().as_default(), pytest.raises(ValueError, match="rank 2"):
    gating.context_gating(tf.zeros(shape), **_kwargs())


def test_refuses_an_unknown_depth():
  with tf.Graph().as_default():
    inputs = tf.placeholder(tf.float32, [2, None])
    with pytest.raises(ValueError, match="Need static D"):
      gating.context_gating(inputs, **_kwargs())


@pytest.mark.parametrize("add_batch_norm", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("reduction", [2, 9])
def test_a_bottleneck_matches_the_loop(reduction, add_batch_norm, is_training):
  depth = 5  # Of which 2 units are left, or 1.
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.float32, [None, depth], name="inputs")
    outputs = gating.bottleneck_gating(
      inputs,
      reduction=reduction,
      mode=layers.mode(is_training, add_batch_norm=add_batch_norm),
    )
    gradients = layers.gradients(outputs, [inputs])
    variables = layers.randomize(session)
    assert variables["gating/excite"].shape == (max(1, depth // reduction), 5)
    for batch in (_B, 1, 0):
      rows = np.random.RandomState(0).randn(batch, depth).astype(np.float32)
      actual, found = session.run([outputs, gradients], {inputs: rows})
      expected = loops.bottleneck_gating(rows, variables, "gating", is_training)
      layers.assert_close(actual, np.reshape(expected, [batch, depth]))
      layers.assert_all_finite(found)


def test_a_bottleneck_refuses_a_reduction_below_1():
  with tf.Graph().as_default(), pytest.raises(ValueError, match="reduction=0"):
    gating.bottleneck_gating(
      tf.zeros([_B, _D]), reduction=0, mode=layers.mode()
    )
