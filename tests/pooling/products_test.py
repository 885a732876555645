"""Tests of pooling/products.py. Axes: N rows, D inputs, K outputs."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import products

N, K = 3, 5
# Few units, and many.
UNITS = [5, 255, 256]


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def run(build, *arrays):
  """Runs what `build` makes of placeholders of unknown N."""
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = [
      tf.placeholder(a.dtype, [None if n == N else n for n in a.shape])
      for a in arrays
    ]
    return session.run(build(*inputs), dict(zip(inputs, arrays)))


@pytest.mark.parametrize("units", UNITS)
def test_rows_times_weights_and_both_gradients(units):
  depth = 7
  inputs, weights = random(N, depth), random(depth, units, seed=1)
  upstream = random(N, units, seed=2)

  def build(inputs, weights):
    outputs = products.apply_weights(inputs, weights)
    assert outputs.shape.as_list() == [None, units]
    gradients = tf.gradients(outputs, [inputs, weights], tf.constant(upstream))
    assert gradients[0].shape.as_list()[1] == depth
    return outputs, *gradients

  outputs, of_inputs, of_weights = run(build, inputs, weights)
  np.testing.assert_allclose(outputs, inputs @ weights)
  np.testing.assert_allclose(of_inputs, upstream @ weights.T)
  np.testing.assert_allclose(of_weights, inputs.T @ upstream, atol=1e-12)


def test_weights_of_many_units_are_not_turned_round():
  def turns_weights(units):
    with tf.Graph().as_default() as graph:
      inputs = tf.placeholder(tf.float32, [None, 7])
      weights = tf.ones([7, units])
      tf.gradients(products.apply_weights(inputs, weights), inputs)
      return any(
        operation.type == "MatMul"
        and operation.inputs[1] is weights
        and operation.get_attr("transpose_b")
        for operation in graph.get_operations()
      )

  found = {units: turns_weights(units) for units in UNITS}
  assert found == {5: True, 255: True, 256: False}


def test_no_rows():
  def build(inputs):
    outputs = products.apply_weights(inputs, tf.ones([7, 256], tf.float64))
    return outputs, *tf.gradients(outputs, inputs)

  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.float64, [None, 7])
    outputs, gradient = session.run(build(inputs), {inputs: np.zeros([0, 7])})
  assert outputs.shape == (0, 256)
  assert gradient.shape == (0, 7)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_products_of_stacks(transpose_a, transpose_b):
  a, b = random(2, N, 7), random(2, 7, K, seed=1)
  given_a = a.transpose(0, 2, 1) if transpose_a else a
  given_b = b.transpose(0, 2, 1) if transpose_b else b
  found = run(
    lambda a, b: products.matmul(
      a, b, transpose_a=transpose_a, transpose_b=transpose_b
    ),
    given_a,
    given_b,
  )
  np.testing.assert_allclose(found, a @ b)


@pytest.mark.parametrize("multiply", [products.matmul, products.apply_weights])
@pytest.mark.parametrize("units", [5, 256])
def test_in_bfloat16_operands_are_rounded_and_types_are_kept(multiply, units):
  depth = 30
  inputs = random(N, depth).astype(np.float32)
  weights = random(depth, units, seed=1).astype(np.float32)
  upstream = random(N, units, seed=2).astype(np.float32)

  def build(inputs, weights):
    outputs = multiply(inputs, weights, dtype=tf.bfloat16)
    gradients = tf.gradients(outputs, [inputs, weights], tf.constant(upstream))
    assert [x.dtype for x in (outputs, *gradients)] == [tf.float32] * 3
    return outputs, *gradients

  def round_(array):
    return array.astype(tf.bfloat16.as_numpy_dtype).astype(np.float64)

  outputs, of_inputs, of_weights = run(build, inputs, weights)
  x, w, u = round_(inputs), round_(weights), round_(upstream)
  # The operands' rounding is exact here; the result's is half of 2**-7.
  tolerance = {"rtol": 2**-8, "atol": 1e-4 * depth**0.5}
  np.testing.assert_allclose(outputs, x @ w, **tolerance)
  np.testing.assert_allclose(of_inputs, u @ w.T, **tolerance)
  np.testing.assert_allclose(of_weights, x.T @ u, **tolerance)
  # Not float32's product, which is nearer to the unrounded operands'.
  assert np.abs(outputs - inputs @ weights).max() > 1e-4
