"""What `benchmark.py` measures: functions of `sizes.Settings`.

Each returns {row: {figure: number}}, medians over rounds. In a round all that
is compared runs once, in turn: whatever else slows the machine slows all of it.
"""

import contextlib
import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

import eval_util
import readers
import train
from console import program
from predictions import predictor, submission
from scripts import baselines
from scripts.measuring import (
  begin,
  count_flops,
  large_product,
  make_trainer,
  measure,
  peak_memory,
  ratio,
)
from scripts.sizes import FEATURES, Settings, train_flags

# Of the reader alone; a round is so many batches.
_READ_BATCH, _READ_BATCHES = 64, 64
# As inference.py's default has it, and the least batches of a round.
_INFERENCE_BATCH, _INFERENCE_BATCHES = 256, 10
_METRICS_BATCH, _METRICS_BATCHES = 1024, 20

Rows = dict[str, dict[str, float]]


def read(settings: Settings) -> Rows:
  """The readers alone, their buffers full."""
  # Shorter than the shuffle buffer, an epoch would be drained to its end.
  paths = settings.paths("frame", _READ_BATCH * _READ_BATCHES)
  own: dict[str, Any] = {
    "feature_names": FEATURES,
    "feature_sizes": settings.sizes,
    "num_classes": settings.num_classes,
    "max_frames": settings.max_frames,
  }
  reader = readers.YT8MFrameFeatureReader(**own)
  # As train.py's defaults have it.
  reading: dict[str, Any] = {
    "batch_size": _READ_BATCH,
    "num_readers": 8,
    "num_epochs": None,
    "shuffle_buffer": 1024,
  }
  plain = baselines.Records(paths, **own)
  ways = {
    "ours": lambda: reader.batches(paths, deterministic=False, **reading),
    "plain tf.data": lambda: baselines.plain_batches(plain, **reading),
  }
  with contextlib.ExitStack() as stack:
    runs = {
      way: stack.enter_context(_reading(make)) for way, make in ways.items()
    }
    seconds = measure(runs, settings.seconds)
  return {
    way: {
      "videos_per_second": 1 / statistics.median(seconds[way]),
      "speedup": ratio(seconds[way], seconds["plain tf.data"]),
    }
    for way in ways
  }


@contextlib.contextmanager
def _reading(make):
  """Function that reads on: seconds of a video, from a dataset."""
  config = program.session_config()
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    iterator = tf.data.make_initializable_iterator(make())
    session.run(iterator.initializer)
    # Nothing but the number leaves the session, though all of a batch is made.
    size = tf.size(iterator.get_next()["num_frames"])

    def read_on():
      start = time.perf_counter()
      count = sum(int(session.run(size)) for _ in range(_READ_BATCHES))
      return (time.perf_counter() - start) / count

    yield read_on


class _PlainTrainer(train.Trainer):
  """Trains the plain model in place of ours; see `baselines.plain_model`."""

  def __init__(self, *args):
    """See the base class."""
    super().__init__(*args)
    self._model = baselines.plain_model(self._model)


def step(settings: Settings, name: str) -> Rows:
  """A model's training step, from records and from memory, and a plain one.

  Without the plain one's figures where there is too little memory for it.
  """
  given = train_flags(settings, name)
  with contextlib.ExitStack() as stack:
    ours = stack.enter_context(begin(make_trainer(given)[0]))
    ours.take()
    # It begins with what the parent process had at the start, which is less.
    peak = peak_memory()
    product, product_flops = stack.enter_context(large_product())
    variants = {"step": ours.take, "memory": ours.fed, "product": product}
    if given["model"] in baselines.POOLINGS:
      plain, *_ = make_trainer(given, _PlainTrainer)
      fed = stack.enter_context(begin(plain)).fed
      # Its residuals may need more memory than there is, ours not.
      with contextlib.suppress(tf.errors.ResourceExhaustedError):
        fed()
        variants["plain"] = fed
    seconds = measure(variants, settings.seconds)
    flops = count_flops(ours.trace())
  medians = {name: statistics.median(own) for name, own in seconds.items()}
  fastest = product_flops / min(seconds["product"])
  figures = {
    "examples_per_second": given["batch_size"] / medians["step"],
    "step_ms": 1e3 * medians["step"],
    "memory_step_ms": 1e3 * medians["memory"],
    "peak_gb": peak / 1e9,
    "product_gflops": flops / 1e9,
    "share_of_peak": flops / medians["memory"] / fastest,
  }
  if "plain" in medians:
    figures["plain_step_ms"] = 1e3 * medians["plain"]
    figures["speedup"] = ratio(seconds["memory"], seconds["plain"])
  return {name: figures}


def towers(settings: Settings) -> Rows:
  """A step in one tower and in several, on CPU devices, of as many videos."""
  counts = [count for count in (1, 2, 4) if count <= settings.batch_size]
  with contextlib.ExitStack() as stack:
    variants = {}
    for count in counts:
      own = {"num_towers": count, "num_gpu": 0}
      own["batch_size"] = settings.batch_size // count
      given = train_flags(settings, "gated-netvlad", **own)
      trainer, *_ = make_trainer(given)
      variants[count] = stack.enter_context(begin(trainer, count)).fed
    seconds = measure(variants, settings.seconds)
  return {
    f"{count} towers": {
      "step_ms": 1e3 * statistics.median(seconds[count]),
      "tower_overhead": ratio(seconds[1], seconds[count]) - 1.0,
    }
    for count in counts
  }


def metrics(settings: Settings) -> Rows:
  """An evaluation's metrics, each video's best found in the graph."""
  rng = np.random.default_rng(0)
  shape = (_METRICS_BATCH, settings.num_classes)
  with tf.Graph().as_default(), tf.Session() as session:
    scores = tf.placeholder(tf.float32, shape)
    truth = tf.placeholder(tf.bool, shape)
    fetches = predictor.batch_metrics(scores, truth, predictor.TOP_K)
    labels = rng.random(shape, np.float32) < 3.0 / settings.num_classes
    feed = {scores: rng.random(shape, np.float32), truth: labels}

    def compute():
      found = eval_util.EvaluationMetrics(shape[1], predictor.TOP_K, None)
      for _ in range(_METRICS_BATCHES):
        found.accumulate_top_k(**session.run(fetches, feed), loss=0.0)
      found.get()

    seconds = measure({"": compute}, settings.seconds)[""]
  num_videos = _METRICS_BATCH * _METRICS_BATCHES
  rate = num_videos / statistics.median(seconds)
  return {"metrics": {"videos_per_second": rate}}


def infer(settings: Settings, name: str) -> Rows:
  """From records to the CSV, against the model on a batch in memory.

  Rates are those between the first batch and the last: neither building the
  graph nor filling the pipeline counts.
  """
  with contextlib.ExitStack() as stack:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    given = train_flags(settings, name, train_dir=directory, max_steps=1)
    # No optimiser's state, which the checkpoint would hold.
    given |= {"optimizer": "GradientDescentOptimizer", "export_model_steps": 0}
    trainer, _, values = make_trainer(given)
    trainer.run()
    paths = settings.paths(
      "frame" if values["frame_features"] else "video",
      _INFERENCE_BATCH * _INFERENCE_BATCHES,
    )
    data = {"batch_size": _INFERENCE_BATCH, "use_labels": False}
    with predictor.Predictor(values, paths, lambda b, _: b, **data) as videos:
      stored = next(iter(videos))
    inputs, best = {}, []

    def fetch(batch, predictions):
      inputs.update(batch)
      best.extend(predictor.top_k(predictions, predictor.TOP_K))
      return (batch["video_ids"], *best)

    videos = stack.enter_context(
      predictor.Predictor(values, paths, fetch, **data)
    )
    videos.restore(directory)
    feed = {inputs[key]: value for key, value in stored.items()}

    def from_records():
      counts, times = [], []
      path = os.path.join(directory, "predictions.csv")
      with submission.SubmissionWriter(path) as writer:
        for found in videos:
          writer.write(*found)
          counts.append(len(found[0]))
          times.append(time.perf_counter())
      return (times[-1] - times[0]) / sum(counts[1:])

    def from_memory():
      start = time.perf_counter()
      tf.get_default_session().run(best, feed)
      return (time.perf_counter() - start) / len(stored["video_ids"])

    seconds = measure(
      {"all": from_records, "model": from_memory}, settings.seconds
    )
  return {
    name: {
      "videos_per_second": 1 / statistics.median(seconds["all"]),
      "model_videos_per_second": 1 / statistics.median(seconds["model"]),
      "share_of_model": ratio(seconds["all"], seconds["model"]),
    }
  }
