"""Tests for the encoder's layer norm. Axes: B videos, T tokens, D features."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import transformer
from tests import layers
from tests.references import transformer as loops

_D = 7


def _run(rows):
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.float32, [None, None, rows.shape[2]])
    outputs = transformer.layer_norm(inputs)
    assert outputs.shape.as_list() == [None, None, rows.shape[2]]
    gradients = layers.gradients(outputs, [inputs])
    variables = layers.randomize(session)
    results = session.run([outputs, gradients], {inputs: rows})
  return (*results, variables)


def test_matches_the_loop():
  rows = np.random.RandomState(0).randn(2, 5, _D).astype(np.float32)
  rows[0, 1] = 4.0 + 0.1 * rows[0, 1]
  rows[1, 2] *= 1e-3  # Here epsilon counts.
  outputs, gradients, variables = _run(rows)
  expected = [
    [loops.layer_norm(row, variables, "layer_norm") for row in video]
    for video in rows
  ]
  layers.assert_close(outputs, expected, atol=1e-5)
  layers.assert_all_finite(gradients)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 100.0])
def test_a_constant_row_becomes_beta(value):
  rows = np.full([1, 2, _D], value, np.float32)
  outputs, gradients, variables = _run(rows)
  # What rounding leaves of a row, times 1 / sqrt(epsilon), or 1000.
  atol = 1e-6 + 1e-4 * abs(value)
  for row in outputs[0]:
    layers.assert_close(row, variables["layer_norm/beta"], atol=atol)
  layers.assert_all_finite(gradients)


def test_starts_at_beta_0_and_gamma_1():
  with tf.Graph().as_default(), tf.Session() as session:
    transformer.layer_norm(tf.zeros([2, 4, 3]), scope="other")
    session.run(tf.global_variables_initializer())
    found = session.run({v.op.name: v for v in tf.trainable_variables()})
  assert found["other/beta"].tolist() == [0.0] * 3
  assert found["other/gamma"].tolist() == [1.0] * 3
  assert len(found) == 2
