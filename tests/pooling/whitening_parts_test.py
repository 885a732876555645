"""Tests for what whitening is made of: frames to look at, roots of matrices."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import whitening
from tests import layers, placed


@pytest.mark.parametrize(
  "lengths",
  [
    [0, 0],
    [300] * 80,
    # Nearly all is padding: none of the real frames may be passed over.
    [300] + [1] * 199,
    [1] * 1000,
    list(range(1, 65)),
  ],
)
def test_statistics_are_of_512_real_frames_of_all_parts_or_of_all(lengths):
  mask = np.arange(max(lengths)) < np.array(lengths)[:, np.newaxis]
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.bool, [None, None])
    rows, is_real = session.run(whitening._some_of(inputs), {inputs: mask})
  rows = rows[is_real]
  assert len(rows) == len(set(rows)) == min(512, sum(lengths))
  assert mask.ravel()[rows].all()
  videos = np.bincount(rows // max(1, max(lengths)), minlength=len(lengths))
  expected = np.array(lengths) * min(1.0, 512 / max(1, sum(lengths)))
  assert np.abs(videos - expected).max() < 2.0
  if lengths == [300] * 80:
    assert len(set(rows % 300)) > 200


class TestInverseSquareRoot:
  _MATRICES = (
    ("identity", np.eye(3)),
    ("two_equal", np.diag([2.0, 2.0, 5.0])),
    ("one", np.array([[4.0]])),
    ("random", None),
  )

  def _matrices(self, matrix):
    if matrix is not None:
      return matrix
    roots = np.random.RandomState(0).randn(2, 3, 4, 4)
    return roots @ np.swapaxes(roots, -1, -2) + 0.5 * np.eye(4)

  def _expected(self, matrix):
    values, vectors = np.linalg.eigh(matrix)
    total = np.zeros(matrix.shape)
    for value, vector in zip(values, vectors.T):
      total += vector[:, None] * vector[None, :] / math.sqrt(value)
    return total

  @pytest.mark.parametrize("name, matrix", _MATRICES)
  @pytest.mark.parametrize("dtype", [np.float32, np.float64])
  @pytest.mark.parametrize("num_gpus", [0, 1])
  def test_is_the_inverse_square_root(self, name, matrix, dtype, num_gpus):
    matrices = self._matrices(matrix)
    with tf.Graph().as_default() as graph, tf.Session() as session:
      with placed.pretended(num_gpus):
        result = whitening.inverse_square_root(tf.constant(matrices, dtype))
      assert result.dtype == dtype
      kinds = {op.type for op in graph.get_operations()}
      assert ("Svd" in kinds) == bool(num_gpus)
      actual = session.run(result)
    size = matrices.shape[-1]
    for root, matrix in zip(
      actual.reshape([-1, size, size]), matrices.reshape([-1, size, size])
    ):
      tolerance = 1e-4 if dtype == np.float32 else 1e-10
      layers.assert_close(root, root.T, atol=tolerance)
      layers.assert_close(root, self._expected(matrix), atol=tolerance)
      layers.assert_close(root @ matrix @ root, np.eye(size), atol=tolerance)

  @pytest.mark.parametrize("name, matrix", _MATRICES)
  def test_gradients_match_finite_differences(self, name, matrix):
    def root(unused_mask, inputs):
      symmetric = 0.5 * (inputs + tf.linalg.matrix_transpose(inputs))
      return {"root": whitening.inverse_square_root(symmetric)}

    mask = np.ones([1, 1], bool)
    errors = layers.gradient_errors(root, mask, self._matrices(matrix))
    # Central differences are off by step^2 and by 1e-16 / step.
    assert errors["root"] < 1e-7

  def test_the_gradient_is_symmetric_whatever_comes_from_above(self):
    matrices = self._matrices(None)
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = tf.constant(matrices)
      (gradient,) = tf.gradients(
        whitening.inverse_square_root(inputs),
        inputs,
        tf.constant(np.random.RandomState(1).randn(*matrices.shape)),
      )
      actual = session.run(gradient)
    layers.assert_close(actual, np.swapaxes(actual, -1, -2), atol=1e-12)
