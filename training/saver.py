"""Saves a training's checkpoints by time and by step, and exports them."""

import os
import time

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import parts, restore, train_dir
from console import program
from predictions import predictor

ADVICE = "Try a lower --base_learning_rate or --clip_gradient_norm."


def crosses(before, after, period):
  """Whether a multiple of the period lies in (before, after].

  With several tasks, a task sees only some of the steps. No period is 0.
  """
  return bool(period) and after // period > before // period


class Saver:
  """Saves and exports what a training has come to.

  Attributes:
    last: path prefix of the newest checkpoint, or None.
    good: that of the newest from which a step was finite, or None. What Adam
      makes of a rate of 1e38 is finite, and the loss after it is not.
  """

  def __init__(self, config, values, variables, *, checkpoint, start_step):
    """Adds to the graph what saving needs.

    Args:
      config: `config.Config`.
      values: dict of the model flags.
      variables: list of the variables to save.
      checkpoint: path prefix that the run goes on from, or None.
      start_step: int, the global step that it begins at.
    """
    self.last = checkpoint
    found = restore.known_checkpoints(config.train_dir)
    # The run went on from the one before, or there would be no newer one.
    self.good = found[-2] if len(found) > 1 else None
    excess = len(found) - config.keep_checkpoints
    if config.keep_checkpoints and excess > 1:
      logging.warning(
        "--keep_checkpoints=%d: the %d oldest of the %d checkpoints in %s go "
        "after the first step. --keep_checkpoints=0 keeps all.",
        config.keep_checkpoints,
        excess,
        len(found),
        config.train_dir,
      )
    self._last_step = start_step
    self._config = config
    self._values = values
    self._prefix = os.path.join(config.train_dir, parts.PREFIX)
    self._finite = tf.reduce_all(
      [
        tf.reduce_all(tf.is_finite(variable))
        for variable in variables
        if variable.trainable
      ]
    )
    # Which checkpoints stay, and the list of them, are train_dir's.
    self._saver = tf.train.Saver(variables, max_to_keep=None)
    self._last_time = time.monotonic()

  def is_due(self, step):
    """Whether it is time to save after this step."""
    config = self._config
    by_time = config.save_checkpoints_secs
    return (
      crosses(self._last_step, step, config.export_model_steps)
      or crosses(self._last_step, step, config.save_checkpoints_steps)
      or (bool(by_time) and time.monotonic() - self._last_time >= by_time)
    )

  def after_step(self, session, step, saves=None):
    """Saves and exports if it is time to, after a step that was finite.

    Args:
      session: `tf.Session`.
      step: int.
      saves: bool, whether to save; None for `is_due`.

    Returns:
      Whether it saved.
    """
    config = self._config
    if self.good != self.last:
      self.good = self.last
      train_dir.prune(config.train_dir, config.keep_checkpoints)
    saves = self.is_due(step) if saves is None else saves
    exports = crosses(self._last_step, step, config.export_model_steps)
    self._last_step = step
    if saves:
      self.save(session, step)
    if exports:
      predictor.export(self.last, self._values)
    return saves

  def save(self, session, step, again=False):
    """Saves, unless this step is saved already and not wanted again.

    Raises:
      program.UserError: a variable is not finite; nothing is saved.
    """
    if self.last == f"{self._prefix}-{step}" and not again:
      return
    if not session.run(self._finite):
      # The last step was finite, what it made of the variables is not.
      raise program.UserError(
        f"A variable is not finite after step {step}. {self.advice()}"
      )
    self.last = self._saver.save(
      session,
      self._prefix,
      global_step=step,
      write_meta_graph=False,
      write_state=False,
    )
    directory = self._config.train_dir
    parts.write_list(directory, self.last, restore.known_checkpoints(directory))
    self._last_time = time.monotonic()
    logging.info("Saved %s.", self.last)

  def finish(self, session, step, again):
    """Saves the last step, see `save`, and deletes what is not to be kept."""
    self.save(session, step, again)
    train_dir.prune(self._config.train_dir, self._config.keep_checkpoints)

  def advice(self):
    """What to do when numbers are not finite any more."""
    text = f"Last good checkpoint: {self.good or 'none'}; "
    if self.good == self.last:
      text += "nothing was saved since. The same command goes on from it"
      if not self.good:
        text = "Nothing was saved yet. The same command starts afresh"
      return f"{text}. {ADVICE}"
    text += f"no step from {self.last} was finite, so it may be ruined. "
    way_out = "starts afresh with --start_new_model"
    if self.good:
      name = os.path.basename(self.good)
      way_out = f"goes on from {name} if you move {self.last}.* away"
    return f"{text}{ADVICE} If that fails too, the same command {way_out}."
