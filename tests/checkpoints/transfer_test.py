"""Tests of checkpoints/transfer.py: a new run from another run's weights."""

import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from checkpoints import transfer
from tests import runs

AVERAGE = "ExponentialMovingAverage"
STORED = {
  "tower/norm/beta": [2],
  "tower/norm/moving_mean": [2],
  "tower/norm/num_updates": [],
  "tower/fc/weights": [2, 3],
  "tower/fc/weights/Adam": [2, 3],
  "tower/old/biases": [4],
  "global_step": [],
}
# Has batch norm of the features and of the hidden layer.
LARGE = {"netvlad_add_batch_norm": True, "gating": True, "num_epochs": 0}


def save(directory, shapes):
  """A checkpoint of ones: its path prefix."""
  with tf.Graph().as_default(), tf.Session() as session:
    for name, shape in shapes.items():
      tf.get_variable(name, shape, initializer=tf.ones_initializer())
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(session, str(directory / "model.ckpt-7"))


def match(checkpoint, shapes):
  """{name in the checkpoint: name in the model} of what is taken."""
  with tf.Graph().as_default():
    for name, shape in shapes.items():
      is_average = "moving" in name or "num" in name
      tf.get_variable(name, shape, trainable=not is_average)
    found = transfer.taken(checkpoint, tf.global_variables())
    return {name: whole.name for name, whole in found.items()}


class TestTaken:
  def test_is_what_agrees_and_a_table_says_so(self, tmp_path, caplog):
    shapes = {
      "tower/norm/beta": [2],
      "tower/norm/moving_mean": [2],
      "tower/norm/num_updates": [],
      "tower/fc/weights": [2, 5],
      "tower/new/weights": [1],
    }
    with caplog.at_level("INFO", logger="absl"):
      found = match(save(tmp_path, STORED), shapes)
    kept = [name for name in shapes if "/norm/" in name]
    assert found == dict(zip(kept, kept))
    rows = [line.split(maxsplit=1) for line in caplog.text.splitlines()]
    told = {row[0]: row[1] for row in rows if row[0] in shapes}
    assert " ".join(told["tower/norm/beta"].split()) == "[2] taken"
    assert told["tower/fc/weights"].endswith("new: stored [2, 3]")
    assert told["tower/new/weights"].endswith("new: not stored")
    assert "3 of 5 variables" in caplog.text
    # Nothing of the optimiser's, nor the step.
    assert 'no place in this model: ["tower/old/biases"]' in caplog.text

  def test_statistics_that_start_anew_count_their_updates_anew(self, tmp_path):
    shapes = {
      "tower/norm/beta": [2],
      "tower/norm/moving_mean": [9],
      "tower/norm/num_updates": [],
    }
    found = match(save(tmp_path, STORED), shapes)
    assert found == {"tower/norm/beta": "tower/norm/beta"}

  def test_and_so_do_statistics_of_what_new_weights_make(self, tmp_path):
    below = {f"tower/fc/norm/{name}": [] for name in ("beta", "num_updates")}
    checkpoint = save(tmp_path, {**STORED, **below})
    found = match(checkpoint, {**below, "tower/fc/weights": [9, 3]})
    assert found == {"tower/fc/norm/beta": "tower/fc/norm/beta"}

  def test_averages_stand_in_for_weights(self, tmp_path):
    averages = {
      f"{name}/{AVERAGE}": STORED[name]
      for name in ("tower/norm/beta", "tower/fc/weights")
    }
    shapes = {name: STORED[name] for name in STORED if name.count("/") == 2}
    checkpoint = save(tmp_path, {**STORED, **averages})
    found = match(checkpoint, {**shapes, "tower/old/biases": [1]})
    assert found == {
      f"tower/norm/beta/{AVERAGE}": "tower/norm/beta",
      "tower/norm/moving_mean": "tower/norm/moving_mean",
      "tower/norm/num_updates": "tower/norm/num_updates",
      f"tower/fc/weights/{AVERAGE}": "tower/fc/weights",
    }

  def test_nothing_is_an_error_with_the_table(self, tmp_path):
    with pytest.raises(
      ValueError, match=r"no variable of this model:\n.*\[3\] +new: stored \[4"
    ):
      match(save(tmp_path, STORED), {"tower/old/biases": [3]})


def test_a_directory_without_a_checkpoint_is_told_with_the_flag(tmp_path):
  with pytest.raises(ValueError, match="No checkpoint in --init_checkpoint="):
    transfer.find(str(tmp_path))


@pytest.mark.slow
class TestTraining:
  @pytest.fixture(scope="class")
  def source(self, tmp_path_factory):
    """(train_dir, data pattern) of a run of ten steps."""
    path = tmp_path_factory.mktemp("source")
    pattern = runs.write_data(path / "data", num_videos=13)
    runs.run_train(path / "model", pattern, max_steps=10, **LARGE)
    return path / "model", pattern

  def test_begins_at_the_others_weights_and_goes_on_without_them(
    self, source, tmp_path
  ):
    # A rate of 0 leaves what was taken as it was.
    directory, pattern = source
    other = shutil.copytree(directory, tmp_path / "other")
    new = {
      **LARGE,
      "num_classes": 4,
      "init_checkpoint": str(other),
      "base_learning_rate": 0.0,
    }
    checkpoint = runs.run_train(tmp_path / "new", pattern, max_steps=1, **new)
    before = runs.variables_of(f"{directory}/model.ckpt-10")
    after = runs.variables_of(checkpoint)
    assert after["global_step"] == 1
    for name, value in after.items():
      if name.endswith(("weights", "beta", "gamma")) and "moe" not in name:
        is_taken = value.shape == before[name].shape
        assert is_taken == np.array_equal(value, before[name]), name
      if name.endswith("num_updates"):
        assert value == before[name] + 1
      if name.endswith("Adam"):
        assert value.shape == after[name.removesuffix("/Adam")].shape
    shapes = {n: v.shape for n, v in after.items() if "/Adam" not in n}
    assert {4, 8, 12} & {shape[-1] for shape in shapes.values() if shape}

    shutil.rmtree(other)
    new["base_learning_rate"] = 0.01
    checkpoint = runs.run_train(tmp_path / "new", pattern, max_steps=2, **new)
    assert runs.variables_of(checkpoint)["global_step"] == 2
    # Begun anew, it looks again, and deletes nothing before it has found it.
    with pytest.raises(ValueError, match="no checkpoint"):
      runs.run_train(tmp_path / "new", pattern, start_new_model=True, **new)
    assert os.path.exists(f"{checkpoint}.index")

  def test_averages_of_a_second_stage_begin_at_what_was_taken(
    self, source, tmp_path
  ):
    directory, pattern = source
    checkpoint = runs.run_train(
      tmp_path,
      pattern,
      max_steps=1,
      init_checkpoint=f"{directory}/model.ckpt-10",
      ema_decay=0.9,
      ema_warmup=False,
      **LARGE,
    )
    before = runs.variables_of(f"{directory}/model.ckpt-10")
    after = runs.variables_of(checkpoint)
    averages = [name for name in after if name.endswith(AVERAGE)]
    assert averages
    for name in averages:
      weight = name.removesuffix(f"/{AVERAGE}")
      np.testing.assert_allclose(
        after[name],
        0.9 * before[weight] + 0.1 * after[weight],
        rtol=1e-4,
        atol=1e-6,
        err_msg=name,
      )

  def test_its_own_directory_is_refused(self, tmp_path):
    with pytest.raises(ValueError, match="lies in --train_dir"):
      runs.train_config(tmp_path, "x", init_checkpoint=f"{tmp_path}/best")
