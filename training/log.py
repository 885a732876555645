"""What a training run says of itself: log lines and TensorBoard."""

import dataclasses
import datetime
import shlex
import sys
import time
from typing import Any

import tensorflow.compat.v1 as tf
from absl import logging
from tensorboard.plugins.hparams import api_pb2 as hparams_api
from tensorboard.plugins.hparams import summary as hparams

import eval_util
import model_flags
from checkpoints import events
from console import flag_fields, program
from predictions import predictor

# At most this part of the time goes into metrics of training batches.
_METRICS_SHARE = 0.04
# So long after warming up, the pace tells when a run will end.
_SURE_SECS = 5.0
# What the HParams dashboard shows beside the flags, of evaluation.
_EVAL_TAGS = ("GAP", "MAP", "Hit@1", "PERR", "loss")
# Flags that it shows first.
_FIRST = (
  "model",
  "base_learning_rate",
  "batch_size",
  "iterations",
  "netvlad_cluster_size",
)
# Groups of training's flags that bear on what is learnt.
_LEARNING = (
  "Data",
  "Optimisation",
  "Augmentation and labels",
  "Distillation",
)


class TrainLog:
  """Counts examples, computes the metrics of training batches, reports.

  On a terminal a live line shows where training is; elsewhere there is a line
  of the log now and then. A context manager, which ends the live line.
  """

  def __init__(
    self, *, writer, num_classes, start_step, total_steps, kind="", log_secs=0
  ):
    """Starts the clock.

    Args:
      writer: `events.EventWriter`, or None to write no summaries.
      num_classes: int.
      start_step: int, the step that the run starts from.
      total_steps: int, the step at which it will end, or None if unknown.
      kind: str, of the data, see `events.common`.
      log_secs: int, seconds between two lines of the log, at least.
    """
    self._writer, self._kind = writer, kind
    self._metrics = eval_util.EvaluationMetrics(
      num_classes, predictor.TOP_K, None
    )
    self._total_steps = total_steps
    self._log_secs = log_secs
    now = time.monotonic()
    self._start_time = now
    self._metrics_seconds = 0.0
    # (time, examples) of the last report, and of the last line.
    self._examples = 0
    self._reported = self._logged = (now, 0)
    self._logged_step = None
    # (time, step) when warming up was over.
    self._warm = None
    self._live = _LiveLine(start_step, total_steps)

  def __enter__(self):
    return self

  def __exit__(self, *unused_exc_info):
    self._live.close()

  def count(self, num_examples, step):
    """Counts a step that ran, and its videos."""
    self._examples += num_examples
    self._live.show(step)

  def wants_metrics(self):
    """Whether another batch's metrics would still be cheap."""
    since = self._warm[0] if self._warm else self._start_time
    elapsed = time.monotonic() - since
    return self._metrics_seconds <= _METRICS_SHARE * elapsed

  def report(self, step, loss, batch_metrics, summary, counts):
    """Writes summaries, and logs a line if it is time to.

    Args:
      step: int.
      loss: float, label loss of the batch.
      batch_metrics: dict as of `predictor.batch_metrics`, or None.
      summary: serialized `tf.Summary` to write along, or None.
      counts: dict of kind to number of flawed records so far.
    """
    now = time.monotonic()
    rate = self._rate(self._reported, now)
    self._reported = now, self._examples
    scalars = {"global_step/Examples/Second": rate}
    scalars |= events.common({"loss": loss}, self._kind)
    metrics = {}
    # A task whose files have ended may wait for others without a video.
    if batch_metrics is not None and len(batch_metrics["scores"]):
      metrics = self._compute(batch_metrics)
      scalars |= {f"model/Training_{name}": v for name, v in metrics.items()}
      scalars |= events.common(
        {name.replace("Perr", "PERR"): v for name, v in metrics.items()},
        self._kind,
      )
    scalars |= {f"input/{kind}": number for kind, number in counts.items()}
    is_due = now - self._logged[0] >= self._log_secs
    if self._live.is_shown:
      self._live.tell(rate, loss, metrics)
    elif self._logged_step is None or is_due:
      self._log(step, loss, metrics, now)
    if self._warm is None:
      # Warming up took part of the time so far: count from here.
      self._warm = now, step
    if self._writer:
      if summary is not None:
        self._writer.add_summary(summary, step)
      self._writer.add_summary(events.scalar_summary(scalars), step)

  def end(self, step, loss):
    """Logs a line of the last step, if it had none."""
    if self._logged_step != step:
      self._log(step, loss, {}, time.monotonic())

  def _log(self, step, loss, metrics, now):
    rate = self._rate(self._logged, now)
    self._logged, self._logged_step = (now, self._examples), step
    line = f"training step {step} | Loss: {loss:.6g} Examples/sec: {rate:.1f}"
    if metrics:
      values = " ".join(f"{name}: {v:.3f}" for name, v in metrics.items())
      line += f" | {values}"
    logging.info("%s%s", line, self._progress(step, now))

  def _rate(self, since, now):
    """Examples a second since a (time, examples)."""
    return (self._examples - since[1]) / max(now - since[0], 1e-9)

  def _compute(self, batch_metrics):
    start = time.monotonic()
    self._metrics.clear()
    self._metrics.accumulate_top_k(**batch_metrics, loss=0.0)
    found = self._metrics.get()
    self._metrics_seconds += time.monotonic() - start
    return {
      "Hit@1": found["avg_hit_at_one"],
      "Perr": found["avg_perr"],
      "GAP": found["gap"],
    }

  def _progress(self, step, now):
    if not self._total_steps:
      return ""
    total = max(self._total_steps, step)
    text = f" | {100 * step // total}% of {total} steps"
    since, first = self._warm or (now, step)
    if step <= first or now - since < _SURE_SECS:
      return text
    left = (now - since) / (step - first) * (total - step)
    ends = datetime.datetime.now() + datetime.timedelta(seconds=left)
    return (
      f"{text}, ends {ends:%a %H:%M:%S} "
      f"(in {datetime.timedelta(seconds=round(left))})"
    )


class _LiveLine:
  """The line of a terminal that shows where training is; none elsewhere."""

  # What a bar shows while it is not known when it will be full.
  _UNSURE = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix}"

  def __init__(self, start_step, total_steps):
    self.is_shown = sys.stderr.isatty()
    self._bar: Any = None
    self._warm = None
    self._known = {}
    if self.is_shown:
      self._bar = program.progress_bar(
        total_steps,
        "steps",
        initial=start_step,
        smoothing=0,
        desc="warming up",
        bar_format=self._UNSURE if total_steps else None,
      )

  def show(self, step):
    """Shows a step, and what was told last."""
    if self._bar is not None:
      self._bar.set_postfix(self._known, refresh=False)
      self._bar.update(step - self._bar.n)

  def tell(self, rate, loss, metrics):
    """Shows videos a second, and what is known of a training batch."""
    self._known |= {"loss": f"{loss:.4g}", "videos/s": f"{rate:.0f}"}
    self._known |= {name: f"{value:.3f}" for name, value in metrics.items()}
    bar, now = self._bar, time.time()
    if self._warm is None:
      # The time that is left is worked out from here on.
      self._warm = bar.start_t = now
      bar.initial = bar.n
      bar.set_description_str("", refresh=False)
    elif now - self._warm >= _SURE_SECS:
      bar.bar_format = None

  def close(self):
    """Leaves the line as it is."""
    if self._bar is not None:
      self._bar.close()


def write_flags(writer, config, values, command):
  """Writes a run's flags as a text summary and as an HParams entry.

  Args:
    writer: `events.EventWriter`.
    config: `config.Config`.
    values: dict of the model flags.
    command: list of str, the words that started the program.
  """
  flags = {**dataclasses.asdict(config), **values}
  rows = [f"| --{name} | `{value}` |" for name, value in sorted(flags.items())]
  table = "\n".join(["| flag | value |", "|---|---|", *rows])
  for tag, text in (("flags", table), ("command", shlex.join(command))):
    value = tf.Summary.Value(tag=tag, tensor=tf.make_tensor_proto([text]))
    value.metadata.plugin_data.plugin_name = "text"
    writer.add_summary(tf.Summary(value=[value]))
  shown = hyper_parameters(config, values)
  experiment = hparams.experiment_pb(
    hparam_infos=[
      # The dashboard shows these first, and the others when asked to. It takes
      # them from one run, for those with other flags too.
      hparams_api.HParamInfo(name=name, differs=name in _FIRST)
      for name in sorted({*values, *_of_training(config)})
    ],
    metric_infos=[
      hparams_api.MetricInfo(
        name=hparams_api.MetricName(group="eval", tag=tag), display_name=tag
      )
      for tag in _EVAL_TAGS
    ],
  )
  # Without a name of its own, a trial has the run's.
  for proto in (experiment, hparams.session_start_pb(shown)):
    writer.add_summary(tf.Summary.FromString(proto.SerializeToString()))
  writer.flush()


def hyper_parameters(config, values):
  """{flag: number, text or truth value} of what bears on what is learnt.

  Of the model's, those that it uses with the others as they are; of training's,
  neither paths nor what is merely written or where it runs, nor flags without a
  value.
  """
  used = model_flags.effective_flags(values)
  found = {name: value for name, value in values.items() if name in used}
  found |= _of_training(config)
  return {
    name: value if isinstance(value, bool | int | float) else str(value)
    for name, value in sorted(found.items())
    if value not in (None, "")
  }


def _of_training(config):
  """{flag: value} of training's own that bear on what is learnt."""
  return {
    name: getattr(config, name)
    for name, spec in flag_fields.specs(type(config)).items()
    if spec.group in _LEARNING and not spec.placeholder.startswith("PATH")
  }
