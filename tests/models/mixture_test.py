"""Tests for mixtures of a model's branches.

Axes: B videos, D features, N branches, C classes.
"""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import losses
from models import base, mixture
from tests import layers
from tests.models import building
from tests.models.building import C, D
from tests.references import layers as references
from training import towers

_N, _T, _LAMBDA = 3, 2.5, 4.0


def _cross_entropy(predictions, labels):
  total = 0.0
  for row, video in zip(predictions, labels):
    for p, y in zip(row, video):
      total -= y * math.log(p + 1e-5) + (1 - y) * math.log(1 - p + 1e-5)
  return total / len(labels)


def _divergence(mixed, branches):
  total = 0.0
  for b, row in enumerate(mixed):
    target = references.softmax([z / _T for z in row])
    for branch in branches:
      own = references.softmax([z / _T for z in branch[b]])
      for p, q in zip(target, own):
        total += p * (math.log(p + 1e-8) - math.log(q + 1e-8))
  return total / len(mixed)


def _mixed(means, variables, is_training):
  """(the mixture's logits, each branch's), of videos' mean frames."""
  branches = [
    references.linear(means, variables, f"branch{n}/logistic", is_training)
    for n in range(_N)
  ]
  seen = references.batch_norm(
    means, variables, "mixture/input_bn", is_training
  )
  shares = [
    references.softmax(row)
    for row in references.linear(seen, variables, "mixture", is_training)
  ]
  mixed = []
  for b, share in enumerate(shares):
    mixed.append(
      [sum(share[n] * branches[n][b][c] for n in range(_N)) for c in range(C)]
    )
  return mixed, branches


# Of vectors, and of frames.
@pytest.mark.parametrize("name", ["LogisticModel", "FrameLevelLogisticModel"])
@pytest.mark.parametrize("is_training", [True, False])
def test_matches_the_loops(name, is_training):
  model = building.make(name, mixture=_N, cl_temperature=_T, cl_lambda=_LAMBDA)
  videos = layers.random_videos([4, 0, 1], D)
  means = references.pool_frames(videos, D, "average")
  inputs, real = np.array(means, np.float32), [1, 1, 1]
  if model.is_frame_level:
    inputs, mask = layers.pad(videos)
    real = mask.sum(axis=1)
  labels = np.random.RandomState(5).rand(len(videos), C) < 0.5
  with tf.Graph().as_default(), tf.Session() as session:
    result = model.create_model(
      tf.constant(inputs), C, tf.constant(real, tf.int32), is_training
    )
    objective = towers.Objective(losses.get_loss("CrossEntropyLoss"))
    loss = objective.of_model(result, {"labels": tf.constant(labels)})
    terms = dict(result["regularization_losses"])
    variables = layers.randomize(session)
    predictions, loss, terms = session.run((result["predictions"], loss, terms))
    assert ("descriptor" in result) == model.is_frame_level
    if model.is_frame_level:  # One of each branch.
      assert result["descriptor"].shape.as_list() == [3, _N * D]
  mixed, branches = _mixed(means, variables, is_training)
  expected = [
    [[references.sigmoid(z) for z in row] for row in logits]
    for logits in (mixed, *branches)
  ]
  layers.assert_close(predictions, expected[0], rtol=2e-5, atol=2e-6)
  assert loss == pytest.approx(
    sum(_cross_entropy(each, labels) for each in expected), rel=2e-5
  )
  if is_training:
    assert terms.keys() == {"distillation"}
    assert terms["distillation"] == pytest.approx(
      _LAMBDA * _divergence(mixed, branches), rel=1e-4
    )
  else:
    assert not terms


class _Talkative(base.BaseModel):
  """Returns all that a model may."""

  is_frame_level = False

  def create_model(self, model_input, vocab_size, **unused_params):
    weights = tf.get_variable("w", [], initializer=tf.ones_initializer())
    predictions = tf.fill([tf.shape(model_input)[0], vocab_size], 0.8)
    return {
      "predictions": predictions * weights,
      "auxiliary_predictions": [(0.25, predictions)],
      "prediction_weight": 0.5,
      "regularization_loss": 2.0 * weights,
      "regularization_losses": {"own": 3.0 * weights},
    }


def test_all_that_branches_return_counts():
  config = mixture.Config(mixture=2, cl_lambda=0.0)
  with tf.Graph().as_default(), tf.Session() as session:
    result = mixture.MixtureModel(_Talkative(), config).create_model(
      tf.ones([2, D]), C
    )
    assert [w for w, _ in result["auxiliary_predictions"]] == [0.5, 0.25] * 2
    assert {"branch0/w", "branch1/w", "mixture/weights"} <= set(layers.names())
    session.run(tf.global_variables_initializer())
    assert session.run(result["regularization_losses"]) == {
      "branches": 4.0,
      "own": 6.0,
    }
    # Without logits, by those of the probabilities.
    predictions = session.run(result["predictions"])
    np.testing.assert_allclose(predictions, np.full([2, C], 0.8), rtol=1e-5)


def test_one_branch_is_the_model_itself():
  assert not isinstance(
    building.make("MixNeXtVladModel", mixture=1), mixture.MixtureModel
  )
