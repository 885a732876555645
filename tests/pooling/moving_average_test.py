"""Tests for the averages of batch statistics."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import moving_average
from tests import layers

_SHAPES = {"moving_mean": [3], "moving_covariance": [2, 4]}


class _Averages:
  """Averages of two statistics, and the operation that updates them."""

  def __init__(self, decay=0.9, rows_dtype=tf.int32):
    with tf.Graph().as_default() as graph:
      averages = moving_average.create(
        {
          "moving_mean": ([3], tf.zeros_initializer()),
          "moving_covariance": ([2, 4], tf.ones_initializer()),
        }
      )
      self.variables = {v.op.name: v for v in tf.global_variables()}
      assert {k: v.op.name for k, v in averages.items()} == {
        name: name for name in self.variables
      }
      self._values = {
        name: tf.placeholder(tf.float32, shape)
        for name, shape in _SHAPES.items()
      }
      self._rows = tf.placeholder(rows_dtype, [])
      self._moved = moving_average.update(
        averages, self._values, rows=self._rows, decay=decay
      )
      self._updates = layers.updates()
      self._session = tf.Session(graph=graph)
      self._session.run(tf.global_variables_initializer())

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._session.close()

  def load(self, **values):
    layers.load(self._session, values)

  def update(self, values, rows=5):
    feed = {self._values[name]: value for name, value in values.items()}
    moved, _ = self._session.run(
      [self._moved, self._updates], {**feed, self._rows: rows}
    )
    values = self.values()
    # What the step is told is what the next one finds.
    for name, value in moved.items():
      np.testing.assert_allclose(value, values[name], rtol=1e-5, atol=1e-7)
    return values

  def values(self):
    return self._session.run(self.variables)


def _statistics(seed=0):
  rng = np.random.RandomState(seed)
  return {
    name: rng.randn(*shape).astype(np.float32)
    for name, shape in _SHAPES.items()
  }


def _moved(value, kept, target):
  """Number by number."""
  moved = [
    kept * float(old) + (1 - kept) * float(new)
    for old, new in zip(np.ravel(value), np.ravel(target))
  ]
  return np.reshape(moved, np.shape(value))


@pytest.mark.parametrize("rows_dtype", [tf.int32, tf.float32])
def test_the_first_updates_keep_a_twentieth_then_two_twenty_firsts(rows_dtype):
  with _Averages(rows_dtype=rows_dtype) as averages:
    assert {k: v.tolist() for k, v in averages.values().items()} == {
      "moving_mean": [0.0] * 3,
      "moving_covariance": [[1.0] * 4] * 2,
      "num_updates": 0.0,
    }
    expected = {"moving_mean": [0.0] * 3, "moving_covariance": [[1.0] * 4] * 2}
    for step, kept in enumerate([1 / 20, 2 / 21, 3 / 22, 4 / 23]):
      statistics = _statistics(step)
      actual = averages.update(statistics)
      assert actual["num_updates"] == step + 1
      for name in _SHAPES:
        expected[name] = _moved(expected[name], kept, statistics[name])
        layers.assert_close(actual[name], expected[name])


@pytest.mark.parametrize(
  "decay, num_updates, kept",
  [
    (0.9, 169, 170 / 189),  # The last that is still warming up.
    (0.9, 170, 0.9),  # 171 / 190.
    (0.9, 171, 0.9),
    (0.9, 1e6, 0.9),
    (0.0, 3, 0.0),
    (0.1, 3, 0.1),
    (0.999, 3, 4 / 23),
    (0.999, 1e6, 0.999),
  ],
)
def test_the_decay_bounds_what_is_kept(decay, num_updates, kept):
  old, new = _statistics(1), _statistics(2)
  with _Averages(decay) as averages:
    averages.load(num_updates=num_updates, **old)
    actual = averages.update(new)
  assert actual["num_updates"] == num_updates + 1
  for name in _SHAPES:
    layers.assert_close(actual[name], _moved(old[name], kept, new[name]))


@pytest.mark.parametrize("rows_dtype", [tf.int32, tf.float32])
@pytest.mark.parametrize("value", [7.0, np.nan, np.inf])
def test_a_batch_of_no_rows_changes_nothing(rows_dtype, value):
  old = _statistics(1)
  with _Averages(rows_dtype=rows_dtype) as averages:
    averages.load(num_updates=5.0, **old)
    actual = averages.update(
      {name: np.full(shape, value) for name, shape in _SHAPES.items()}, rows=0
    )
  assert actual["num_updates"] == 5.0
  for name in _SHAPES:
    assert actual[name].tolist() == old[name].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_leaves_its_average_alone(value):
  old, new = _statistics(1), _statistics(2)
  new["moving_mean"][1] = new["moving_covariance"][1, 2] = value
  with _Averages() as averages:
    averages.load(num_updates=1.0, **old)
    actual = averages.update(new)
  assert actual["num_updates"] == 2.0
  new["moving_mean"][1] = old["moving_mean"][1]
  new["moving_covariance"][1, 2] = old["moving_covariance"][1, 2]
  for name in _SHAPES:
    layers.assert_close(actual[name], _moved(old[name], 2 / 21, new[name]))


def test_are_warm_after_200_updates_at_decay_0_999():
  target = _statistics(3)
  with _Averages(decay=0.999) as averages:
    for _ in range(200):
      actual = averages.update(target)
  for name in _SHAPES:
    # 0.999^200 is 82 % of the way that a fixed decay would have left.
    layers.assert_close(actual[name], target[name], atol=1e-3)


def test_names_follow_the_scope_and_nothing_is_trained():
  with tf.Graph().as_default():
    with tf.variable_scope("first"):
      averages = moving_average.create(
        {"moving_mean": ([3], tf.zeros_initializer())}
      )
    assert {k: v.op.name for k, v in averages.items()} == {
      "moving_mean": "first/moving_mean",
      "num_updates": "first/num_updates",
    }
    assert averages["moving_mean"].shape.as_list() == [3]
    assert averages["num_updates"].shape.as_list() == []
    assert tf.trainable_variables() == []
    assert layers.updates() == []


def test_an_update_is_one_operation():
  with tf.Graph().as_default():
    averages = moving_average.create(
      {"moving_mean": ([3], tf.zeros_initializer())}
    )
    moving_average.update(
      averages, {"moving_mean": tf.ones([3])}, rows=2, decay=0.9
    )
    assert len(layers.updates()) == 1


def test_all_towers_of_a_step_read_the_same():
  with tf.Graph().as_default():
    reads = []
    for reuse in (False, True):
      with tf.variable_scope("tower", reuse=reuse):
        averages = moving_average.create({"m": ([3], tf.zeros_initializer())})
        reads.append({k: tf.convert_to_tensor(v) for k, v in averages.items()})
    for name, read in reads[0].items():
      # One tensor: no update can come between.
      assert reads[1][name] is read
