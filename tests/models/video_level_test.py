"""Tests for video-level models. Axes: B videos, D features, C classes."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import video_level_models
from models import base as models
from tests import layers
from tests.references import layers as references

_B, _D, _C = 5, 3, 4


def _moe(**flags):
  config = video_level_models.MoeModel.Config(
    **{"moe_l2": 1e-2, "batch_norm_decay": 0.9, **flags}
  )
  return video_level_models.MoeModel(config)


def _rows(batch=_B):
  return np.random.RandomState(0).randn(batch, _D).astype(np.float32)


class _Built:
  """A model of unknown B in its own graph, with random variables."""

  def __init__(self, model, is_training=True):
    with tf.Graph().as_default() as graph:
      self._inputs = tf.placeholder(tf.float32, [None, _D], name="inputs")
      result = model.create_model(self._inputs, _C, is_training=is_training)
      self.predictions = result["predictions"]
      self.gradients = layers.gradients(self.predictions, [self._inputs])
      self.updates = layers.updates()
      self.penalties = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
      self.shapes = {
        v.op.name: v.shape.as_list() for v in tf.global_variables()
      }
      self.num_trainable = sum(
        math.prod(v.shape.as_list()) for v in tf.trainable_variables()
      )
      self._session = tf.Session(graph=graph)
      self.variables = layers.randomize(self._session)
    assert {"predictions"} <= set(result) <= {"predictions", "logits"}
    assert self.predictions.shape.as_list() == [None, _C]

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._session.close()

  def fill(self, values):
    """Fills variables with one number each, those not named with 0."""
    layers.load(
      self._session,
      {
        name: np.full(shape, values.get(name, 0.0))
        for name, shape in self.shapes.items()
      },
    )

  def run(self, fetches, rows):
    return self._session.run(fetches, {self._inputs: rows})


def _half_sum_of_squares(weights):
  total = 0.0
  for row in weights:
    for w in row:
      total += w * w / 2
  return total


class TestPrepareInput:
  @pytest.mark.parametrize("is_training", [True, False])
  def test_scales_videos_to_unit_length(self, is_training):
    rows = 7.0 * _rows()
    rows[1] = 0.0  # Nothing to scale.
    with tf.Graph().as_default(), tf.Session() as session:
      features = tf.placeholder(tf.float32, [None, _D])
      num_frames = tf.ones([_B], tf.int32)
      actual, unchanged = _moe().prepare_input(
        features, num_frames, is_training=is_training
      )
      assert unchanged is num_frames
      assert actual.shape.as_list() == [None, _D]
      actual = session.run(actual, {features: rows})
    layers.assert_close(actual, [references.unit(row) for row in rows])


class TestLogisticModel:
  @pytest.mark.parametrize("is_training", [True, False])
  def test_matches_the_loop(self, is_training):
    model = video_level_models.LogisticModel()
    with _Built(model, is_training) as built:
      for batch in (_B, 1, 0):
        rows = _rows(batch)
        logits = references.linear(
          rows, built.variables, "logistic", is_training
        )
        expected = [[references.sigmoid(x) for x in row] for row in logits]
        actual, gradients = built.run(
          [built.predictions, built.gradients], rows
        )
        layers.assert_close(actual, np.reshape(expected, [batch, _C]))
        layers.assert_all_finite(gradients)
      assert built.updates == []

  @pytest.mark.parametrize(
    ("given", "l2_penalty"), [({}, 1e-8), ({"l2_penalty": 0.5}, 0.5)]
  )
  def test_penalises_its_weights_alone(self, given, l2_penalty):
    cls = video_level_models.LogisticModel
    with _Built(cls(cls.Config(**given))) as built:
      (penalty,) = built.run(built.penalties, _rows())
      weights = built.variables["logistic/weights"]
    assert penalty == pytest.approx(
      l2_penalty * _half_sum_of_squares(weights), rel=1e-5
    )


@pytest.mark.parametrize("is_training", [True, False])
class TestMoeModelAgainstLoops:
  @pytest.mark.parametrize("num_mixtures", [1, 3])
  @pytest.mark.parametrize("low_rank", [-1, 0, 1, 2])
  def test_mixtures_match(self, num_mixtures, low_rank, is_training):
    model = _moe(moe_num_mixtures=num_mixtures, moe_low_rank_gating=low_rank)
    with _Built(model, is_training) as built:
      for batch in (_B, 1, 0):
        rows = _rows(batch)
        expected = references.mixture_of_experts(rows, built.variables, _C)
        actual, gradients = built.run(
          [built.predictions, built.gradients], rows
        )
        layers.assert_close(actual, np.reshape(expected, [batch, _C]))
        layers.assert_all_finite(gradients)
      assert built.updates == []

  @pytest.mark.parametrize("gating_input", ["prob", "input"])
  @pytest.mark.parametrize("remove_diag", [True, False])
  def test_probability_gating_matches(
    self, gating_input, remove_diag, is_training
  ):
    model = _moe(
      moe_prob_gating=True,
      moe_prob_gating_input=gating_input,
      gating_remove_diag=remove_diag,
    )
    by_prob = gating_input == "prob"
    with _Built(model, is_training) as built:
      for batch in (_B, 1, 0):
        rows = _rows(batch)
        expected = references.mixture_of_experts(rows, built.variables, _C)
        gates = references.probability_gates(
          expected if by_prob else rows,
          built.variables,
          remove_diag and by_prob,
          is_training,
        )
        for row, gate in zip(expected, gates):
          for c in range(_C):
            row[c] *= gate[c]
        actual, gradients = built.run(
          [built.predictions, built.gradients], rows
        )
        layers.assert_close(actual, np.reshape(expected, [batch, _C]))
        layers.assert_all_finite(gradients)
        assert sorted(gradients) == [
          "experts/biases",
          "experts/weights",
          "gates/weights",
          "gating_prob_bn/beta",
          "gating_prob_bn/gamma",
          "gating_prob_weights",
          "inputs",
        ]
      assert len(built.updates) == int(is_training)


class TestMoeModel:
  def test_an_expert_that_says_yes_is_held_back_by_the_dummy(self):
    with _Built(_moe(moe_num_mixtures=1)) as built:
      # Gates of 0 are 1/2 each; the expert is sure.
      built.fill({"experts/biases": 1e4})
      actual = built.run(built.predictions, _rows())
    assert actual.tolist() == [[0.5] * _C] * _B

  @pytest.mark.parametrize("size", [1.0, 1e2, 1e4, 1e8])
  @pytest.mark.parametrize("prob_gating", [True, False])
  def test_probabilities_and_gradients_survive_large_logits(
    self, size, prob_gating
  ):
    with _Built(_moe(moe_num_mixtures=3, moe_prob_gating=prob_gating)) as built:
      actual, gradients = built.run(
        [built.predictions, built.gradients], size * _rows()
      )
    assert np.isfinite(actual).all()
    # Three shares that sum to 1 may round to a little more.
    assert actual.min() >= 0.0
    assert actual.max() <= 1.0 + 2e-7
    layers.assert_all_finite(gradients)

  @pytest.mark.parametrize(
    "low_rank, names",
    [(-1, ["gates", "experts"]), (2, ["gates_low_rank", "gates", "experts"])],
  )
  def test_penalises_the_weights_of_experts_and_gates(self, low_rank, names):
    model = _moe(moe_low_rank_gating=low_rank, moe_prob_gating=True)
    with _Built(model) as built:
      penalties = built.run(built.penalties, _rows())
      expected = [
        1e-2 * _half_sum_of_squares(built.variables[f"{name}/weights"])
        for name in names
      ]
    layers.assert_close(sorted(penalties), sorted(expected))

  def test_a_penalty_of_zero_adds_nothing(self):
    with _Built(_moe(moe_l2=0.0)) as built:
      assert built.penalties == []

  def test_variables_have_these_names_and_shapes(self):
    with _Built(_moe(moe_num_mixtures=2)) as built:
      assert built.shapes == {
        "experts/biases": [2 * _C],
        "experts/weights": [_D, 2 * _C],
        "gates/weights": [_D, 3 * _C],
      }
      assert built.num_trainable == 3 * 2 * 4 + 2 * 4 + 3 * 3 * 4

  @pytest.mark.parametrize("gating_input, size", [("prob", _C), ("input", _D)])
  def test_all_variables_have_these_names_and_shapes(self, gating_input, size):
    model = _moe(
      moe_num_mixtures=2,
      moe_low_rank_gating=1,
      moe_prob_gating=True,
      moe_prob_gating_input=gating_input,
    )
    with _Built(model) as built:
      assert built.shapes == {
        "experts/biases": [2 * _C],
        "experts/weights": [_D, 2 * _C],
        "gates/weights": [1, 3 * _C],
        "gates_low_rank/weights": [_D, 1],
        "gating_prob_bn/beta": [_C],
        "gating_prob_bn/gamma": [_C],
        "gating_prob_bn/moving_mean": [_C],
        "gating_prob_bn/moving_variance": [_C],
        "gating_prob_bn/num_updates": [],
        "gating_prob_weights": [size, _C],
      }
      assert built.num_trainable == (
        (3 * 2 * 4 + 2 * 4) + (3 * 1 + 1 * 3 * 4) + (size * 4 + 2 * 4)
      )


def test_a_base_model_asks_to_be_inherited_from():
  with pytest.raises(NotImplementedError):
    models.BaseModel().prepare_input(None, None, is_training=True)
  with pytest.raises(NotImplementedError):
    models.BaseModel().create_model(None, 4)
