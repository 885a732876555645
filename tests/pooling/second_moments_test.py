"""Tests for second moments. Axes: B videos, T frames, D features, K centres."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import second_moments
from tests import layers
from tests.references import layers as references
from tests.references import moments as moment_references

_D, _K = 6, 4
_LENGTHS = ([5, 2, 0], [0, 2], [0, 0])


@pytest.fixture(name="way", params=["at once", "by centre", "in a loop"])
def _way(request, monkeypatch):
  """How second moments of any size are made."""
  if request.param != "at once":
    monkeypatch.setattr(second_moments, "_FEW", 0)
  if request.param == "in a loop":
    monkeypatch.setattr(second_moments, "_UNROLLED", 0)


def _functions(mask, frames, weights, centres):
  given = (mask, weights, centres)
  found = {
    f"second {g}": second_moments.second(frames, *given, group_size=g)
    for g in (1, 2, 3, _D)
  }
  return {**found, "triangles": second_moments.triangles(frames, *given)}


@pytest.mark.usefixtures("way")
class TestWays:
  """Every way gives what the loops give, and gradients to them."""

  @pytest.mark.parametrize("lengths", _LENGTHS)
  def test_match_the_loops(self, lengths):
    videos = layers.random_videos(lengths, _D)
    weights = layers.random_weights(lengths, _K)
    centres = layers.random_centres(_K, _D)
    frames, mask = layers.padded(videos)
    found = layers.evaluate(
      _functions, mask, frames, layers.padded(weights)[0], centres
    )
    triangles = found.pop("triangles")
    for name, matrices in found.items():
      size = int(name.split()[1])
      assert matrices.shape == (len(videos), _K, _D // size, size, size)
      expected = [
        moment_references.second(*video, centres, size)
        for video in zip(videos, weights)
      ]
      layers.assert_close(matrices, expected, atol=2e-5)
    for whole, row in zip(found[f"second {_D}"], triangles, strict=True):
      for matrix, numbers in zip(whole[:, 0], row, strict=True):
        assert len(numbers) == _D * (_D + 1) // 2
        length = references.dot(matrix.ravel(), matrix.ravel())
        assert references.dot(numbers, numbers) == pytest.approx(
          length, rel=1e-5
        )

  def test_gradients_are_those_of_finite_differences(self):
    lengths = [3, 1]
    frames, mask = layers.padded(layers.random_videos(lengths, _D), 0.0)
    weights, _ = layers.padded(layers.random_weights(lengths, _K), 0.0)
    errors = layers.gradient_errors(
      _functions, mask, frames, weights, layers.random_centres(_K, _D)
    )
    assert max(errors.values()) < 1e-6, errors

  def test_no_gradient_sees_padding(self):
    rng = np.random.RandomState(0)
    mask = np.array([[True, True, False], [False, False, False]])
    frames = rng.randn(2, 3, _D).astype(np.float32)
    given = [
      rng.rand(2, 3, _K).astype(np.float32),
      rng.randn(_K, _D).astype(np.float32),
    ]

    def gradients(padding):
      frames[~mask] = padding
      with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.constant(value) for value in (frames, *given)]
        found = _functions(tf.constant(mask), *inputs)
        # Slopes as large as those of a square root at 0.
        outputs = [1e6 * tf.reduce_sum(tf.sin(x)) for x in found.values()]
        return session.run(tf.gradients(outputs, inputs))

    for found, expected in zip(gradients(3e38), gradients(0.0), strict=True):
      np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ("num_centres", "num_features", "expected"),
  [(1, 7, False), (1, 8, True), (2, 16, True), (4, 31, False), (9, 33, True)],
)
def test_few_centres_and_large_groups_have_residuals(
  num_centres, num_features, expected
):
  """Pairs of features, a matrix product, are made of the others."""
  with tf.Graph().as_default() as graph:
    weights = tf.ones([2, 3, num_centres])
    centres = tf.ones([num_centres, num_features])
    frames = tf.ones([2, 3, num_features])
    second_moments.triangles(frames, None, weights, centres)
    pairs = num_features * (num_features + 1) // 2
    shapes = [out.shape for op in graph.get_operations() for out in op.outputs]
  assert ([2, 3, pairs] not in shapes) == expected


class TestUpperTriangle:
  def test_goes_row_after_row(self):
    matrix = [[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]]
    found = layers.evaluate(
      lambda mask, m: second_moments.upper_triangle(m),
      [[True]],
      np.array([[matrix]]),
    )
    root = 2.0**0.5
    expected = [1.0, 2.0 * root, 3.0 * root, 4.0, 5.0 * root, 6.0]
    np.testing.assert_allclose(found, [[expected]], rtol=1e-15)

  def test_keeps_dot_products(self):
    rng = np.random.RandomState(0)
    matrices = rng.randn(2, 7, 5, 5)
    matrices += np.swapaxes(matrices, 2, 3)
    found = layers.evaluate(
      lambda mask, m: second_moments.upper_triangle(m), [[True]], matrices
    )
    assert found.shape == (2, 7, 15)
    for k in range(7):
      expected = sum(
        matrices[0, k, p, q] * matrices[1, k, p, q]
        for p in range(5)
        for q in range(5)
      )
      assert references.dot(found[0, k], found[1, k]) == pytest.approx(
        expected, rel=1e-12
      )

  @pytest.mark.parametrize("shape", [[5, 5], [3, 5, 5], [1, 2, 3, 5, 5]])
  def test_refuses_another_rank(self, shape):
    with pytest.raises(ValueError, match="rank 4"):
      second_moments.upper_triangle(tf.zeros(shape))
