"""Tests of train.py as a program: signals, a second run, its command line."""

import random
import re
import resource
import signal
import time

import pytest

import model_flags
from checkpoints import restore
from tests import runs
from tests.train_test import FAST, assert_finite, checkpoints, pattern

__all__ = ["pattern"]  # A fixture.
pytestmark = pytest.mark.slow


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
