"""Tests of train.py: what a run leaves, and what ends it."""

import json
import math
import pathlib
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import files
import model_flags
import train
from checkpoints import restore, train_dir
from console import program
from records import report as read_report
from tests import record_data as records
from tests import runs
from training import placement

# Starts in half the time of the others.
FAST = {"model": "FrameLevelLogisticModel"}


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
  return runs.write_data(tmp_path_factory.mktemp("data"), num_videos=13)


def write_frames(path, labels_of_videos):
  """Writes frame-level videos of given labels; the path."""
  rng = np.random.default_rng(0)
  return records.write(
    path,
    [
      records.frame_record(
        b"v%d" % i, labels, records.random_frames(rng, 3, runs.SIZES)
      )
      for i, labels in enumerate(labels_of_videos)
    ],
  )


def checkpoints(directory):
  """Steps of the checkpoints that are there, whole."""
  found = {}
  for path in directory.glob("model.ckpt-*"):
    step, part = path.name.removeprefix("model.ckpt-").split(".", 1)
    found.setdefault(int(step), set()).add(part)
  assert all(
    parts == {"index", "data-00000-of-00001"} for parts in found.values()
  )
  return sorted(found)


def assert_finite(checkpoint):
  for name, value in runs.variables_of(checkpoint).items():
    assert np.isfinite(value).all(), name


def graph_names(directory):
  """Names of the operations of all graphs in TensorBoard's files."""
  names = set()
  for path in directory.glob("events.out.tfevents.*"):
    for event in tf.train.summary_iterator(str(path)):
      if event.graph_def:
        graph = tf.GraphDef.FromString(event.graph_def)
        names.update(node.name for node in graph.node)
  return names


@pytest.mark.slow
class TestResume:
  def test_goes_on_with_other_settings_and_no_other_model(
    self, pattern, tmp_path
  ):
    directory = tmp_path / "model"
    common = {**FAST, "learning_rate_decay": 0.5, "save_checkpoints_steps": 1}
    common |= {"learning_rate_decay_examples": 8.0, "keep_checkpoints": 3}
    runs.run_train(
      directory, pattern, max_steps=2, base_learning_rate=0.02, **common
    )
    assert checkpoints(directory) == [1, 2]
    assert not any(
      name.startswith("tower_1/") for name in graph_names(directory)
    )

    # Another data set, of which every record has a stray label; towers, batch
    # and learning rate, which is too small to move anything.
    other = write_frames(tmp_path / "other.tfrecord", [[1, 99]] * 9)
    runs.run_train(
      directory,
      other,
      max_steps=4,
      base_learning_rate=1e-6,
      batch_size=3,
      num_towers=2,
      **common,
    )
    assert runs.step_of(directory) == 4
    assert checkpoints(directory) == [2, 3, 4]
    scalars = runs.events(directory)
    assert scalars["learning_rate"] == pytest.approx(
      {
        1: 0.02,
        2: 0.02,  # After 4 examples.
        3: 1e-6 * 0.5,  # After 2 steps of 2 * 3: 12.
        4: 1e-6 * 0.5**2,  # After 18.
      }
    )
    assert sorted(scalars["input/label_out_of_range"]) == [3, 4]
    assert any(name.startswith("tower_1/") for name in graph_names(directory))
    before, after = (
      runs.variables_of(str(directory / f"model.ckpt-{step}"))
      for step in (2, 4)
    )
    for name, value in before.items():
      if name.startswith("tower/") and "Adam" not in name:
        np.testing.assert_allclose(after[name], value, atol=1e-4)
    # The optimiser's state went on too: 0.9 times 0.9 for each step.
    assert after["beta1_power"] == pytest.approx(0.9**5)

    # The same again: nothing to do; another model: refused.
    listing = sorted(directory.iterdir())
    runs.run_train(directory, pattern, max_steps=4, **common)
    with pytest.raises(ValueError, match=r"another model:(.|\n)*--num_classes"):
      runs.run_train(directory, pattern, num_classes=9, **common)
    assert sorted(directory.iterdir()) == listing

  def test_start_new_model_starts_afresh(self, pattern, tmp_path):
    runs.run_train(tmp_path, pattern, max_steps=3, **FAST)
    common = {**FAST, "start_new_model": True, "num_classes": 9}
    runs.run_train(tmp_path, pattern, max_steps=1, **common)
    assert checkpoints(tmp_path) == [1]
    assert sorted(runs.events(tmp_path)["label_loss"]) == [1]
    assert model_flags.load(str(tmp_path))["num_classes"] == 9

  def test_goes_on_from_the_newest_that_can_be_read_and_overwrites_nothing(
    self, pattern, tmp_path, caplog
  ):
    common = {**FAST, "save_checkpoints_steps": 1}
    runs.run_train(tmp_path, pattern, max_steps=3, **common)
    damaged = tmp_path / "model.ckpt-3.data-00000-of-00001"
    with open(damaged, "r+b") as stream:
      stream.truncate(20)
    content = damaged.read_bytes()
    # As in a copy made by hand.
    (tmp_path / "checkpoint").unlink()
    caplog.clear()
    with caplog.at_level("INFO", logger="absl"):
      runs.run_train(tmp_path, pattern, max_steps=4, **common)
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    warnings = [r.getMessage() for r in warnings if r.name == "absl"]
    assert len(warnings) == 1
    assert f"{tmp_path}/model.ckpt-3 is damaged" in warnings[0]
    assert f"Taking {tmp_path}/model.ckpt-2 instead." in warnings[0]
    assert f"Resuming from {tmp_path}/model.ckpt-2." in caplog.text
    kept = damaged.with_name(f"{damaged.name}.damaged")
    assert kept.read_bytes() == content
    kept.unlink()
    damaged.with_name("model.ckpt-3.index.damaged").unlink()
    assert checkpoints(tmp_path) == [1, 2, 3, 4]

  def test_what_a_kill_interrupted_is_made_up_for(self, pattern, tmp_path):
    common = {**FAST, "save_checkpoints_steps": 1, "keep_checkpoints": 2}
    common |= {"export_model_steps": 2}
    runs.run_train(tmp_path, pattern, max_steps=3, **common)
    spare = {
      path.name: path.read_bytes() for path in tmp_path.glob("model.ckpt-2.*")
    }
    runs.run_train(tmp_path, pattern, max_steps=4, **common)
    export = tmp_path / "export" / "step_4"
    assert checkpoints(tmp_path) == [3, 4]
    # Killed before the oldest was deleted, in the export, and before that in
    # another's; and while the flags were written.
    for name, content in spare.items():
      (tmp_path / name).write_bytes(content)
    export.rename(files.temporary_name(export))
    for path in (export.with_name("step_2"), tmp_path / "model_flags.json"):
      pathlib.Path(files.temporary_name(path)).touch()
    before = {path.name for path in tmp_path.iterdir()}
    runs.run_train(tmp_path, pattern, max_steps=4, **common)
    # Nothing to do but that.
    assert sorted(p.name for p in export.parent.iterdir()) == [
      "step_2",
      "step_4",
    ]
    assert (export / "saved_model.pb").exists()
    after = {path.name for path in tmp_path.iterdir()}
    assert len(before - after) == 1  # The flags' leftover.
    runs.run_train(tmp_path, pattern, max_steps=5, **common)
    assert checkpoints(tmp_path) == [4, 5]


@pytest.mark.slow
class TestEnd:
  def test_leaves_a_mark_until_training_goes_on(self, pattern, tmp_path):
    marked = []
    for steps in (1, 1, 2):
      runs.run_train(tmp_path, pattern, max_steps=steps, **FAST)
      marked.append(json.loads((tmp_path / "finished.json").read_text()))
    assert [mark["step"] for mark in marked] == [1, 1, 2]
    with pytest.raises(program.UserError):
      runs.run_train(
        tmp_path,
        write_frames(tmp_path / "bad", [[99]]),
        max_steps=9,
        num_epochs=1,
        skip_unlabelled=True,
        **FAST,
      )
    assert not train_dir.is_finished(str(tmp_path))

  def test_the_mark_goes_before_a_large_graph_is_built(
    self, pattern, tmp_path, monkeypatch
  ):
    runs.run_train(tmp_path, pattern, max_steps=1, **FAST)
    assert train_dir.is_finished(str(tmp_path))
    marked, build = [], train.Trainer.build

    def looking(*args):
      marked.append(train_dir.is_finished(str(tmp_path)))
      return build(*args)

    monkeypatch.setattr(train.Trainer, "build", looking)
    runs.run_train(tmp_path, pattern, max_steps=2, **FAST)
    assert marked == [False]

  def test_early_stopping_saves_and_says_why(self, pattern, tmp_path, caplog):
    common = {**FAST, "early_stop_evals": 2, "max_steps": 9}
    common |= {"save_checkpoints_steps": 2}
    (tmp_path / "eval").mkdir()
    # That of step 5 is of an earlier run, which was better at first.
    for step, gap in ((0, 0.5), (1, 0.4), (2, 0.3), (5, 0.9)):
      results = json.dumps({"step": step, "gap": gap})
      (tmp_path / "eval" / f"metrics-{step}.json").write_text(results)
    best = tmp_path / "eval" / "best_checkpoint.json"
    best.write_text('{"step": 5, "gap": 0.9}')
    caplog.set_level("INFO", logger="absl")
    runs.run_train(tmp_path, pattern, **common)
    assert runs.step_of(tmp_path) == 2
    assert "Done at step 2 (--early_stop_evals=2: the best GAP" in caplog.text
    assert train_dir.is_finished(str(tmp_path))
    runs.run_train(tmp_path, pattern, **common)
    assert "Nothing to do: --early_stop_evals=2" in caplog.text
    assert runs.step_of(tmp_path) == 2
    runs.run_train(tmp_path, pattern, **{**common, "early_stop_evals": 3})
    assert runs.step_of(tmp_path) == 9


@pytest.mark.slow
class TestNotFinite:
  def test_stops_and_names_step_and_last_good_checkpoint(
    self, pattern, tmp_path
  ):
    with pytest.raises(program.UserError) as error:
      runs.run_train(
        tmp_path,
        pattern,
        max_steps=30,
        base_learning_rate=1e30,
        clip_gradient_norm=0.0,
        optimizer="GradientDescentOptimizer",
        save_checkpoints_steps=1,
        **FAST,
      )
    last = restore.latest_checkpoint(str(tmp_path))
    step = runs.step_of(tmp_path) + 1
    assert step > 1
    assert checkpoints(tmp_path)[-1] == step - 1
    assert f"not finite at step {step}." in str(error.value)
    assert f"no step from {last} was finite" in str(error.value)
    assert_finite(last)

  def test_a_ruined_checkpoint_is_not_called_good_and_the_advice_helps(
    self, pattern, tmp_path
  ):
    common = {**FAST, "save_checkpoints_steps": 1, "keep_checkpoints": 1}
    good = runs.run_train(tmp_path, pattern, max_steps=2, **common)
    common |= {"max_steps": 9, "clip_gradient_norm": 0.0}
    for _ in range(2):
      # The step from 2 to 3 is finite, and all weights after it are; their
      # loss is not. A second try does not get further.
      with pytest.raises(program.UserError) as error:
        runs.run_train(tmp_path, pattern, base_learning_rate=1e38, **common)
      assert "not finite at step 4." in str(error.value)
      assert f"Last good checkpoint: {good};" in str(error.value)
      assert checkpoints(tmp_path) == [2, 3]
    assert f"if you move {tmp_path}/model.ckpt-3.* away" in str(error.value)
    for path in tmp_path.glob("model.ckpt-3.*"):
      path.unlink()
    runs.run_train(tmp_path, pattern, **common)
    assert checkpoints(tmp_path) == [9]

  @pytest.mark.rewritten
  def test_a_step_that_is_not_finite_changes_nothing_and_the_status_is_1(
    self, tmp_path
  ):
    directory = tmp_path / "model"
    values = {"model": "MoeModel", "moe_prob_gating": True, **runs.VIDEO_LEVEL}
    data = runs.write_data(tmp_path / "data", level="video")
    last = runs.run_train(directory, data, max_steps=2, **values)
    common = {"max_steps": 9, "save_checkpoints_steps": 1}
    status, _, stderr = runs.run_program(
      "train.py",
      # The squares of such gradients are beyond float32.
      *runs.train_flag_list(directory, data, moe_l2=1e38, **common, **values),
    )
    assert status == program.FAILED, stderr
    message = stderr.strip().splitlines()[-1]
    assert message.startswith("train.py: error: ")
    assert "not finite at step 3." in message
    # There is none before it, and its own numbers may be the cause.
    assert f"no step from {last} was finite" in message
    assert "Traceback" not in stderr
    assert checkpoints(directory) == [2]
    assert restore.latest_checkpoint(str(directory)) == last
    # The averages of batch norm among them.
    assert_finite(last)


class TestEndOfData:
  @pytest.mark.slow
  @pytest.mark.parametrize("save_checkpoints_steps", [0, 1])
  def test_marks_epochs_as_done(
    self, pattern, tmp_path, caplog, save_checkpoints_steps
  ):
    # 13 videos on 2 towers of 3: batches of 6, 6 and 1.
    common = {**FAST, "batch_size": 3, "num_towers": 2, "max_steps": None}
    common |= {"save_checkpoints_steps": save_checkpoints_steps}
    runs.run_train(tmp_path, pattern, num_epochs=1, **common)
    assert runs.step_of(tmp_path) == 3
    assert_finite(restore.latest_checkpoint(str(tmp_path)))
    listing = sorted(tmp_path.iterdir())
    with caplog.at_level("INFO", logger="absl"):
      runs.run_train(tmp_path, pattern, num_epochs=1, **common)
    assert "Nothing to do: the 1 epochs of --num_epochs are done." in (
      caplog.text
    )
    assert sorted(tmp_path.iterdir()) == listing
    # One more is one more, not two.
    runs.run_train(tmp_path, pattern, num_epochs=2, **common)
    assert runs.step_of(tmp_path) == 6


@pytest.mark.slow
class TestReports:
  def test_tensorboard_has_the_tags_of_the_starter_code(
    self, pattern, tmp_path
  ):
    # The steps end before the epochs do.
    runs.run_train(
      tmp_path, pattern, max_steps=4, num_epochs=5, log_steps=2, **FAST
    )
    assert checkpoints(tmp_path) == [4]
    scalars = runs.events(tmp_path)
    for tag in (
      "learning_rate",
      "label_loss",
      "reg_loss",
      "global_step/Examples/Second",
    ):
      assert sorted(scalars[tag]) == [2, 4], tag
    for name in ("Hit@1", "Perr", "GAP"):
      values = scalars[f"model/Training_{name}"]
      assert 2 in values  # Later ones only where they are cheap.
      assert all(0 <= value <= 1 for value in values.values())
    assert scalars["label_loss"][2] > 0.1
    assert 0 < scalars["reg_loss"][2] < 1e-6


@pytest.mark.slow
class TestLearningRate:
  def test_cosine_ends_with_the_epochs_and_goes_on_with_more(self, tmp_path):
    def cosine(step, end):
      """Of the step that goes from step - 1 to step."""
      return 0.01 * 0.5 * (1 + math.cos(math.pi * (step - 1) / end))

    # 2 epochs of 10 videos on 2 towers of 3: 20 / 6 are 4 steps, of which the
    # last is short; 30 / 6 are 5, but the run was cut after 4.
    path = write_frames(tmp_path / "ten.tfrecord", [[1]] * 10)
    common = {**FAST, "learning_rate_schedule": "cosine", "batch_size": 3}
    common |= {"learning_rate_warmup_steps": 2, "num_towers": 2}
    for num_epochs in (2, 3):
      runs.run_train(
        tmp_path / "model",
        path,
        max_steps=None,
        num_epochs=num_epochs,
        **common,
      )
    assert runs.events(tmp_path / "model")["learning_rate"] == pytest.approx(
      {
        1: cosine(1, 4) / 2,
        **{step: cosine(step, 4) for step in (2, 3, 4)},
        **{step: cosine(step, 5) for step in (5, 6)},
      }
    )

  def test_the_steps_of_all_tasks_make_the_end(self, tmp_path):
    path = write_frames(tmp_path / "ten.tfrecord", [[1]] * 10)
    jobs = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}
    for task, num_tasks in (
      (placement.Task({}, "chief", 0), 1),
      (placement.Task(jobs, "worker", 1), 3),
    ):
      for max_steps, expected in ((None, 3 * num_tasks), (2, 2)):
        config = runs.train_config(
          tmp_path, path, num_epochs=1, max_steps=max_steps
        )
        trainer = train.Trainer(config, runs.model_values(), task)
        assert trainer.total_steps == expected

  @pytest.mark.parametrize("data", ["good", "unreadable"])
  def test_cosine_without_a_known_end_is_told_and_nothing_is_written(
    self, pattern, tmp_path, data
  ):
    epochs = 0
    if data == "unreadable":
      epochs, pattern = 3, tmp_path / "bad.tfrecord"
      pattern.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="--max_steps .*--num_epochs") as error:
      runs.run_train(
        tmp_path / "model",
        pattern,
        max_steps=None,
        num_epochs=epochs,
        learning_rate_schedule="cosine",
        **FAST,
      )
    assert "--learning_rate_schedule=cosine" in str(error.value)
    assert not (tmp_path / "model").exists()


class TestErrors:
  @pytest.mark.parametrize("name", ["ema_decay", "label_smoothing"])
  @pytest.mark.parametrize("value", [-0.1, 1.0])
  def test_a_share_out_of_range_is_told_and_nothing_is_written(
    self, pattern, tmp_path, name, value
  ):
    with pytest.raises(ValueError, match=f"--{name} .*got {value}"):
      runs.run_train(tmp_path / "model", pattern, **{name: value}, **FAST)
    assert not (tmp_path / "model").exists()

  def test_no_usable_video_is_told_with_the_first_cause(self, tmp_path):
    path = write_frames(tmp_path / "bad.tfrecord", [[99]] * 3)
    with pytest.raises(program.UserError) as error:
      runs.run_train(
        tmp_path / "model",
        path,
        num_epochs=1,
        max_steps=None,
        skip_unlabelled=True,
        **FAST,
      )
    message = str(error.value)
    assert "No usable video in the 1 files of --train_data_pattern" in message
    assert "3 no_labels" in message
    # Whichever was met first.
    assert re.search(rf"{path}, record \d: label out of range", message)
    assert restore.latest_checkpoint(str(tmp_path / "model")) is None

  @pytest.mark.parametrize("skip", [False, True])
  def test_unlabelled_videos_are_learnt_from_unless_skipped(
    self, tmp_path, caplog, skip
  ):
    path = write_frames(tmp_path / "a.tfrecord", [[1], [], [2], [99], []])
    caplog.set_level("INFO")
    runs.run_train(
      tmp_path / "model",
      path,
      batch_size=1,
      num_epochs=2,
      max_steps=None,
      skip_unlabelled=skip,
      **FAST,
    )
    assert runs.step_of(tmp_path / "model") == (4 if skip else 10)
    done = [r.message for r in caplog.records if "Done at" in r.message]
    counts = "3 no_labels" if skip else "3 videos without labels"
    assert f": 1 label_out_of_range, {counts}." in done[0]

  def test_a_glob_that_matches_nothing_is_told_and_nothing_is_written(
    self, tmp_path
  ):
    glob = str(tmp_path / "train*.tfrecord")
    with pytest.raises(ValueError, match="--train_data_pattern") as error:
      runs.run_train(tmp_path / "model", glob, **FAST)
    assert glob in str(error.value)
    assert not (tmp_path / "model").exists()

  def test_strict_records_name_file_and_record(self, tmp_path):
    path = write_frames(tmp_path / "one.tfrecord", [[1]] * 6 + [[2, 99]])
    common = {**FAST, "strict_records": True, "max_steps": None}
    with pytest.raises(read_report.StrictRecordError) as error:
      runs.run_train(tmp_path / "model", path, num_epochs=1, **common)
    assert f"{path}, record 6: label out of range" in str(error.value)
