"""Tests for the chain of classifiers. Axes: B videos, D features, C classes."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import losses
from models import chain_moe
from tests import layers
from tests.models import building
from tests.references import layers as references
from training import towers

_B, _D, _C, _LINKS, _R = 4, 3, 5, 2, 3
_SHARE = 0.2


def _config(**changes):
  return chain_moe.ChainMoeModel.Config(
    **{
      "deep_chain_layers": _LINKS,
      "deep_chain_relu_cells": _R,
      "support_loss_percent": _SHARE,
      **changes,
    }
  )


def _loop(rows, variables):
  """The predictions of each link and of the last classifier."""
  found = []
  for scope in ("link0", "link1", "main"):
    own = {
      name.removeprefix(f"{scope}/"): value for name, value in variables.items()
    }
    found.append(references.mixture_of_experts(rows, own, _C))
    if scope != "main":
      units = references.linear(
        found[-1], variables, f"{scope}_units", is_training=True
      )
      rows = [
        [*row, *references.unit([max(x, 0.0) for x in unit])]
        for row, unit in zip(rows, units, strict=True)
      ]
  return found


def _cross_entropy(predictions, labels):
  total = 0.0
  for row, has in zip(predictions, labels):
    for p, y in zip(row, has):
      total -= math.log((p if y else 1.0 - p) + 1e-5)
  return total / len(labels)


def test_predictions_and_loss_match_the_loop():
  rng = np.random.default_rng(0)
  rows = rng.normal(size=[_B, _D]).astype(np.float32)
  labels = rng.random([_B, _C]) < 0.5
  model = chain_moe.ChainMoeModel(_config())
  objective = towers.Objective(losses.get_loss("MultiTaskCrossEntropyLoss"))
  with tf.Graph().as_default(), tf.Session() as session:
    result = model.create_model(tf.constant(rows), _C)
    variables = layers.randomize(session)
    supports = [p for _, p in result["auxiliary_predictions"]]
    loss = objective.of_model(result, {"labels": tf.constant(labels)})
    *found, actual_loss = session.run([*supports, result["predictions"], loss])
    penalised = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  expected = _loop(rows, variables)
  layers.assert_close(np.array(found), expected)
  *of_links, of_main = (_cross_entropy(p, labels) for p in expected)
  expected_loss = (1 - _SHARE) * of_main + _SHARE * sum(of_links)
  assert actual_loss == pytest.approx(expected_loss, rel=1e-5)
  # Gates and experts of each classifier, and what links make of them.
  assert len(penalised) == 2 * (_LINKS + 1) + _LINKS


@pytest.mark.parametrize(
  "changes", [{"multitask": False}, {"deep_chain_layers": 0}]
)
def test_may_have_no_support(changes):
  with tf.Graph().as_default():
    model = chain_moe.ChainMoeModel(_config(**changes))
    result = model.create_model(tf.zeros([_B, _D]), _C)
  assert list(result) == ["predictions"]


def test_classifies_what_another_model_pools():
  model = building.make(
    "MeanModel",
    video_level_classifier_model="ChainMoeModel",
    deep_chain_layers=_LINKS,
  )
  with tf.Graph().as_default():
    result = model.create_model(
      tf.zeros([2, 4, building.D]), _C, num_frames=tf.constant([4, 0])
    )
  assert result["prediction_weight"] == 1.0 - 0.025
  assert [share for share, _ in result["auxiliary_predictions"]] == [0.025] * 2


@pytest.mark.parametrize("kinds", ["", "label,label,label", "label,vertical"])
def test_refuses_other_supports(kinds):
  with pytest.raises(ValueError, match="--support_type is 'label', once or"):
    _config(support_type=kinds)
  assert _config(support_type="label,label").support_type == "label,label"
