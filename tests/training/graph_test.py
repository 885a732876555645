"""Tests of training/graph.py: a model that trains, and others beside it."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import losses
import model_flags
from console import program
from models import scopes
from predictions import predictor
from tests import layers, runs
from training import graph, placement

C = runs.NUM_CLASSES
# Both have batch norm, and a penalty of the weights that is large.
STUDENT = {"model": "MoeModel", "moe_prob_gating": True, "moe_l2": 0.3}
TEACHER = {**STUDENT, "moe_num_mixtures": 3, "moe_l2": 0.7}
# Sees the same records, and has no variable of the teacher's shape.
LOGISTIC = {"model": "LogisticModel"}


def model_of(settings):
  return model_flags.build_model(
    runs.model_values(**runs.VIDEO_LEVEL, **settings)
  )


def batch():
  rng = np.random.RandomState(0)
  return {
    "features": tf.constant(rng.randn(7, sum(runs.SIZES.values())), tf.float32),
    "num_frames": tf.ones([7], tf.int32),
    "labels": tf.constant(rng.rand(7, C) < 0.4),
    "epoch": tf.constant(0, tf.int64),
  }


def new_session():
  return tf.Session(config=program.session_config(num_cpus=2))


def predict_beside(scope, settings=TEACHER):
  return predictor.predict(model_of(settings), batch(), C, scope)


def build(num_towers=1, **changes):
  """`graph.Graph` of the student, in the default graph."""
  return graph.build(
    batch(),
    model_of(STUDENT),
    losses.get_loss("CrossEntropyLoss"),
    runs.train_config(
      "unused", "unused", optimizer="MomentumOptimizer", **changes
    ),
    placement.devices(placement.from_environment("{}"), 0, num_towers),
    num_classes=C,
  )


def train(start, before, after, **changes):
  """Three steps of the student from given values.

  Args:
    start: {name: value} of the student's variables.
    before: scope of a model that is built before it, or None.
    after: scope of one that is built after it, or None.
    **changes: fields of `train.Config`.

  Returns:
    ([what each step fetched, summaries too], {name: value} of the
    student's variables, {name: value} of the others' before, the same after).
  """
  with tf.Graph().as_default(), new_session() as session:
    if before:
      predict_beside(before)
    built = build(**changes)
    if after:
      predict_beside(after, LOGISTIC)
    others = {
      variable.op.name: variable
      for scope in filter(None, (before, after))
      for variable in scopes.variables(scope)
    }
    layers.randomize(session)
    own = {variable.op.name: variable for variable in built.variables}
    assert not own.keys() & others.keys()
    assert len(own) + len(others) == len(tf.global_variables())
    for name, value in start.items():
      own[name].load(value, session)
    untouched = session.run(others)
    steps = [
      session.run((built.loss, built.summary, built.step_fetches))
      for _ in range(3)
    ]
    return (
      [(loss, summary) for loss, summary, _ in steps],
      session.run(own),
      untouched,
      session.run(others),
    )


def start_values(**changes):
  """Random values of the student's variables, that of the step apart."""
  with tf.Graph().as_default(), new_session() as session:
    built = build(**changes)
    layers.randomize(session)
    found = session.run({v.op.name: v for v in built.variables})
  return {**found, "global_step": 0, "epoch": 0}


@pytest.mark.parametrize("num_towers", [1, 2])
def test_training_is_the_same_beside_models_that_it_leaves_as_they_are(
  num_towers,
):
  # "tower_0" is the name scope of a tower, too.
  changes = {"num_towers": num_towers, "ema_decay": 0.9}
  start = start_values(**changes)
  expected, weights, _, _ = train(start, None, None, **changes)
  found, own, before, after = train(start, "tower_0", "teacher", **changes)
  assert found == expected
  layers_equal(own, weights)
  assert any(name.endswith("moving_mean") for name in before)
  layers_equal(after, before)
  # It did train, batch norm's averages and those of the weights too.
  for name, value in own.items():
    if name != "epoch":
      assert np.any(value != start[name]), name


def layers_equal(actual, expected):
  assert sorted(actual) == sorted(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, err_msg=name)
