"""Tests of watching: which checkpoints are evaluated, and when it ends."""

import logging
import os
import time

import pytest

from checkpoints import restore, train_dir, watching


class Training:
  """A train_dir whose checkpoints are files of a byte."""

  def __init__(self, path):
    self.path = path
    self.evaluated = []

  def save(self, *steps):
    for step in steps:
      for part in ("data-00000-of-00001", "index"):
        (self.path / f"model.ckpt-{step}.{part}").write_text("x")

  def delete(self, *steps):
    for step in steps:
      for file in self.path.glob(f"model.ckpt-{step}.*"):
        file.unlink()

  def finish(self):
    train_dir.mark_finished(str(self.path), 9, "--max_steps")

  def evaluate(self, source):
    """Stands for eval.py's."""
    checkpoint = source
    if os.path.isdir(source):
      checkpoint = restore.latest_checkpoint(source)
    if checkpoint not in restore.known_checkpoints(str(self.path)):
      raise restore.DamagedCheckpointError(f"No {checkpoint}.")
    self.evaluated.append(restore.step_of(checkpoint))
    return checkpoint


@pytest.fixture
def training(tmp_path, caplog):
  caplog.set_level(logging.INFO, logger="absl")
  return Training(tmp_path)


@pytest.fixture
def while_waiting(monkeypatch):
  """Has functions called in turn instead of sleeping."""

  def set_events(*events):
    events = iter(events)
    monkeypatch.setattr(time, "sleep", lambda unused_seconds: next(events)())

  return set_events


def watch(training, every=False, **how):
  watched = watching.Watch(str(training.path), training.evaluate, every)
  watched.run(**how)
  return watched.last


def test_the_newest_are_evaluated_and_what_is_skipped_is_said(
  training, while_waiting, caplog
):
  training.save(1, 2)
  while_waiting(
    lambda: training.save(3, 4), lambda: None, lambda: None, training.finish
  )
  assert watch(training).endswith("-4")
  assert training.evaluated == [2, 4]
  text = caplog.text
  assert text.count("Skipped") == 1
  assert "Skipped model.ckpt-3 (--all_checkpoints" in text
  # One line a wait, however long.
  assert text.count("Waiting for a new checkpoint") == 2
  assert text.count("is done.") == 1


def test_all_are_evaluated_the_oldest_first(training, while_waiting):
  training.save(2, 10)
  while_waiting(lambda: training.save(11, 12), training.finish)
  watch(training, every=True)
  assert training.evaluated == [2, 10, 11, 12]


def test_a_checkpoint_that_comes_with_the_end_is_evaluated(
  training, while_waiting
):
  while_waiting(lambda: (training.save(7), training.finish()))
  watch(training)
  assert training.evaluated == [7]


@pytest.mark.parametrize("every", [False, True])
def test_once_is_what_is_there(training, every):
  assert watch(training, every, once=True) is None
  training.save(1, 2)
  watch(training, every, once=True)
  assert training.evaluated == ([1, 2] if every else [2])


@pytest.mark.parametrize("every", [False, True])
def test_it_ends_after_the_step_that_is_asked_for(
  training, while_waiting, every
):
  training.save(1)
  while_waiting(lambda: training.save(3), lambda: training.save(5, 6))
  watch(training, every, stop_at_step=4)
  assert training.evaluated == ([1, 3, 5] if every else [1, 3, 6])


def test_one_that_training_deletes_is_skipped_with_a_line(training, caplog):
  training.save(1, 2, 3)
  evaluate = training.evaluate

  def deleting(source):
    training.delete(2)
    return evaluate(source)

  training.evaluate = deleting
  training.finish()
  watch(training, every=True)
  assert training.evaluated == [1, 3]
  assert "model.ckpt-2" not in caplog.text

  def too_late(source):
    training.delete(3)
    return evaluate(source)

  training.evaluate = too_late
  watch(training, every=True)
  assert training.evaluated == [1, 3, 1]
  training.save(3)
  training.delete(1)
  watch(training, every=True)
  assert "model.ckpt-3. Skipped." in caplog.text


def test_where_none_can_be_read_it_waits_for_one_that_can(
  training, while_waiting, caplog
):
  training.save(1)
  evaluate = training.evaluate

  def fail(unused_source):
    raise restore.DamagedCheckpointError("All damaged.")

  training.evaluate = fail
  with pytest.raises(restore.DamagedCheckpointError):
    watch(training, once=True)

  def mend():
    training.save(2)
    watched._evaluate = evaluate

  watched = watching.Watch(str(training.path), fail)
  while_waiting(lambda: None, mend, training.finish)
  watched.run()
  assert training.evaluated == [2]
  assert caplog.text.count("All damaged. Skipped.") == 1


def test_a_model_that_was_started_anew_is_evaluated_anew(
  training, while_waiting
):
  training.save(1)
  while_waiting(
    lambda: training.delete(1), lambda: training.save(1), training.finish
  )
  watch(training)
  assert training.evaluated == [1, 1]
