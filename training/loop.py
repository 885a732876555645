"""The step, again and again, until the data, the steps or the user end it."""

import contextlib
import signal
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import evaluations
from console import program
from training import heap, optimizers, saver

END_OF_DATA = "end of data"
OTHER_STOPS = "another task was told to stop"
_CHIEF_ENDS = "the chief's decision"
# Tasks hold the same weights: so much may their norms differ.
_TOLERANCE = 1e-5


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
  # Why this task would end the run; what is to be run before a step.
  found, fill = "", graph.fill
  memory = heap.Heap()
  with _signals() as stop:
    reason = "" if graph.settle is not None else _why_end(stop, config, step)
    while not reason:
      reports = saver.crosses(reported, step + 1, config.log_steps)
      fetches = _fetches(graph, reports, reports and log.wants_metrics())
      is_due = checkpoints and checkpoints.is_due(step + 1)
      wishes = graph.group.feed(stop=stop.name, end=found, save=is_due)
      with _telling_failure(step + 1, report, checkpoints):
        values = _take(session, fetches, wishes, fill)
      if values is None:
        reason = END_OF_DATA
        break
      fill, told = None, values.get("told", {})
      step = int(values["step"])
      if step < reported:
        _warn_of_return(step, reported)
        reported = step - 1
      log.count(int(values["num_videos"]), step)
      if reports:
        reported = step
        loss, counts = float(values["loss"]), report.counts()
        log.report(step, loss, values.get("metrics"), values["summary"], counts)
      memory.shrink()
      if _saves(session, graph, step, checkpoints, told):
        # What eval.py found meanwhile may be enough.
        found = evaluations.why_stop(
          config.train_dir, config.early_stop_evals, step
        )
      reason = _why_end(stop, config, step, found, told)
    if step > start_step:
      loss = float(session.run(graph.last_loss))
      if step > reported:
        # A run shorter than --log_steps is reported too.
        log.report(step, loss, None, None, report.counts())
      log.end(step, loss)
    if step > start_step or reason != END_OF_DATA:
      _save(session, graph, step, checkpoints, is_end=reason == END_OF_DATA)
  return End(step, reason, is_stopped=reason in (stop.name, OTHER_STOPS))


def _signals():
  """`program.Signals` that ask to stop."""
  return program.Signals(
    [signal.SIGTERM, signal.SIGINT],
    "saving after this step",
    lambda *unused_args: None,
  )


def _fetches(graph, reports, wants_metrics):
  """What a step is to give: dict."""
  fetches = dict(graph.step_fetches)
  if reports:
    fetches |= {"loss": graph.loss, "summary": graph.summary}
  if wants_metrics:
    fetches["metrics"] = graph.metrics
  return fetches


def _take(session, fetches, wishes, fill):
  """What a step gives: dict; None where the data have ended, for all tasks."""
  try:
    if fill is not None:
      session.run(fill)
    values = session.run(fetches, wishes)
  except tf.errors.OutOfRangeError:
    return None
  return values if values["num_videos"] or not values.get("told") else None


def _saves(session, graph, step, checkpoints, told):
  """Saves after a step, if it is time to: whether it did."""
  asked = told.get("save")
  if asked:
    settle(session, graph, step)
  return checkpoints and checkpoints.after_step(session, step, asked)


def _save(session, graph, step, checkpoints, is_end):
  """Saves a run that ends, by the end of the data or otherwise."""
  if graph.settle is not None:
    settle(session, graph, step)
  if checkpoints:
    if is_end:
      # The same command then has nothing left to do.
      session.run(graph.finish)
    checkpoints.finish(session, step, again=is_end)


def settle(session, graph, step):
  """Averages what tasks hold each of its own, and compares what they share.

  Args:
    session: `tf.Session`.
    graph: `graph.Graph` of several tasks, which all do this at the same step.
    step: int.

  Raises:
    program.UserError: the tasks' weights differ.
  """
  norms = session.run(graph.settle)
  if norms.max() - norms.min() > _TOLERANCE * norms.max():
    raise program.UserError(
      f"The tasks' weights differ at step {step}. Their norms, in the order of "
      f"TF_CONFIG, the chief's first: {norms.tolist()}. Have they the same "
      "processors and software?"
    )


def _why_end(stop, config, step, found="", told=None):
  """Why a run ends after a step, or "".

  Args:
    stop: `program.Signals`.
    config: `config.Config`.
    step: int.
    found: str, why this task would end it.
    told: dict, what several tasks told each other; see
      `collectives.Group.agree`.
  """
  if not told:
    return stop.name or found or _at_end(config, step)
  if told["stop"]:
    return stop.name or OTHER_STOPS
  if told["end"]:
    return found or _CHIEF_ENDS
  return _at_end(config, step) or ("" if told["more"] else END_OF_DATA)


def _at_end(config, step):
  return "--max_steps" if config.max_steps and step >= config.max_steps else ""


@contextlib.contextmanager
def _telling_failure(step, report, checkpoints):
  """Says why TensorFlow failed a step, if the reader or the weights are why."""
  try:
    yield
  except tf.errors.OpError as error:
    if report.error:
      raise report.error from None
    if optimizers.NOT_FINITE not in error.message:
      raise
    advice = checkpoints.advice() if checkpoints else saver.ADVICE
    raise program.UserError(
      f"{optimizers.NOT_FINITE} at step {step}. {advice}"
    ) from None


def _warn_of_return(step, reported):
  logging.warning(
    "Step %d came after step %d: the chief has begun again from a checkpoint.",
    step,
    reported,
  )
