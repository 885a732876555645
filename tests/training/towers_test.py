"""Tests of training/towers.py: splitting, merging, clipping and placing.

Axes: B videos, N frames of the whole batch, D features, C classes.
"""

import hypothesis
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st

import losses
import model_flags
from console import program
from models import base as models
from models import scopes
from tests import layers, runs
from training import placement, towers

C = runs.NUM_CLASSES
D = sum(runs.SIZES.values())
PENALTY = 0.5
NUM_CPUS = 4

# Without batch norm the gradient of a batch is the mean of those of its videos.
PLAIN_MODELS = {
  "MoeModel": {"moe_l2": 0.3, **runs.VIDEO_LEVEL},
  "FrameLevelLogisticModel": {},
  "NetVLADModelLF": {
    "iterations": 0,
    "netvlad_add_batch_norm": False,
    "gating": True,
    "moe_l2": 0.3,
  },
}


class MeanModel(models.BaseModel):
  """Answers that can be computed by hand: one weight a class."""

  def scale_input(self, features, num_frames, is_training):
    return features, num_frames

  def create_model(self, model_input, vocab_size, num_frames=None, **unused):
    weights = tf.get_variable("weights", [D, vocab_size])
    tf.get_variable("unused", [2])
    logits = tf.matmul(model_input, weights)
    # As a model should: a mean over videos, 0 without any.
    penalty = tf.math.divide_no_nan(
      tf.reduce_sum(tf.square(logits)), tf.cast(tf.size(logits), tf.float32)
    )
    return {
      "predictions": tf.sigmoid(logits),
      "regularization_loss": penalty,
    }


class EmbeddingModel(models.BaseModel):
  """Its gradient is sparse: rows of a table, by number of frames."""

  def scale_input(self, features, num_frames, is_training):
    return features, num_frames

  def create_model(self, model_input, vocab_size, num_frames=None, **unused):
    table = tf.get_variable("table", [9, vocab_size])
    return {"predictions": tf.sigmoid(tf.gather(table, num_frames))}


class TermsModel(MeanModel):
  """Has terms with names, one without, and one of the variables alone."""

  def create_model(self, model_input, vocab_size, num_frames=None, **unused):
    result = super().create_model(model_input, vocab_size)
    offsets = tf.get_variable(
      "offsets",
      [vocab_size],
      regularizer=lambda values: 0.7 * tf.reduce_sum(tf.square(values)),
    )
    features = tf.reduce_sum(tf.square(model_input))
    count = tf.cast(tf.shape(model_input)[0], tf.float32)
    return {
      **result,
      "predictions": tf.sigmoid(offsets) * result["predictions"],
      "regularization_losses": {
        "coding": 0.1 * tf.math.divide_no_nan(features, count) * offsets[0],
        "orthogonality": 0.3 * tf.reduce_sum(tf.abs(offsets)),
      },
    }


def frame_batch(num_frames, seed=0):
  """A reader's batch of frame-level videos, as arrays."""
  rng = np.random.RandomState(seed)
  return {
    "video_ids": np.array([b"v%d" % i for i in range(len(num_frames))]),
    "features": rng.randint(0, 256, [sum(num_frames), D]).astype(np.uint8),
    "num_frames": np.array(num_frames, np.int32),
    "labels": rng.rand(len(num_frames), C) < 0.4,
    # As of segments, where most classes are not rated.
    "label_weights": rng.choice(np.float32([0, 0.5, 1]), [len(num_frames), C]),
  }


def video_batch(count, seed=0):
  """A reader's batch of video-level features, as arrays."""
  batch = frame_batch([1] * count, seed)
  features = np.random.RandomState(seed).randn(count, D)
  return {**batch, "features": features.astype(np.float32)}


def batch_for(model_name, count):
  if not model_flags.is_frame_level(model_name):
    return video_batch(count)
  return frame_batch([3, 5, 1, 4, 2, 6, 7][:count])


def plain_model(name):
  return model_flags.build_model(
    runs.model_values(model=name, **PLAIN_MODELS[name])
  )


def tensors(batch):
  """As tensors of unknown B and N, as a reader gives them."""
  return {
    name: tf.placeholder_with_default(
      values, [None, *values.shape[1:]], name=name
    )
    for name, values in batch.items()
  }


def build(
  batch, model, num_towers, penalty=PENALTY, label_smoothing=0.0, **changes
):
  """`towers.build`, on CPU devices as the trainer does.

  Args:
    batch: dict of arrays.
    model: `models.BaseModel`.
    num_towers: int.
    penalty: float.
    label_smoothing: float.
    **changes: fields of `placement.Devices`, and `scope`.
  """
  scope = changes.pop("scope", scopes.SCOPE)
  task = placement.from_environment("{}")
  devices = placement.devices(task, 0, num_towers)._replace(**changes)
  with tf.device(devices.host):
    parts = towers.split_batch(tensors(batch), num_towers)
  return towers.build(
    towers.choose(parts, model, devices),
    model,
    towers.Objective(
      losses.get_loss("CrossEntropyLoss"), penalty, label_smoothing
    ),
    devices,
    num_classes=C,
    scope=scope,
  )


def new_session():
  return tf.Session(config=program.session_config(num_cpus=NUM_CPUS))


def run_towers(batch, model, num_towers, penalty=PENALTY):
  """(label_loss, reg_loss, predictions, {variable: gradient}) as arrays."""
  with tf.Graph().as_default(), new_session() as session:
    result = build(batch, model, num_towers, penalty)
    layers.randomize(session)
    gradients = {v.op.name: g for g, v in result.gradients}
    return session.run(
      (result.label_loss, result.reg_loss, result.predictions, gradients)
    )


def run_whole(batch, model, penalty=PENALTY):
  """The same of the whole batch, without towers."""
  with tf.Graph().as_default(), new_session() as session:
    batch = tensors(batch)
    with tf.variable_scope(scopes.SCOPE):
      model_input, num_frames = model.prepare_input(
        batch["features"], batch["num_frames"], is_training=True
      )
      result = model.create_model(
        model_input, C, num_frames=num_frames, is_training=True
      )
    label_loss = losses.get_loss("CrossEntropyLoss").calculate_loss(
      result["predictions"], batch["labels"], batch["label_weights"]
    )
    reg_loss = tf.losses.get_regularization_loss()
    reg_loss += result.get("regularization_loss", 0.0)
    reg_loss += sum(result.get("regularization_losses", {}).values())
    variables = tf.trainable_variables()
    found = tf.gradients(label_loss + penalty * reg_loss, variables)
    gradients = {
      v.op.name: tf.convert_to_tensor(g)
      for g, v in zip(found, variables)
      if g is not None
    }
    layers.randomize(session)
    return session.run((label_loss, reg_loss, result["predictions"], gradients))


def assert_same(actual, expected):
  for name, one, other in zip(
    ("label_loss", "reg_loss", "predictions"), actual, expected
  ):
    np.testing.assert_allclose(one, other, 1e-5, 1e-6, err_msg=name)
  assert sorted(actual[3]) == sorted(expected[3])
  for name, gradient in expected[3].items():
    # Sums of another order: relative to the variable's largest element.
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(
      actual[3][name], gradient, 1e-5, 1e-5 * scale, err_msg=name
    )


class TestSplitBatch:
  @hypothesis.given(
    st.lists(st.integers(0, 7), max_size=9), st.integers(1, 4), st.booleans()
  )
  def test_shares_out_whole_videos(self, num_frames, num_towers, has_frames):
    batch = frame_batch(num_frames)
    if not has_frames:
      batch = video_batch(len(num_frames))
    with tf.Graph().as_default(), tf.Session() as session:
      parts = session.run(towers.split_batch(tensors(batch), num_towers))
    assert len(parts) == num_towers
    sizes = [len(part["num_frames"]) for part in parts]
    assert sorted(sizes, reverse=True) == sizes and sizes[0] - sizes[-1] <= 1
    for part in parts:
      assert len(part["features"]) == sum(part["num_frames"])
    for name in ("features", "num_frames", "labels", "label_weights"):
      joined = np.concatenate([part[name] for part in parts])
      np.testing.assert_array_equal(joined, batch[name])
      if name != "features":
        assert [len(part[name]) for part in parts] == sizes

  def test_one_tower_gets_the_batch_as_it_is(self):
    batch = {"num_frames": object(), "features": object()}
    assert towers.split_batch(batch, 1) == [batch]


class TestGradients:
  # 6 on 2: the share of each is a half. 7 on 2, 7 on 3: unequal. 1 on 3: two
  # towers without a video. NetVLAD's graphs take seconds: fewer of them.
  @pytest.mark.parametrize(
    ("name", "count", "num_towers"),
    [
      (name, *case)
      for name in ("MoeModel", "FrameLevelLogisticModel")
      for case in ((6, 1), (6, 2), (7, 2), (7, 3), (1, 3))
    ]
    + [("NetVLADModelLF", 7, 2), ("NetVLADModelLF", 1, 3)],
  )
  def test_is_that_of_the_whole_batch(self, name, count, num_towers):
    batch = batch_for(name, count)
    actual = run_towers(batch, plain_model(name), num_towers)
    assert_same(actual, run_whole(batch, plain_model(name)))
    for variable, gradient in actual[3].items():
      assert np.abs(gradient).max() > 0, variable

  @pytest.mark.parametrize("num_towers", [2, 3])
  def test_counts_a_models_own_regularisation_by_videos(self, num_towers):
    batch = video_batch(7)
    actual = run_towers(batch, MeanModel(), num_towers)
    assert_same(actual, run_whole(batch, MeanModel()))
    assert sorted(actual[3]) == ["tower/weights"]  # No gradient, no entry.

  def test_adds_up_sparse_gradients(self):
    batch = frame_batch([3, 5, 3, 3, 5])
    assert_same(
      run_towers(batch, EmbeddingModel(), 2), run_whole(batch, EmbeddingModel())
    )

  def test_penalty_weighs_regularisation_in_the_gradient_alone(self):
    batch = video_batch(5)
    free, light, heavy = (
      run_towers(batch, plain_model("MoeModel"), 2, penalty)
      for penalty in (0.0, 1.0, 3.0)
    )
    assert free[1] > 1  # Big enough to matter.
    assert free[1] == light[1] == heavy[1]
    for name, without in free[3].items():
      np.testing.assert_allclose(
        heavy[3][name] - without,
        3 * (light[3][name] - without),
        rtol=1e-4,  # A difference of close numbers.
        atol=1e-4,
      )

  def test_an_empty_tower_costs_batch_norm_nothing(self):
    values = runs.model_values(
      iterations=0, gating=True, moe_prob_gating=True, moe_l2=0.3
    )
    model = model_flags.build_model(values)
    batch = frame_batch([4])
    assert_same(run_towers(batch, model, 3), run_whole(batch, model))


class TestTerms:
  @pytest.mark.parametrize(
    ("count", "num_towers"), [(6, 1), (6, 2), (7, 3), (1, 3)]
  )
  def test_count_in_loss_and_gradient_as_those_of_the_whole_batch(
    self, count, num_towers
  ):
    batch = video_batch(count)
    actual = run_towers(batch, TermsModel(), num_towers)
    assert_same(actual, run_whole(batch, TermsModel()))

  @pytest.mark.parametrize(("count", "num_towers"), [(6, 1), (7, 3), (1, 3)])
  def test_have_their_names_and_values_over_all_towers(self, count, num_towers):
    batch = video_batch(count)
    with tf.Graph().as_default(), new_session() as session:
      result = build(batch, TermsModel(), num_towers)
      variables = layers.randomize(session)
      terms = session.run(result.reg_terms)
    offsets = variables["tower/offsets"]
    squares = [sum(x * x for x in video) for video in batch["features"]]
    # Weighed by the model, but not by the penalty.
    assert terms == {
      "coding": pytest.approx(0.1 * sum(squares) / count * offsets[0], 1e-4),
      "orthogonality": pytest.approx(0.3 * sum(map(abs, offsets)), 1e-4),
    }

  def test_are_none_without_names(self):
    with tf.Graph().as_default():
      assert build(video_batch(3), MeanModel(), 2).reg_terms == {}

  @pytest.mark.parametrize(
    ("result", "told"),
    [
      ({"regularization_loss": tf.zeros}, r"'loss', got shape \(2,\)"),
      (
        {"regularization_losses": {"coding": tf.ones}},
        r"'coding', got shape \(2,\)",
      ),
    ],
  )
  def test_that_are_no_scalars_are_told(self, result, told):
    class VectorModel(MeanModel):
      def create_model(self, *args, **kwargs):
        made = tf.nest.map_structure(lambda make: make([2]), result)
        return {**super().create_model(*args, **kwargs), **made}

    with (
      tf.Graph().as_default(),
      pytest.raises(ValueError, match=f"scalar as regularisation {told}"),
    ):
      build(video_batch(3), VectorModel(), 2)


class TestAuxiliaryPredictions:
  @pytest.mark.parametrize("num_towers", [1, 3])
  def test_add_to_the_label_loss_by_their_weights(self, num_towers):
    class SquareRootsToo(MeanModel):
      def create_model(self, *args, **kwargs):
        result = super().create_model(*args, **kwargs)
        roots = tf.sqrt(result["predictions"])
        return {
          **result,
          "prediction_weight": 0.25,
          "auxiliary_predictions": [(2.0, roots), (0.5, 1.0 - roots)],
        }

    batch = video_batch(7)
    loss, _, predictions, _ = run_towers(batch, SquareRootsToo(), num_towers)
    total = 0.0
    for weight, power, sign in ((0.25, 1.0, 1), (2.0, 0.5, 1), (0.5, 0.5, -1)):
      for video, row in enumerate(predictions):
        for c, p in enumerate(row):
          p = p**power if sign > 0 else 1.0 - p**power
          p = p if batch["labels"][video, c] else 1.0 - p
          rated = batch["label_weights"][video, c]
          total -= weight * rated * np.log(p + 1e-5)
    assert loss == pytest.approx(total / 7, rel=1e-5)


class TestLabelSmoothing:
  @pytest.mark.parametrize("num_towers", [1, 3])
  def test_changes_the_labels_of_the_loss_alone(self, num_towers):
    batch = video_batch(7)
    seen = []

    class LookingModel(MeanModel):
      def create_model(self, *args, labels=None, **kwargs):
        seen.append(labels)
        return super().create_model(*args, **kwargs)

    with tf.Graph().as_default(), new_session() as session:
      result = build(batch, LookingModel(), num_towers, label_smoothing=0.4)
      layers.randomize(session)
      loss, predictions, labels = session.run(
        (result.label_loss, result.predictions, tf.concat(seen, axis=0))
      )
    # The model saw the true labels.
    np.testing.assert_array_equal(labels, batch["labels"])
    total = 0.0
    for video in range(7):
      weights = batch["label_weights"][video]
      rated = [c for c in range(C) if weights[c] > 0]
      mass = sum(float(labels[video][c]) for c in rated)
      for c in rated:
        label = 0.6 * labels[video][c] + 0.4 * mass / len(rated)
        p = float(predictions[video][c])
        total -= weights[c] * label * np.log(p + 1e-5)
        total -= weights[c] * (1 - label) * np.log(1 - p + 1e-5)
    assert loss == pytest.approx(total / 7, rel=1e-4)
    assert loss != pytest.approx(
      run_towers(batch, MeanModel(), num_towers)[0], rel=1e-3
    )


@pytest.mark.slow
class TestUpdates:
  def model(self):
    return model_flags.build_model(
      runs.model_values(iterations=0, gating=True, moe_prob_gating=True)
    )

  def run_updates(self, batch, num_towers):
    """(number of update ops, {name: value} before, averages after)."""
    with tf.Graph().as_default(), new_session() as session:
      result = build(batch, self.model(), num_towers)
      values = layers.randomize(session)
      session.run(result.update_ops)
      averages = {
        v.op.name: v
        for v in tf.global_variables()
        if v not in tf.trainable_variables()
      }
      return len(result.update_ops), values, session.run(averages)

  def test_move_the_averages_once_a_step(self):
    num_frames = [3, 5, 1, 4, 2]
    batch = frame_batch(num_frames)
    first = {
      name: values[: sum(num_frames[:2]) if name == "features" else 2]
      for name, values in batch.items()
    }
    # The averages follow the first tower's videos, whatever the others have.
    count, before, after = self.run_updates(batch, 3)
    count_alone, _, expected = self.run_updates(first, 1)
    # Input, two assignments, the hidden layer, its gates, the probabilities'.
    assert count == count_alone == 6
    assert len(after) == 6 * 3
    for name, value in after.items():
      np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6)
      if name.endswith("num_updates"):
        assert value == before[name] + 1
      else:
        assert np.abs(value - before[name]).min() > 0, name


@pytest.mark.slow
class TestScopes:
  def test_two_models_that_train_read_nothing_of_each_other(self):
    batch = video_batch(5)
    settings = {"moe_prob_gating": True, "moe_l2": 0.3, **runs.VIDEO_LEVEL}
    models_of = {
      scope: model_flags.build_model(
        runs.model_values(model="MoeModel", moe_num_mixtures=number, **settings)
      )
      for scope, number in {"tower": 2, "tower_0": 3, "other": 2}.items()
    }
    with tf.Graph().as_default(), new_session() as session:
      built = {
        scope: build(batch, model, 2, scope=scope)
        for scope, model in models_of.items()
      }
      values = layers.randomize(session)
      for scope, result in built.items():
        own = {variable.op.name for _, variable in result.gradients}
        assert own == set(layers.names(scopes.trainable_variables(scope)))
        # As if it were alone.
        with tf.Graph().as_default(), new_session() as alone:
          expected = build(batch, models_of[scope], 2)
          layers.load(
            alone,
            {
              name.replace(f"{scope}/", "tower/", 1): value
              for name, value in values.items()
              if name.startswith(f"{scope}/")
            },
          )
          losses_alone = alone.run((expected.label_loss, expected.reg_loss))
        found = session.run((result.label_loss, result.reg_loss))
        assert found == pytest.approx(losses_alone, rel=1e-5)
      session.run(built["tower_0"].update_ops)
      after = session.run({v.op.name: v for v in tf.global_variables()})
    changed = {n for n in values if np.any(after[n] != np.float32(values[n]))}
    assert changed == {
      f"tower_0/gating_prob_bn/{name}"
      for name in ("moving_mean", "moving_variance", "num_updates")
    }
