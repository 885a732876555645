"""Tests for second-order terms. Axes: B videos, T frames, D, K centres, S."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import second_order
from tests import layers
from tests.references import layers as references
from tests.references import moments as moment_references

_D, _K = 6, 4  # B is 3 or 2 and T 5, 2 or 0, or what `lengths` says.
_SIZES = (1, 3, 4, 5, _D, 7, 13)  # S: less than D, D, more; 3 divides it.
_CENTRES = layers.random_centres(_K, _D)
_LENGTHS = ([5, 2, 0], [0, 2], [0, 0])


def _evaluate(function, *arrays):
  """function(*tensors) of known shapes."""
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(function(*[tf.constant(array) for array in arrays]))


class TestUnitSignedSquareRoot:
  @pytest.mark.parametrize(
    "dtype, rtol", [("float32", 1e-6), ("float64", 1e-15)]
  )
  def test_matches_the_loop(self, dtype, rtol):
    rows = [[-4.0, -0.3, -1e-6, 0.0], [1e-7, 0.02, 9.0, 1e6], [0.0] * 4]
    found = _evaluate(
      second_order.unit_signed_square_root, np.array(rows, dtype)
    )
    assert found.dtype == dtype
    lengths = [math.sqrt(sum(x * x for x in row)) or 1.0 for row in rows]
    units = [[x / n for x in row] for row, n in zip(rows, lengths)]
    roots = [[u / math.sqrt(abs(u) + 1e-6) for u in row] for row in units]
    lengths = [math.sqrt(sum(x * x for x in row)) or 1.0 for row in roots]
    expected = [[x / n for x in row] for row, n in zip(roots, lengths)]
    np.testing.assert_allclose(found, expected, rtol=rtol)

  def test_the_gradient_is_finite_at_zero(self):
    rows = np.array([[0.0, 0.0], [0.0, 1.0], [1e-30, -1.0]], np.float32)
    gradients = _evaluate(
      lambda x: tf.gradients(second_order.unit_signed_square_root(x), x)[0],
      rows,
    )
    assert np.isfinite(gradients).all()
    # 1 / sqrt(1e-6) at 0, where that of the root would not be finite.
    assert gradients[1, 0] == pytest.approx(1e3, rel=1e-5)


def _convolve(x, y):
  """z_s = sum of x_p y_q over p + q = s, or s + S."""
  size = len(x)
  z = [0.0] * size
  for p in range(size):
    for q in range(size):
      z[(p + q) % size] += float(x[p]) * float(y[q])
  return z


def _count_sketch(vector, places, signs, size):
  """Each feature, with its sign, is added at its place."""
  sketch = [0.0] * size
  for value, place, sign in zip(vector, places, signs, strict=True):
    sketch[place] += sign * float(value)
  return sketch


def _sketch_of_sum(video, weights, centre_number, sketch, size):
  """sum_t w_t TS(v_t), of one centre."""
  total = [0.0] * size
  for x, row in zip(video, weights):
    v = moment_references.residual(x, _CENTRES[centre_number])
    parts = [_count_sketch(v, *hashes, size) for hashes in sketch.hashes()]
    for s, z in enumerate(_convolve(*parts)):
      total[s] += float(row[centre_number]) * z
  return total


class TestCircularConvolution:
  @pytest.mark.parametrize("size", [1, 2, 5, 6])
  @pytest.mark.parametrize("dtype", ["float32", "float64"])
  def test_matches_the_double_loop(self, size, dtype):
    rng = np.random.RandomState(0)
    x, y = rng.randn(2, 3, 4, size).astype(dtype)
    found = layers.evaluate(
      lambda mask, x, y: second_order.circular_convolution(x, y), [[True]], x, y
    )
    assert found.dtype == dtype
    for index in np.ndindex(3, 4):
      layers.assert_close(found[index], _convolve(x[index], y[index]))

  @pytest.mark.parametrize("shape", [[7], [3, 7], [None, None, 7]])
  def test_keeps_the_static_shape(self, shape):
    with tf.Graph().as_default():
      x, y = (tf.placeholder(tf.float32, shape) for _ in range(2))
      found = second_order.circular_convolution(x, y)
      assert found.shape.as_list() == shape


class TestCountSketches:
  @pytest.mark.parametrize("size", _SIZES)
  def test_match_the_loop(self, size):
    sketch = second_order.TensorSketch(_D, size, seed=2)
    vectors = np.random.RandomState(0).randn(2, 5, _D)
    found = layers.evaluate(
      lambda mask, v: sketch.count_sketches(v), [[True]], vectors
    )
    for number, hashes in enumerate(sketch.hashes()):
      assert found[number].shape == (2, 5, size)
      for index in np.ndindex(2, 5):
        expected = _count_sketch(vectors[index], *hashes, size)
        np.testing.assert_allclose(found[number][index], expected, atol=1e-14)

  @pytest.mark.parametrize("size", _SIZES)
  def test_send_each_feature_to_one_place_and_fill_places_evenly(self, size):
    sketch = second_order.TensorSketch(_D, size)
    for matrix in _evaluate(sketch.count_sketches, np.eye(_D)):
      assert matrix.shape == (_D, size)
      assert (np.count_nonzero(matrix, axis=1) == 1).all()
      assert set(np.unique(matrix)) <= {-1.0, 0.0, 1.0}
      assert np.count_nonzero(matrix, axis=0).max() <= math.ceil(_D / size)

  def test_keep_the_static_shape(self):
    with tf.Graph().as_default():
      frames = tf.placeholder(tf.float32, [None, None, _D])
      for found in second_order.TensorSketch(_D, 4).count_sketches(frames):
        assert found.shape.as_list() == [None, None, 4]

  # A model's hashes are not in its checkpoints: they must never change.
  def test_have_the_same_hashes_for_ever(self):
    powers = 10.0 ** np.arange(_D)
    found = _evaluate(
      second_order.TensorSketch(_D, 4, seed=0).count_sketches, powers
    )
    # Features 0 and 4 share a place in the first, with other signs, and so on.
    expected = [
      [1e0 - 1e4, -1e1 - 1e5, -1e2, 1e3],
      [1e5 - 1e0, -1e4 - 1e2, -1e1, 1e3],
    ]
    np.testing.assert_array_equal(found, expected)

  def test_have_other_hashes_for_another_seed(self):
    first, second = (
      _evaluate(
        second_order.TensorSketch(_D, 4, seed=seed).count_sketches, np.eye(_D)
      )
      for seed in (0, 1)
    )
    for a, b in zip(first, second):
      assert (a != b).any()
    assert (first[0] != first[1]).any()


class TestTensorSketch:
  @pytest.mark.parametrize("size", _SIZES)
  @pytest.mark.parametrize("dtype", ["float32", "float64"])
  def test_second_is_the_sketch_of_the_explicit_sum(self, size, dtype):
    sketch = second_order.TensorSketch(_D, size, seed=5)
    graph = None
    # Seen: 7e-6 and 1.4e-14, of numbers up to 40.
    atol = {"float32": 2e-5, "float64": 1e-13}[dtype]
    for lengths in _LENGTHS:
      videos = layers.random_videos(lengths, _D)
      weights = layers.random_weights(lengths, _K)
      for poison in layers.POISONS:
        frames, mask = layers.padded(videos, poison, dtype)
        padded_weights, _ = layers.padded(weights, poison, dtype)
        arrays = (frames, padded_weights, _CENTRES.astype(dtype))
        if graph is None:
          graph = layers.Graph(
            lambda mask, x, w, c: sketch.second(x, mask, w, c), *arrays
          )
        actual = graph(mask, *arrays)
        assert actual.dtype == dtype
        assert actual.shape == (len(lengths), _K, size)
        for b, (video, rows) in enumerate(zip(videos, weights)):
          assert len(video) or not actual[b].any()
          for k in range(_K):
            expected = _sketch_of_sum(video, rows, k, sketch, size)
            np.testing.assert_allclose(
              actual[b, k], expected, rtol=0.0, atol=atol
            )

  # Seen at S = 7: 157.5 for 162.3 and 4.17 for 4.24 of the vectors with
  # themselves, 0.7 for 0.9 of the one with the other, all within 1.6 standard
  # errors; those of the former are 2 %.
  @pytest.mark.parametrize("size", [7, 16])
  def test_keeps_squared_dot_products_on_average(self, size):
    number = 400
    vectors = np.random.RandomState(0).randn(2, 5)
    sketches = [  # Eagerly: a graph for each takes long.
      second_order.TensorSketch(5, size, seed).count_sketches(
        tf.constant(vectors)
      )
      for seed in range(number)
    ]
    products = []
    for v, w in second_order.circular_convolution(
      *(tf.stack(of_all) for of_all in zip(*sketches))
    ).numpy():
      products.append(
        [references.dot(*pair) for pair in ((v, v), (v, w), (w, w))]
      )
    v, w = vectors
    expected = [references.dot(*pair) ** 2 for pair in ((v, v), (v, w), (w, w))]
    standard_errors = np.std(products, axis=0) / number**0.5
    np.testing.assert_array_less(
      np.abs(np.mean(products, axis=0) - expected), 4.0 * standard_errors
    )

  @pytest.mark.parametrize("depth, size", [(0, 3), (3, 0), (-1, 3), (3, -1)])
  def test_refuses_sizes_below_one(self, depth, size):
    with pytest.raises(ValueError, match=f"got D={depth}, S={size}"):
      second_order.TensorSketch(depth, size)


class TestGradients:
  def test_are_those_of_finite_differences(self):
    rng = np.random.RandomState(0)
    # The root's slope near 0 is steep.
    values = rng.choice([-1.0, 1.0], [2, 5]) * (0.1 + rng.rand(2, 5))
    odd, even = rng.randn(2, 3, 5), rng.randn(2, 3, 6)

    def function(mask, values, *pairs):
      convolve = second_order.circular_convolution
      return {
        "unit_root": second_order.unit_signed_square_root(values),
        "odd": convolve(*pairs[:2]),
        "even": convolve(*pairs[2:]),
      }

    errors = layers.gradient_errors(function, [[True]], values, *odd, *even)
    assert max(errors.values()) < 1e-8, errors  # Of numbers up to 10.
