"""What a training run says of itself: log lines and TensorBoard."""

import datetime
import time

import tensorflow.compat.v1 as tf
from absl import logging
from tensorboard.plugins.hparams import api as hparams

import eval_util
import predictor
from checkpoints import events

# At most this part of the time goes into metrics of training batches.
_METRICS_SHARE = 0.04
# What the HParams dashboard shows beside the flags.
_EVAL_TAGS = (
  "Epoch/Eval_GAP",
  "Epoch/Eval_MAP",
  "Epoch/Eval_Avg_Hit@1",
  "Epoch/Eval_Avg_Perr",
  "Epoch/Eval_Avg_Loss",
)


class TrainLog:
  """Counts examples, computes the metrics of training batches, reports."""

  def __init__(self, *, writer, num_classes, start_step, total_steps):
    """Starts the clock.

    Args:
      writer: `events.EventWriter`, or None to write no summaries.
      num_classes: int.
      start_step: int, the step that the run starts from.
      total_steps: int, the step at which it will end, or None if unknown.
    """
    self._writer = writer
    self._metrics = eval_util.EvaluationMetrics(
      num_classes, predictor.TOP_K, None
    )
    self._first_step = start_step
    self._total_steps = total_steps
    self._examples = 0
    self._first_time = self._last_time = time.monotonic()
    self._metrics_seconds = 0.0
    self._is_first_report = True

  def count(self, num_examples):
    """Counts the videos of a step that ran."""
    self._examples += num_examples

  def wants_metrics(self):
    """Whether another batch's metrics would still be cheap."""
    elapsed = time.monotonic() - self._first_time
    return self._metrics_seconds <= _METRICS_SHARE * elapsed

  def report(self, step, loss, batch_metrics, summary, counts):
    """Logs a line and writes summaries.

    Args:
      step: int.
      loss: float, label loss of the batch.
      batch_metrics: dict as of `predictor.batch_metrics`, or None.
      summary: serialized `tf.Summary` to write along, or None.
      counts: dict of kind to number of flawed records so far.
    """
    now = time.monotonic()
    rate = self._examples / max(now - self._last_time, 1e-9)
    self._examples, self._last_time = 0, now
    scalars = {"global_step/Examples/Second": rate}
    line = f"training step {step} | Loss: {loss:.6g} Examples/sec: {rate:.1f}"
    if batch_metrics is not None:
      metrics = self._compute(batch_metrics)
      scalars |= {f"model/Training_{name}": v for name, v in metrics.items()}
      values = " ".join(f"{name}: {v:.3f}" for name, v in metrics.items())
      line += f" | {values}"
    scalars |= {f"input/{kind}": number for kind, number in counts.items()}
    logging.info("%s%s", line, self._progress(step, now))
    if self._writer:
      if summary is not None:
        self._writer.add_summary(summary, step)
      self._writer.add_summary(events.scalar_summary(scalars), step)

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
    done, elapsed = step - self._first_step, now - self._first_time
    if self._is_first_report:
      # Warming up took part of the time so far: count from here.
      self._is_first_report = False
      self._first_step, self._first_time = step, now
    if not self._total_steps or done <= 0:
      return ""
    total = max(self._total_steps, step)
    left = elapsed / done * (total - step)
    ends = datetime.datetime.now() + datetime.timedelta(seconds=left)
    return (
      f" | {100 * step // total}% of {total} steps, ends "
      f"{ends:%a %H:%M:%S} (in {datetime.timedelta(seconds=round(left))})"
    )


def write_flags(writer, values):
  """Writes a run's flags as a text summary and as an HParams entry.

  Args:
    writer: `events.EventWriter`.
    values: dict of flag to value.
  """
  rows = [f"| --{name} | `{value}` |" for name, value in sorted(values.items())]
  table = "\n".join(["| flag | value |", "|---|---|", *rows])
  text = tf.Summary.Value(
    tag="flags",
    tensor=tf.make_tensor_proto([table]),
    metadata=tf.SummaryMetadata(
      plugin_data=tf.SummaryMetadata.PluginData(plugin_name="text")
    ),
  )
  writer.add_summary(tf.Summary(value=[text]))
  # HParams knows numbers, texts and truth values.
  shown = {
    name: value if isinstance(value, bool | int | float | str) else str(value)
    for name, value in values.items()
  }
  config = hparams.hparams_config_pb(
    hparams=[hparams.HParam(name) for name in sorted(shown)],
    metrics=[
      hparams.Metric(tag, group="eval", display_name=tag) for tag in _EVAL_TAGS
    ],
  )
  for proto in (config, hparams.hparams_pb(shown)):
    writer.add_summary(tf.Summary.FromString(proto.SerializeToString()))
  writer.flush()
