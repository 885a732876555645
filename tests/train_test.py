"""Tests of train.py: what a run leaves behind, and what ends it."""

import json
import math
import pathlib
import random
import re
import resource
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import files
import model_flags
import program
import train
from checkpoints import restore, train_dir
from models import base as models
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
    runs.run_train(
      tmp_path,
      pattern,
      max_steps=1,
      start_new_model=True,
      num_classes=9,
      **FAST,
    )
    assert checkpoints(tmp_path) == [1]
    assert sorted(runs.events(tmp_path)["label_loss"]) == [1]
    assert model_flags.load(str(tmp_path))["num_classes"] == 9

  def test_a_damaged_checkpoint_is_told(self, tmp_path_factory, tmp_path):
    shared, pattern = runs.shared_model(tmp_path_factory)
    directory = tmp_path / "model"
    shutil.copytree(shared, directory)
    with open(directory / "model.ckpt-20.data-00000-of-00001", "r+b") as stream:
      stream.truncate(20)
    with pytest.raises(ValueError, match=r"model\.ckpt-20"):
      runs.run_train(
        directory,
        pattern,
        max_steps=30,
        gating=True,
        moe_prob_gating=True,
        netvlad_relu=False,
      )

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
class TestSignals:
  def test_sigterm_and_sigint_save_and_end_well(self, pattern, tmp_path):
    directory, last = tmp_path / "model", 0
    for number in (signal.SIGTERM, signal.SIGINT):
      log = tmp_path / f"{number.name}.txt"
      process = runs.start_program(
        "train.py",
        *runs.train_flag_list(directory, pattern, max_steps=None, **FAST),
        log=log,
      )
      runs.wait_for_log(
        process, log, lambda text: len(runs.losses_of(text)) >= 3
      )
      process.send_signal(number)
      status, _, _ = runs.finish(process)
      text = log.read_text()
      assert status == 0, text
      assert f"{number.name}: saving after this step; a second one" in text
      steps = sorted(runs.losses_of(text))
      # Went on from where the signal before had it end.
      assert steps[0] == last + 1
      last = steps[-1]
      assert f"Done at step {last} ({number.name})" in text
      assert runs.step_of(directory) == last
      assert checkpoints(directory)[-1] == last
    assert_finite(restore.latest_checkpoint(str(directory)))

  def test_sigkill_at_any_moment_costs_no_more_than_what_was_not_saved(
    self, pattern, tmp_path
  ):
    directory, saved = tmp_path / "model", 0
    delays = [random.uniform(0, 0.3) for _ in range(2)]
    for i, delay in enumerate(delays):
      log = tmp_path / f"log{i}.txt"
      process = runs.start_program(
        "train.py",
        *runs.train_flag_list(
          directory,
          pattern,
          max_steps=None,
          save_checkpoints_steps=1,
          keep_checkpoints=2,
          **FAST,
        ),
        log=log,
      )
      runs.wait_for_log(process, log, lambda text: text.count("Saved ") >= 2)
      time.sleep(delay)
      process.kill()
      runs.finish(process)
      text = log.read_text()
      assert min(runs.losses_of(text)) == saved + 1, delays
      steps = [int(step) for step in re.findall(r"Saved .*ckpt-(\d+)\.", text)]
      saved = runs.step_of(directory)
      # Killed between saving and saying so, at most.
      assert saved in (steps[-1], steps[-1] + 1), delays
    checkpoint = runs.run_train(
      directory, pattern, max_steps=saved + 2, keep_checkpoints=2, **FAST
    )
    assert checkpoint.endswith(f"-{saved + 2}")
    assert_finite(checkpoint)
    assert not list(directory.glob("*temp*"))


@pytest.mark.slow
class TestSecondRun:
  def test_in_the_same_directory_is_refused_and_changes_nothing(
    self, pattern, tmp_path
  ):
    directory = tmp_path / "model"
    log = tmp_path / "log.txt"
    first = runs.start_program(
      "train.py",
      *runs.train_flag_list(directory, pattern, max_steps=None, **FAST),
      log=log,
    )
    runs.wait_for_log(first, log, lambda text: runs.losses_of(text))
    # As one that is being saved.
    half_written = directory / "model.ckpt-9999.data-00000-of-00001.tempstate1"
    half_written.touch()
    before = sorted(directory.iterdir())
    for start_new_model in (False, True):
      with pytest.raises(ValueError, match="Another run is training") as error:
        runs.run_train(
          directory, pattern, start_new_model=start_new_model, **FAST
        )
      assert f"--train_dir={directory}" in str(error.value)
      assert sorted(directory.iterdir()) == before
    first.send_signal(signal.SIGTERM)
    assert runs.finish(first)[0] == 0
    # The directory is free again.
    last = runs.step_of(directory)
    runs.run_train(directory, pattern, max_steps=last + 1, **FAST)
    assert runs.step_of(directory) == last + 1
    assert not half_written.exists()


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

  def test_deterministic_runs_print_the_same_losses(self, pattern, tmp_path):
    processes = [
      runs.start_program(
        "train.py",
        *runs.train_flag_list(
          tmp_path / f"model{i}",
          pattern,
          max_steps=6,
          num_towers=2,
          seed=3,
          deterministic=True,
          # An export builds another graph.
          export_model_steps=4,
          model="DbofModel",
          frame_sampling="random_frames",
        ),
      )
      for i in range(2)
    ]
    found = []
    for process in processes:
      status, _, stderr = runs.finish(process)
      assert status == 0, stderr
      found.append(runs.losses_of(stderr))
    assert sorted(found[0]) == [1, 2, 3, 4, 5, 6]
    assert len(set(found[0].values())) == 6
    assert found[0] == found[1]

  def test_named_regularisation_has_tags_of_its_own(
    self, pattern, tmp_path, monkeypatch
  ):
    built = model_flags.build_model

    class TermsModel(models.BaseModel):
      def __init__(self, values):
        self._model = built(values)
        self.prepare_input = self._model.prepare_input

      def create_model(self, *args, **kwargs):
        result = self._model.create_model(*args, **kwargs)
        terms = {"coding": tf.constant(0.5), "locality": tf.constant(0.25)}
        return {**result, "regularization_losses": terms}

    monkeypatch.setattr(model_flags, "build_model", TermsModel)
    runs.run_train(
      tmp_path, pattern, num_towers=2, regularization_penalty=0.1, **FAST
    )
    scalars = runs.events(tmp_path)
    assert scalars["reg_loss/coding"] == pytest.approx({1: 0.5, 2: 0.5, 3: 0.5})
    assert scalars["reg_loss/locality"][3] == pytest.approx(0.25)
    # Besides the model's own, which is small.
    assert scalars["reg_loss"][3] == pytest.approx(0.75, abs=1e-4)

  def test_smoothed_labels_are_the_losses_alone(self, pattern, tmp_path):
    found = []
    for epsilon in (0.0, 0.5):
      directory = tmp_path / str(epsilon)
      runs.run_train(
        directory,
        pattern,
        max_steps=1,
        label_smoothing=epsilon,
        shuffle_buffer=0,
        base_learning_rate=0.0,
        **FAST,
      )
      found.append(runs.events(directory))
    plain, smoothed = (scalars["label_loss"][1] for scalars in found)
    assert abs(plain - smoothed) > 1e-3
    for name in ("Hit@1", "Perr", "GAP"):
      tag = f"model/Training_{name}"
      assert found[0][tag] == found[1][tag]


@pytest.mark.slow
class TestLearningRate:
  def test_cosine_falls_to_zero_at_the_last_step_after_the_warmup(
    self, pattern, tmp_path
  ):
    def cosine(step, end):
      """Of the step that goes from step - 1 to step."""
      return 0.02 * 0.5 * (1 + math.cos(math.pi * (step - 1) / end))

    common = {**FAST, "learning_rate_schedule": "cosine", "num_epochs": 0}
    common |= {"base_learning_rate": 0.02, "learning_rate_warmup_steps": 2}
    runs.run_train(tmp_path, pattern, max_steps=4, **common)
    # A longer run goes on at the longer run's rate.
    runs.run_train(tmp_path, pattern, max_steps=6, **common)
    assert runs.events(tmp_path)["learning_rate"] == pytest.approx(
      {
        1: cosine(1, 4) / 2,
        **{step: cosine(step, 4) for step in (2, 3, 4)},
        **{step: cosine(step, 6) for step in (5, 6)},
      }
    )

  def test_cosine_ends_with_the_epochs(self, tmp_path):
    # 2 epochs of 10 videos on 2 towers of 3: 20 / 6 are 4 steps, of which the
    # last is short.
    path = write_frames(tmp_path / "ten.tfrecord", [[1]] * 10)
    common = {**FAST, "learning_rate_schedule": "cosine", "num_epochs": 2}
    runs.run_train(
      tmp_path / "model",
      path,
      batch_size=3,
      num_towers=2,
      max_steps=None,
      **common,
    )
    rates = runs.events(tmp_path / "model")["learning_rate"]
    assert rates == pytest.approx(
      {
        step: 0.01 * 0.5 * (1 + math.cos(math.pi * (step - 1) / 4))
        for step in (1, 2, 3, 4)
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
    with pytest.raises(read_report.StrictRecordError) as error:
      runs.run_train(
        tmp_path / "model",
        path,
        strict_records=True,
        num_epochs=1,
        max_steps=None,
        **FAST,
      )
    assert f"{path}, record 6: label out of range" in str(error.value)

  def test_a_typo_in_the_model_lists_the_models(self, tmp_path):
    status, stdout, stderr = runs.run_program(
      "train.py",
      *runs.train_flag_list(tmp_path / "model", "x", model="NetVLADModelFL"),
    )
    assert status not in (0, None)
    for name in model_flags.model_names():
      assert name in stdout + stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
class TestCommandLine:
  def test_help_shows_flags_of_programs_and_models_quickly(self):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, stdout, _ = runs.run_program("train.py", "--help", fresh=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert status == 0
    for flag in ("--train_data_pattern", "--netvlad_cluster_size", "--model"):
      assert flag in stdout
    # Of the processor: other work does not count.
    assert after.ru_utime - before.ru_utime < 8

  def test_the_published_command_line_of_willow_trains(self, pattern, tmp_path):
    sizes = ",".join(map(str, runs.SIZES.values()))
    status, _, stderr = runs.run_program(
      "train.py",
      f"--train_data_pattern={pattern}",
      "--model=NetVLADModelLF",
      f"--train_dir={tmp_path / 'gatednetvladLF'}",
      "--frame_features=True",
      "--feature_names=rgb,audio",
      f"--feature_sizes={sizes}",
      "--batch_size=4",
      "--base_learning_rate=0.0002",
      "--netvlad_cluster_size=4",
      "--netvlad_hidden_size=8",
      "--moe_l2=1e-6",
      "--iterations=3",
      "--learning_rate_decay=0.8",
      "--netvlad_relu=False",
      "--gating=True",
      "--moe_prob_gating=True",
      "--max_step=3",
      fresh=True,
    )
    assert status == 0, stderr
    assert runs.step_of(tmp_path / "gatednetvladLF") == 3
    values = model_flags.load(str(tmp_path / "gatednetvladLF"))
    assert values["netvlad_relu"] is False
    assert values["gating"] is values["moe_prob_gating"] is True
    assert values["num_classes"] == 3862
    variables = runs.variables_of(
      restore.latest_checkpoint(str(tmp_path / "gatednetvladLF"))
    )
    assert variables["tower/netvlad_rgb/centres"].shape == (4, 7)
    assert variables["tower/netvlad_audio/centres"].shape == (2, 5)
    assert variables["tower/gating/weights"].shape == (8, 8)
    # No traceback, and TensorFlow's chatter does not bury our lines.
    assert "Traceback" not in stderr
