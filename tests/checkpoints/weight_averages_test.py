"""Tests of checkpoints/weight_averages.py, and of runs with --ema_decay."""

import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import train
from checkpoints import restore, weight_averages
from tests import layers, programs, runs
from training import placement

FAST = {"model": "FrameLevelLogisticModel"}
# Has batch normalisation, whose statistics have no averages.
NORMALISED = {"model": "MoeModel", "moe_prob_gating": True, **runs.VIDEO_LEVEL}
SUFFIX = "/ExponentialMovingAverage"
DECAY = 0.6


def decay_at(step, decay=DECAY):
  """What an average keeps at an update, which 1 to 4 bound for 0.6."""
  return min(decay, (1 + step) / (10 + step))


def split(variables):
  """({name: weight}, {name: its average}, the rest) of a checkpoint's."""
  averages = {
    name.removesuffix(SUFFIX): value
    for name, value in variables.items()
    if name.endswith(SUFFIX)
  }
  weights = {name: variables[name] for name in averages}
  others = {
    name: value
    for name, value in variables.items()
    if name not in weights and not name.endswith(SUFFIX)
  }
  return weights, averages, others


def variables_at(directory, step):
  return runs.variables_of(f"{directory}/model.ckpt-{step}")


def save(directory, variables, step):
  """Writes a checkpoint of arrays, as the newest of a train_dir."""
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in variables.items():
      tf.get_variable(name, initializer=value)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(
      session,
      str(directory / "model.ckpt"),
      global_step=step,
      write_meta_graph=False,
    )


def assert_same(actual, expected):
  assert sorted(actual) == sorted(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, 1e-5, 1e-7, err_msg=name)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
  return runs.write_data(tmp_path_factory.mktemp("data"), num_videos=13)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  return runs.write_data(
    tmp_path_factory.mktemp("videos"), num_videos=13, level="video"
  )


class TestUpdate:
  def test_matches_python_with_the_weights_and_the_step_of_the_moment(self):
    rng = np.random.RandomState(0)
    start, moves = rng.randn(2, 3), rng.randn(20, 2, 3)
    weights = average = start
    with tf.Graph().as_default(), tf.Session() as session:
      step = tf.train.get_or_create_global_step()
      variable = tf.get_variable(
        "scope/weights", initializer=start.astype(np.float32)
      )
      tf.get_variable("statistics", [4], trainable=False)
      move = tf.placeholder(tf.float32, [2, 3])
      moved = [tf.assign_add(variable, move), tf.assign_add(step, 1)]
      with tf.control_dependencies(moved):
        update = weight_averages.update(tf.trainable_variables(), 0.5, step)
      assert layers.names() == [
        "global_step",
        "scope/weights",
        f"scope/weights{SUFFIX}",
        "statistics",
      ]
      assert layers.names(tf.trainable_variables()) == ["scope/weights"]
      averages = {v.op.name: v for v in tf.global_variables()}
      session.run(tf.global_variables_initializer())
      for number, by in enumerate(moves, start=1):
        session.run(update, {move: by})
        weights = weights + by
        kept = decay_at(number, 0.5)
        average = kept * average + (1 - kept) * weights
        found = session.run(averages[f"scope/weights{SUFFIX}"])
        np.testing.assert_allclose(found, average, 1e-5, 1e-6)

  def test_averages_lie_with_their_weights(self):
    with tf.Graph().as_default() as graph:
      step = tf.train.get_or_create_global_step()
      for i in range(2):
        with tf.device(f"/cpu:{i}"):
          tf.get_variable(f"weights{i}", [3])
      with tf.device("/cpu:3"):
        weight_averages.update(tf.trainable_variables(), 0.5, step)
      for i in range(2):
        average = graph.get_tensor_by_name(f"weights{i}{SUFFIX}:0")
        assert average.device.lower().endswith(f"cpu:{i}")
      # What has the weights' size is computed there too.
      subtractions = [op for op in graph.get_operations() if op.type == "Sub"]
      devices = {
        op.device[-5:] for op in subtractions if op.outputs[0].shape.rank
      }
      assert devices == {"CPU:0", "CPU:1"}


class TestStored:
  def stored(self, *averages):
    """`stored` of two weights, [2] and [3], and the averages in a file."""
    with tf.Graph().as_default():
      variables = {"a": tf.get_variable("a", [2])}
      variables["b"] = tf.get_variable("b", [3])
      shapes = {"a": [2], "b": [3], **dict(averages)}
      found = weight_averages.stored(variables, shapes, "model.ckpt-5")
      return {name: variable.op.name for name, variable in found.items()}

  def test_are_those_of_all_weights_or_none(self):
    assert self.stored() == {}
    assert self.stored((f"c{SUFFIX}", [3])) == {}
    assert self.stored((f"a{SUFFIX}", [2]), (f"b{SUFFIX}", [3])) == {
      f"a{SUFFIX}": "a",
      f"b{SUFFIX}": "b",
    }


@pytest.mark.slow
class TestTraining:
  def test_averages_are_those_of_the_saved_weights(self, pattern, tmp_path):
    common = {**FAST, "num_towers": 2, "ema_decay": DECAY}
    # A rate of 0 leaves the weights as they were, and the average with them.
    runs.run_train(
      tmp_path / "still", pattern, max_steps=1, base_learning_rate=0.0, **common
    )
    initial, still, _ = split(variables_at(tmp_path / "still", 1))
    assert_same(still, initial)
    runs.run_train(
      tmp_path / "model",
      pattern,
      max_steps=6,
      base_learning_rate=0.5,
      save_checkpoints_steps=1,
      keep_checkpoints=0,
      **common,
    )
    expected = initial
    for step in range(1, 7):
      weights, averages, others = split(variables_at(tmp_path / "model", step))
      assert sorted(averages) == [
        "tower/logistic/biases",
        "tower/logistic/weights",
      ]
      # None of the optimiser's state, of the epoch, of the step.
      assert others
      kept = decay_at(step)
      expected = {
        name: kept * value + (1 - kept) * weights[name]
        for name, value in expected.items()
      }
      assert_same(averages, expected)
      for name, value in averages.items():
        assert np.abs(value - weights[name]).max() > 1e-2

  def test_changes_nothing_of_the_training(self, pattern, tmp_path):
    found = []
    for i, decay in enumerate((0.0, 0.9)):
      directory = tmp_path / str(i)
      runs.run_train(
        directory, pattern, ema_decay=decay, shuffle_buffer=0, **FAST
      )
      weights, averages, others = split(variables_at(directory, 3))
      assert bool(averages) == bool(decay)
      found.append({**weights, **others})
    assert_same(*found)


@pytest.mark.slow
class TestEvaluation:
  def test_is_that_of_a_model_of_the_averages_made_by_hand(
    self, videos, tmp_path
  ):
    directory = tmp_path / "model"
    runs.run_train(
      directory,
      videos,
      max_steps=6,
      base_learning_rate=0.5,
      save_checkpoints_steps=1,
      keep_checkpoints=0,
      export_model_steps=6,
      ema_decay=DECAY,
      **NORMALISED,
    )
    expected = split(variables_at(directory, 1))[1]
    for step in range(2, 7):
      weights, _, others = split(variables_at(directory, step))
      kept = decay_at(step)
      for name, value in expected.items():
        expected[name] = kept * value + (1 - kept) * weights[name]
    assert any(name.endswith("moving_mean") for name in others)
    results = {}
    for kind, model in {"averages": expected, "weights": weights}.items():
      other = tmp_path / kind
      other.mkdir()
      shutil.copy(directory / "model_flags.json", other)
      save(other, {**model, **others}, 6)
      results[kind] = runs.run_eval(other, videos)
    found = runs.run_eval(directory, videos)
    assert found["avg_loss"] == pytest.approx(
      results["averages"]["avg_loss"], rel=1e-5
    )
    assert found == {
      **results["averages"],
      "path": found["path"],
      "avg_loss": found["avg_loss"],
      "gap": pytest.approx(results["averages"]["gap"], rel=1e-5),
      "map": pytest.approx(results["averages"]["map"], rel=1e-5),
    }
    # The averages matter.
    difference = found["avg_loss"] - results["weights"]["avg_loss"]
    assert abs(difference) > 1e-2

    # So are the model that training exported, and inference.
    exported = runs.variables_of(
      f"{directory}/export/step_6/variables/variables"
    )
    assert not [name for name in exported if name.endswith(SUFFIX)]
    assert_same({name: exported[name] for name in expected}, expected)
    csv = tmp_path / "out.csv"
    runs.run_infer(directory, videos, csv)
    labels = runs.labels_of(videos, is_frame_level=False)
    # %g keeps six digits.
    assert runs.gap_of_csv(csv, labels) == pytest.approx(found["gap"], abs=1e-4)


@pytest.mark.slow
class TestResume:
  def test_averages_begin_at_the_restored_weights(
    self, pattern, tmp_path, caplog
  ):
    common = {**FAST, "base_learning_rate": 0.5, "save_checkpoints_steps": 1}
    runs.run_train(tmp_path, pattern, max_steps=8, **common)
    before = variables_at(tmp_path, 8)
    assert not split(before)[1]
    with caplog.at_level("INFO", logger="absl"):
      runs.run_train(tmp_path, pattern, max_steps=10, ema_decay=DECAY, **common)
    assert "moving averages of 2 weights are not in" in caplog.text
    # Of the optimiser nothing starts afresh.
    assert "another optimiser" not in caplog.text
    expected = {
      name: before[name] for name in split(variables_at(tmp_path, 9))[0]
    }
    assert len(expected) == 2
    for step in (9, 10):
      weights, averages, _ = split(variables_at(tmp_path, step))
      # Step 9 of the run, not 1 of the averaging.
      kept = min(DECAY, (1 + step) / (10 + step))
      assert kept > decay_at(2)
      expected = {
        name: kept * value + (1 - kept) * weights[name]
        for name, value in expected.items()
      }
      assert_same(averages, expected)

  def test_averages_go_on_and_are_dropped_without_the_flag(
    self, pattern, tmp_path, caplog
  ):
    common = {**FAST, "base_learning_rate": 0.5}
    runs.run_train(tmp_path, pattern, max_steps=3, ema_decay=DECAY, **common)
    _, before, _ = split(variables_at(tmp_path, 3))
    with caplog.at_level("INFO", logger="absl"):
      runs.run_train(tmp_path, pattern, max_steps=4, ema_decay=DECAY, **common)
    assert "moving averages" not in caplog.text
    weights, averages, _ = split(variables_at(tmp_path, 4))
    kept = decay_at(4)
    assert_same(
      averages,
      {
        name: kept * value + (1 - kept) * weights[name]
        for name, value in before.items()
      },
    )
    with caplog.at_level("INFO", logger="absl"):
      runs.run_train(tmp_path, pattern, max_steps=5, **common)
    assert "moving averages of 2 weights" in caplog.text
    assert "are dropped" in caplog.text
    variables = variables_at(tmp_path, 5)
    assert not [name for name in variables if name.endswith(SUFFIX)]
    # It went on from the weights, one step of Adam's away.
    for name, value in weights.items():
      np.testing.assert_allclose(variables[name], value, atol=1.0)
      assert np.abs(variables[name] - value).max() > 1e-3

  def test_of_some_weights_only_are_refused_and_mended_by_training(
    self, videos, tmp_path
  ):
    common = {**NORMALISED, "ema_decay": DECAY}
    runs.run_train(tmp_path, videos, max_steps=2, **common)
    variables = variables_at(tmp_path, 2)
    lost = "tower/gates/weights"
    del variables[lost + SUFFIX]
    save(tmp_path, variables, 2)
    with pytest.raises(ValueError, match=rf"ckpt-2 has .*{lost} \["):
      runs.run_eval(tmp_path, videos)
    runs.run_train(tmp_path, videos, max_steps=3, **common)
    weights, averages, _ = split(variables_at(tmp_path, 3))
    before = {
      name: variables.get(name + SUFFIX, variables[name]) for name in weights
    }
    kept = decay_at(3)
    assert_same(
      averages,
      {
        name: kept * value + (1 - kept) * weights[name]
        for name, value in before.items()
      },
    )
    assert runs.run_eval(tmp_path, videos)["step"] == 3


@pytest.mark.slow
class TestCluster:
  def test_averages_live_on_the_parameter_servers(self, pattern, tmp_path):
    chief, *servers = programs.free_addresses(3)
    jobs = {"chief": [chief], "ps": servers}
    # They serve until the process ends.
    kept_alive = [
      placement.Task(jobs, "ps", i).start_server() for i in range(len(servers))
    ]
    assert len(kept_alive) == 2
    common = {"base_learning_rate": 0.5, "save_checkpoints_steps": 1}
    # A single process begins, without averages.
    runs.run_train(tmp_path, pattern, max_steps=2, **common, **FAST)
    before = variables_at(tmp_path, 2)
    config = runs.train_config(
      tmp_path, pattern, max_steps=4, ema_decay=DECAY, **common
    )
    train.Trainer(
      config, runs.model_values(**FAST), placement.Task(jobs, "chief", 0)
    ).run()
    names = ("tower/logistic/biases", "tower/logistic/weights")
    expected = {name: before[name] for name in names}
    for step in (3, 4):
      weights, averages, _ = split(variables_at(tmp_path, step))
      kept = decay_at(step)
      expected = {
        name: kept * value + (1 - kept) * weights[name]
        for name, value in expected.items()
      }
      assert_same(averages, expected)
    assert restore.step_of(restore.latest_checkpoint(str(tmp_path))) == 4
