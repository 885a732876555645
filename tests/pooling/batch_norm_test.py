"""Tests for batch normalisation. Axes: N rows, D features."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import batch_norm as bn
from tests import layers
from tests.references import layers as references

_N, _D = 7, 3
_MASK = [True, False, True, True, False, True, True]
_PLAIN, _MASKED = "plain", "masked"  # Without a mask, with one.


def _rows(seed=0, n=_N):
  # A mean of its own and a spread of its own for each feature.
  rng = np.random.RandomState(seed)
  rows = [-1, 0.5, 4] + rng.randn(n, _D) * [0.3, 1, 2]
  return rows.astype(np.float32)


def _layer(path=_MASKED, randomize=True, is_training=True, decay=0.9, **kwargs):
  def build(rows, mask):
    return bn.batch_norm(
      rows,
      mask=mask if path == _MASKED else None,
      mode=layers.mode(is_training, decay),
      **kwargs,
    )

  layer = layers.Layer(build, rows=[None, _D], mask=[None])
  if not randomize:
    layer.initialize()
  return layer


def _run(layer, fetches, rows, mask=None):
  if mask is None:
    mask = np.ones(len(rows), bool)
  return layer.run(fetches, rows, mask)


@pytest.fixture(name="make")
def _make():
  made = []

  def make(*args, **kwargs):
    made.append(_layer(*args, **kwargs))
    return made[-1]

  yield make
  for layer in made:
    layer.close()


def _weighted_sum(values, mask):
  """Of the loop's outputs: those of padding by the real rows' statistics."""
  rows = values["rows"]
  outputs = np.empty(rows.shape)
  outputs[mask] = references.batch_norm(rows[mask], values, "batch_norm", True)
  columns = [references.mean_and_variance(column) for column in rows[mask].T]
  means, variances = np.transpose(columns)
  own = {
    **values,
    "batch_norm/moving_mean": means,
    "batch_norm/moving_variance": variances,
  }
  padding = references.batch_norm(rows[~mask], own, "batch_norm", False)
  outputs[~mask] = np.reshape(padding, [-1, _D])
  # As `layers.weighted_sum`.
  row, column = np.indices(rows.shape)
  return np.sum(outputs * np.cos(1.0 + row + 1.7 * column))


def _averages(values):
  return {k: v for k, v in values.items() if "moving" in k}


class TestTraining:
  @pytest.mark.parametrize("path", [_PLAIN, _MASKED])
  @pytest.mark.parametrize("scale", [True, False])
  def test_matches_the_loop(self, make, path, scale):
    layer = make(path, scale=scale)
    rows = _rows()
    layers.assert_close(
      _run(layer, layer.outputs, rows),
      references.batch_norm(rows, layer.values(), "batch_norm", True),
    )

  @pytest.mark.parametrize("poison", [1e3, -1e30, np.inf, np.nan])
  def test_no_statistic_sees_the_padding(self, make, poison):
    layer = make()
    before = layer.values()
    rows, mask = _rows(), np.array(_MASK)
    real = rows[mask].copy()
    rows[~mask] = poison
    outputs, _ = _run(layer, [layer.outputs, layer.updates], rows, mask)
    layers.assert_close(
      outputs[mask], references.batch_norm(real, before, "batch_norm", True)
    )
    mean, variance, count = references.updated_averages(
      real, before, "batch_norm", 0.9
    )
    after = layer.values()
    layers.assert_close(after["batch_norm/moving_mean"], mean)
    layers.assert_close(after["batch_norm/moving_variance"], variance)
    assert after["batch_norm/num_updates"] == count

  @pytest.mark.parametrize("path", [_PLAIN, _MASKED])
  def test_one_row_becomes_the_offset(self, make, path):
    layer = make(path)
    before = layer.values()
    row = _rows(n=1)
    outputs, gradients, _ = _run(
      layer, [layer.outputs, layer.gradients, layer.updates], row
    )
    layers.assert_close(outputs, [before["batch_norm/beta"]])
    layers.assert_all_finite(gradients)
    mean, variance, _ = references.updated_averages(
      row, before, "batch_norm", 0.9
    )
    after = layer.values()
    layers.assert_close(after["batch_norm/moving_mean"], mean)
    layers.assert_close(after["batch_norm/moving_variance"], variance)

  @pytest.mark.parametrize("path, n", [(_PLAIN, 0), (_MASKED, 0), (_MASKED, 4)])
  def test_no_real_row_is_finite_and_leaves_the_averages(self, make, path, n):
    layer = make(path)
    before = layer.values()
    rows = _rows(n=n)
    outputs, gradients, _ = _run(
      layer,
      [layer.outputs, layer.gradients, layer.updates],
      rows,
      np.zeros(n, bool),
    )
    assert outputs.shape == (n, _D)
    nothing = dict(before)
    nothing["batch_norm/moving_mean"] = nothing[
      "batch_norm/moving_variance"
    ] = np.zeros(_D)
    expected = references.batch_norm(rows, nothing, "batch_norm", False)
    layers.assert_close(outputs, np.reshape(expected, [n, _D]))
    layers.assert_all_finite(gradients)
    for name, value in _averages(layer.values()).items():
      assert value.tolist() == before[name].tolist()

  @pytest.mark.parametrize("path", [_PLAIN, _MASKED])
  @pytest.mark.parametrize("scale", [True, False])
  def test_gradients_are_finite_differences_of_the_loop(
    self, make, path, scale
  ):
    layer = make(path, scale=scale)
    mask = np.array(_MASK) if path == _MASKED else np.ones(_N, bool)
    values = {
      name: value.astype(np.float64) for name, value in layer.values().items()
    }
    values["rows"] = _rows().astype(np.float64)
    actual = _run(layer, layer.gradients, values["rows"], mask)
    trained = ["batch_norm/beta", *["batch_norm/gamma"] * scale]
    assert sorted(actual) == [*trained, "rows"]
    for name, found in actual.items():
      expected = np.empty(np.shape(found))
      for index in np.ndindex(expected.shape):
        ends = []
        for step in (1e-5, -1e-5):
          moved = {**values, name: values[name].copy()}
          moved[name][index] += step
          ends.append(_weighted_sum(moved, mask))
        expected[index] = (ends[0] - ends[1]) / 2e-5
      layers.assert_close(found, expected, rtol=1e-4, atol=1e-4)

  def test_a_constant_feature_far_from_zero_becomes_the_offset(self, make):
    layer = make()
    rows = _rows()
    rows[:, 1] = 500.0  # E[x^2] - E[x]^2 would lose the variance's digits.
    outputs = _run(layer, layer.outputs, rows)
    beta = layer.values()["batch_norm/beta"][1]
    # 500 is off by 3e-5 after the sum, and 1 / sqrt(epsilon) is 32.
    layers.assert_close(outputs[:, 1], [beta] * _N, atol=5e-3)


class TestMovingAverages:
  @pytest.mark.parametrize("path", [_PLAIN, _MASKED])
  # (1 + n) / (20 + n) is 0.05 to 0.21 in these five steps.
  @pytest.mark.parametrize("decay", [0.0, 0.1, 0.999])
  def test_follow_the_loop(self, make, path, decay):
    layer = make(path, decay=decay, randomize=False)
    expected = layer.values()
    assert expected["batch_norm/moving_mean"].tolist() == [0, 0, 0]
    assert expected["batch_norm/moving_variance"].tolist() == [1, 1, 1]
    assert expected["batch_norm/num_updates"] == 0
    for step in range(5):
      rows = _rows(step, n=step + 2)
      mean, variance, count = references.updated_averages(
        rows, expected, "batch_norm", decay
      )
      expected["batch_norm/moving_mean"] = mean
      expected["batch_norm/moving_variance"] = variance
      expected["batch_norm/num_updates"] = count
      _run(layer, layer.updates, rows)
      actual = layer.values()
      for name in expected:
        layers.assert_close(actual[name], expected[name])

  @pytest.mark.parametrize("path", [_PLAIN, _MASKED])
  def test_evaluate_a_batch_as_training_saw_it(self, make, path):
    train = make(path, decay=0.0)
    test = make(path, decay=0.0, is_training=False)
    rows = _rows()
    outputs, _ = _run(train, [train.outputs, train.updates], rows)
    test.load(train.values())
    # (x - mean) near 0 is the difference of two numbers of size 4.
    layers.assert_close(_run(test, test.outputs, rows), outputs, atol=1e-5)


class TestEvaluation:
  @pytest.mark.parametrize("path", [_PLAIN, _MASKED])
  @pytest.mark.parametrize("scale", [True, False])
  @pytest.mark.parametrize("n", [0, 1, _N])
  def test_uses_the_averages_alone(self, make, path, scale, n):
    layer = make(path, scale=scale, is_training=False)
    rows = _rows(n=n)
    expected = references.batch_norm(rows, layer.values(), "batch_norm", False)
    layers.assert_close(
      _run(layer, layer.outputs, rows), np.reshape(expected, [n, _D])
    )


class TestGraph:
  @pytest.mark.parametrize("path", [_PLAIN, _MASKED])
  @pytest.mark.parametrize("is_training", [True, False])
  def test_keeps_the_static_size(self, make, path, is_training):
    layer = make(path, is_training=is_training)
    assert layer.outputs.shape.as_list() == [None, _D]

  @pytest.mark.parametrize("shape", [[2], [2, 3, 4]])
  def test_refuses_another_rank(self, shape):
    with tf.Graph().as_default(), pytest.raises(ValueError, match="rank 2"):
      bn.batch_norm(tf.zeros(shape), mode=layers.mode())

  def test_refuses_an_unknown_depth(self):
    with tf.Graph().as_default():
      rows = tf.placeholder(tf.float32, [3, None])
      with pytest.raises(ValueError, match="static D"):
        bn.batch_norm(rows, mode=layers.mode())
