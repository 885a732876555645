"""The step, again and again, until the data, the steps or the user end it."""

import signal
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import evaluations
from console import program
from training import optimizers, saver

END_OF_DATA = "end of data"


class End(NamedTuple):
  """How a run ended.

  Attributes:
    step: int, the global step it came to.
    reason: str, why it ended.
    is_stopped: bool, by a signal: it has not come to its end.
  """

  step: int
  reason: str
  is_stopped: bool


def run(session, graph, config, *, start_step, log, report, checkpoints):
  """Takes steps, reports and saves.

  Args:
    session: `tf.Session` in which every variable has its value.
    graph: `graph.Graph`.
    config: `config.Config`.
    start_step: int, the global step that the run begins at.
    log: `log.TrainLog`.
    report: `records.report.ReadReport` of the reader.
    checkpoints: `saver.Saver`; None for a task that saves nothing.

  Returns:
    `End`.

  Raises:
    program.UserError: a number is not finite.
    StrictRecordError: the reader gave up.
  """
  step = reported = start_step
  reason = ""
  with program.Signals(
    [signal.SIGTERM, signal.SIGINT],
    "saving after this step",
    lambda *unused_args: None,
  ) as stop:
    while not (reason := stop.name or reason or _at_end(config, step)):
      fetches = dict(graph.step_fetches)
      reports = saver.crosses(reported, step + 1, config.log_steps)
      if reports:
        fetches["summary"] = graph.summary
        if log.wants_metrics():
          fetches["metrics"] = graph.metrics
      try:
        values = session.run(fetches)
      except tf.errors.OutOfRangeError:
        reason = END_OF_DATA
        break
      except tf.errors.OpError as error:
        raise _told(error, step + 1, report, checkpoints) from None
      step = int(values["step"])
      if step < reported:
        _warn_of_return(step, reported)
        reported = step - 1
      log.count(int(values["num_videos"]), step, float(values["loss"]))
      if reports:
        reported = step
        log.report(
          step,
          float(values["loss"]),
          values.get("metrics"),
          values["summary"],
          report.counts(),
        )
      if checkpoints and checkpoints.after_step(session, step):
        # What eval.py found meanwhile may be enough.
        reason = evaluations.why_stop(
          config.train_dir, config.early_stop_evals, step
        )
    ended = reason == END_OF_DATA
    if ended and step == start_step:
      return End(step, reason, is_stopped=False)  # There is nothing to save.
    if step > reported:
      # A run shorter than --log_steps is reported too.
      log.report(step, float(values["loss"]), None, None, report.counts())
    if step > start_step:
      log.end(step, float(values["loss"]))
    if checkpoints:
      if ended:
        # The same command then has nothing left to do.
        session.run(graph.finish)
      checkpoints.finish(session, step, again=ended)
  return End(step, reason, is_stopped=reason == stop.name)


def _at_end(config, step):
  return "--max_steps" if config.max_steps and step >= config.max_steps else ""


def _told(error, step, report, checkpoints):
  """What to raise for a step that TensorFlow failed."""
  if report.error:
    return report.error
  if optimizers.NOT_FINITE not in error.message:
    return error
  advice = checkpoints.advice() if checkpoints else saver.ADVICE
  return program.UserError(f"{optimizers.NOT_FINITE} at step {step}. {advice}")


def _warn_of_return(step, reported):
  logging.warning(
    "Step %d came after step %d: the chief has begun again from a checkpoint.",
    step,
    reported,
  )
