"""Tests of resuming: what a checkpoint gives to the variables of a graph."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from checkpoints import resume

AVERAGE = "ExponentialMovingAverage"
STORED = {
  "tower/weights": np.float32([[1, 2, 3], [4, 5, 6]]),
  "tower/weights/Adam": np.float32([[7, 7, 7], [8, 8, 8]]),
  "global_step": np.int64(42),
  "epoch": np.int64(3),
}


def save(directory, values):
  """A checkpoint of arrays: its path prefix."""
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in values.items():
      tf.get_variable(name, initializer=value)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(session, str(directory / "model.ckpt-42"))


def start(checkpoint, shapes):
  """{name: value} of variables that are ones if nothing is restored.

  Args:
    checkpoint: path prefix or None.
    shapes: dict of name to shape; the weights alone are trainable.
  """
  with tf.Graph().as_default(), tf.Session() as session:
    for name, shape in shapes.items():
      is_average = name.endswith(f"/{AVERAGE}")
      tf.get_variable(
        name,
        None if is_average else shape,
        # As of tf.train.ExponentialMovingAverage: where the weights are.
        initializer=_of_weights if is_average else tf.ones_initializer(),
        trainable=name.endswith("weights"),
      )
    operation, function = resume.initialization(
      checkpoint, tf.global_variables()
    )
    session.run(operation)
    function(session)
    return session.run({v.op.name: v for v in tf.global_variables()})


def _of_weights():
  (weights,) = tf.trainable_variables()
  return weights.read_value()


def assert_equal(actual, expected):
  assert sorted(actual) == sorted(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


class TestReadProgress:
  def test_is_that_of_the_checkpoint(self, tmp_path):
    assert resume.read_progress(save(tmp_path, STORED)) == (42, 3)
    assert resume.read_progress(None) == (0, 0)

  def test_of_a_damaged_checkpoint_is_an_error_with_its_path(self, tmp_path):
    checkpoint = save(tmp_path, STORED)
    (tmp_path / "model.ckpt-42.index").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.ckpt-42 is damaged"):
      resume.read_progress(checkpoint)


class TestInitialization:
  weights = f"tower/weights/{AVERAGE}"

  def test_of_a_new_model_is_fresh(self):
    found = start(None, {"tower/weights": [2], self.weights: [2]})
    assert_equal(found, {"tower/weights": [1, 1], self.weights: [1, 1]})

  def test_restores_what_is_there_and_starts_the_rest(self, tmp_path, caplog):
    shapes = {
      "tower/weights": [2, 3],
      "tower/weights/Momentum": [2, 3],
      # Of another shape than the stored one.
      "tower/weights/Adam": [5],
      "epoch": [],
    }
    with caplog.at_level("INFO", logger="absl"):
      found = start(save(tmp_path, {**STORED, "epoch": np.float32(3)}), shapes)
    assert_equal(
      found,
      {
        "tower/weights": STORED["tower/weights"],
        "tower/weights/Momentum": np.ones([2, 3]),
        "tower/weights/Adam": np.ones([5]),
        "epoch": 3,
      },
    )
    assert "2 variables are not in" in caplog.text
    assert "averages" not in caplog.text

  def test_averages_start_at_the_restored_weights(self, tmp_path, caplog):
    shapes = {"tower/weights": [2, 3], self.weights: [2, 3]}
    with caplog.at_level("INFO", logger="absl"):
      found = start(save(tmp_path, STORED), shapes)
    assert_equal(found, dict.fromkeys(shapes, STORED["tower/weights"]))
    assert "averages of 1 weights are not in" in caplog.text
    assert "another optimiser" not in caplog.text

  def test_averages_are_restored_where_they_are(self, tmp_path, caplog):
    average = -STORED["tower/weights"]
    checkpoint = save(tmp_path, {**STORED, self.weights: average})
    shapes = {"tower/weights": [2, 3], self.weights: [2, 3]}
    with caplog.at_level("INFO", logger="absl"):
      found = start(checkpoint, shapes)
      assert not caplog.messages
      start(checkpoint, {"tower/weights": [2, 3]})
    assert_equal(found, {**found, self.weights: average})
    assert "averages of 1 weights in" in caplog.text
    assert "are dropped" in caplog.text

  def test_a_weight_that_is_not_there_is_an_error(self, tmp_path):
    with pytest.raises(ValueError, match=r"lacks .*\['tower/more_weights'\]"):
      start(
        save(tmp_path, STORED),
        {"tower/weights": [2, 3], "tower/more_weights": [2]},
      )
