"""Tests of restore.py: what a checkpoint gives to a predict graph."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
from checkpoints import restore
from models import scopes
from predictions import predictor
from tests import layers, runs

AVERAGE = "/ExponentialMovingAverage"


def values_of(**changes):
  return runs.model_values(model="MoeModel", **runs.VIDEO_LEVEL, **changes)


def build_predictions(values, features=None, scope=scopes.SCOPE):
  """A predict graph in the default graph."""
  reader = model_flags.build_reader(values)
  depth = sum(reader.feature_sizes)
  if features is None:
    features = np.zeros([1, depth], np.float32)
  batch = {
    "features": tf.constant(features, tf.float32),
    "num_frames": tf.ones([len(features)], tf.int32),
  }
  return predictor.predict(
    model_flags.build_model(values), batch, reader.num_classes, scope
  )


def save(path, values, step=7, averaged=lambda name: False):
  """Saves a random model, with more variables than prediction needs.

  Args:
    path: where to.
    values: model flags.
    step: int.
    averaged: of a weight's name: whether to save a moving average of it too.
  """
  with tf.Graph().as_default(), tf.Session() as session:
    build_predictions(values)
    for variable in tf.trainable_variables():
      if averaged(variable.op.name):
        tf.get_variable(f"{variable.op.name}{AVERAGE}", variable.shape)
    tf.get_variable("beta1_power", [])
    tf.get_variable("epoch", [], tf.int64, trainable=False)
    stored = layers.randomize(session)
    checkpoint = tf.train.Saver().save(
      session,
      str(path / "model.ckpt"),
      global_step=step,
      write_meta_graph=False,
    )
  return checkpoint, stored


def restored(checkpoint, values):
  """(step, {name: value}) of a predict graph restored from a checkpoint."""
  with tf.Graph().as_default(), tf.Session() as session:
    build_predictions(values)
    step = restore.restore(session, checkpoint)
    return step, session.run({v.op.name: v for v in tf.global_variables()})


class TestRestore:
  def test_restores_the_model_alone_and_tells_the_step(self, tmp_path):
    checkpoint, stored = save(tmp_path, values_of())
    step, found = restored(checkpoint, values_of())
    assert step == 7
    assert all(name.startswith(f"{scopes.SCOPE}/") for name in found)
    assert len(found) == len(stored) - 2
    for name, value in found.items():
      np.testing.assert_array_equal(value, np.float32(stored[name]))

  def test_takes_the_averages_of_the_weights_alone(self, tmp_path, caplog):
    # Gates of the probabilities have batch normalisation.
    values = values_of(moe_prob_gating=True)
    checkpoint, stored = save(tmp_path, values, averaged=lambda name: True)
    with caplog.at_level("INFO", logger="absl"):
      step, found = restored(checkpoint, values)
    assert step == 7
    kinds = set()
    for name, value in found.items():
      source = name + AVERAGE if name + AVERAGE in stored else name
      kinds.add(name.split("/")[-1] if source == name else "average")
      np.testing.assert_array_equal(value, np.float32(stored[source]))
    assert kinds >= {"average", "moving_mean", "moving_variance"}
    assert "weights" not in kinds
    told = [r for r in caplog.messages if "moving averages" in r]
    assert len(told) == 1
    assert checkpoint in told[0]

  def test_without_averages_says_nothing_of_them(self, tmp_path, caplog):
    checkpoint, _ = save(tmp_path, values_of())
    with caplog.at_level("INFO", logger="absl"):
      restored(checkpoint, values_of())
    assert "averages" not in caplog.text

  def test_averages_of_some_weights_are_an_error(self, tmp_path):
    checkpoint, _ = save(
      tmp_path, values_of(), averaged=lambda name: "gates" in name
    )
    with pytest.raises(ValueError, match=r"model\.ckpt-7 has") as error:
      restored(checkpoint, values_of())
    assert "averages of 1 of the model's 3 weights" in str(error.value)
    assert "tower/experts/weights [12, 12] (stored: None)" in str(error.value)

  def test_names_a_variable_of_another_shape(self, tmp_path):
    checkpoint, _ = save(tmp_path, values_of())
    # Gates of 5 + 1 experts instead of 2 + 1, for 6 classes.
    with pytest.raises(ValueError, match=r"model.ckpt-7 does not") as error:
      restored(checkpoint, values_of(moe_num_mixtures=5))
    assert "tower/gates/weights [12, 36] (stored: [12, 18])" in str(error.value)

  def test_names_a_variable_of_another_model(self, tmp_path):
    checkpoint, _ = save(tmp_path, values_of())
    other = {**values_of(), "model": "LogisticModel"}
    with pytest.raises(ValueError, match=r"model_flags\.json") as error:
      restored(checkpoint, other)
    assert "tower/logistic/weights [12, 6] (stored: None)" in str(error.value)

  def test_a_checkpoint_that_is_not_there_is_an_error_with_its_path(
    self, tmp_path
  ):
    with pytest.raises((ValueError, tf.errors.OpError), match="model.ckpt-3"):
      restored(str(tmp_path / "model.ckpt-3"), values_of())

  def test_takes_the_averages_of_its_own_scope_alone(self, tmp_path):
    checkpoint, stored = save(tmp_path, values_of(), averaged=lambda _: True)
    with tf.Graph().as_default(), tf.Session() as session:
      build_predictions(values_of())
      build_predictions(values_of(), scope="teacher")
      untouched = {v.op.name: v for v in scopes.variables()}
      layers.randomize(session)
      before = session.run(untouched)
      restore.restore(session, checkpoint, scope="teacher")
      after = session.run(untouched)
      found = session.run({v.op.name: v for v in scopes.variables("teacher")})
    for name, value in before.items():
      np.testing.assert_array_equal(after[name], value)
      restored_to = found[name.replace("tower/", "teacher/")]
      source = stored.get(name + AVERAGE, stored[name])
      np.testing.assert_array_equal(restored_to, np.float32(source))


class TestStep:
  def test_step_is_that_of_the_name(self):
    assert restore.step_of("/a-1/model.ckpt-0") == 0
    assert restore.step_of("gs://b/model.ckpt-270000") == 270000

  @pytest.mark.parametrize("name", ["best", "model.ckpt-best", "best-3"])
  def test_step_of_a_renamed_checkpoint_is_the_one_in_it(self, tmp_path, name):
    prefix = str(tmp_path / name)
    with tf.Graph().as_default(), tf.Session() as session:
      tf.get_variable("global_step", initializer=np.int64(270_000))
      session.run(tf.global_variables_initializer())
      tf.train.Saver().save(session, prefix, write_meta_graph=False)
    assert restore.step_of(prefix) == 270_000

  def test_step_of_a_checkpoint_that_is_not_there_is_an_error(self):
    with pytest.raises(ValueError, match="There is no checkpoint /a/best"):
      restore.step_of("/a/best")
