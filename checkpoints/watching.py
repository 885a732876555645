"""Evaluates a train_dir's checkpoints as they come, until training is done."""

import os
import time

from absl import logging

from checkpoints import restore, train_dir


class Watch:
  """Finds the checkpoints to evaluate, and has them evaluated.

  Attributes:
    last: path prefix of the checkpoint that was evaluated last, or None.
  """

  def __init__(self, directory, evaluate, every=False):
    """Starts with nothing evaluated.

    Args:
      directory: str, the train_dir.
      evaluate: function of a checkpoint's path prefix, or of the train_dir for
        its newest; returns the path prefix of what it evaluated, and raises
        `restore.DamagedCheckpointError`.
      every: bool, evaluate each, the oldest first, rather than the newest.
    """
    self.last = None
    self._directory = directory
    self._evaluate = evaluate
    self._every = every
    self._seen = set()

  def run(self, once=False, stop_at_step=None, interval=60):
    """Evaluates until nothing more is wanted or will come.

    Args:
      once: bool, only what is there now: the newest, or each.
      stop_at_step: int or None, end after a checkpoint of this step or later.
      interval: seconds between two looks.
    """
    if once:
      # No more than are there now, or a fast training would never let it end.
      found = restore.known_checkpoints(self._directory)
      for _ in found if self._every else found[-1:]:
        self._evaluate_new(once)
      return
    is_told = False
    while True:
      # Looked up first: the last checkpoint is there before the mark is.
      is_finished = train_dir.is_finished(self._directory)
      if self._evaluate_new():
        is_told = False
        step = restore.step_of(self.last) if self.last else 0
        if stop_at_step and step >= stop_at_step:
          return
      elif is_finished:
        logging.info("Training in %s is done.", self._directory)
        return
      else:
        if not is_told:
          is_told = True
          logging.info(
            "Waiting for a new checkpoint in %s; looking every %d s.",
            self._directory,
            interval,
          )
        time.sleep(interval)

  def _evaluate_new(self, once=False):
    """Evaluates a checkpoint; whether there was a new one."""
    found = restore.known_checkpoints(self._directory)
    # A model that was started anew comes to the same names again.
    self._seen.intersection_update(found)
    new = [path for path in found if path not in self._seen]
    if not new:
      return False
    source = new[0] if self._every else self._directory
    is_first = self.last is None
    try:
      self.last = self._evaluate(source)
    except restore.DamagedCheckpointError as error:
      if once and not self._every:
        raise
      logging.warning("%s Skipped.", error)
      self._seen.update(new[:1] if self._every else new)
      return True
    if self._every:
      self._seen.add(source)
      return True
    skipped = [os.path.basename(path) for path in new if path != self.last]
    if skipped and not is_first:
      logging.info(
        "Skipped %s (--all_checkpoints evaluates each).", ", ".join(skipped)
      )
    self._seen.update(new, [self.last])
    return True
