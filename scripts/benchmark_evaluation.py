"""Metrics and inference of `benchmark.py`."""

import contextlib
import dataclasses
import os
import tempfile
import time
from typing import Any
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

import eval_util
import inference as inference_program
import model_flags
import predictor
import program
import readers
import train
from checkpoints import restore
from scripts import baseline_metrics, benchmark_training
from scripts import benchmark_tools as tools
from scripts.benchmark_units import Rows, Settings
from training import placement as cluster

# As inference.py's defaults have it.
_INFERENCE_BATCH = 256
_METRICS_BATCH = 1024
# Batches that are timed; those before, in which the pipeline fills and touches
# memory for the first time; and those behind, which are read ahead meanwhile.
_TIMED = 8
_BEFORE = 4
_BEHIND = 6
# Times the budget of others: a round is long, and one alone says little.
_INFERENCE_BUDGETS = 2


def metrics(settings: Settings) -> Rows:
  """Metrics of an evaluation, from all predictions and from the best of each.

  The baseline has a tenth of the videos.
  """
  rng = np.random.default_rng(0)
  shape = (settings.metrics_videos, settings.num_classes)
  predictions = rng.random(shape, np.float32)
  labels = rng.random(shape, np.float32) < 3.0 / settings.num_classes
  parts = [
    slice(start, start + _METRICS_BATCH)
    for start in range(0, shape[0], _METRICS_BATCH)
  ]
  few = max(1, shape[0] // 10)

  def new():
    return eval_util.EvaluationMetrics(shape[1], predictor.TOP_K, None)

  def dense():
    found = new()
    for part in parts:
      found.accumulate(predictions[part], labels[part], 0.0)
    found.get()

  def heaps():
    found = baseline_metrics.HeapMetrics(
      shape[1], min(predictor.TOP_K, shape[1])
    )
    for start in range(0, few, _METRICS_BATCH):
      part = slice(start, min(few, start + _METRICS_BATCH))
      found.accumulate(predictions[part], labels[part])
    found.get()

  with _best_of_batches(predictions, labels, parts) as best:
    batches = best()

    def accumulate():
      found = new()
      for batch in batches:
        found.accumulate_top_k(**batch, loss=0.0)
      found.get()

    rounds = tools.measure(
      {"dense": dense, "best": best, "accumulate": accumulate, "heaps": heaps},
      **settings.budget,
    )
  seconds = {name: rounds.median(name) for name in rounds.seconds}
  heaps_rate = few / seconds["heaps"]
  rates = {
    "all predictions": shape[0] / seconds["dense"],
    "best in the graph": shape[0] / (seconds["best"] + seconds["accumulate"]),
    "best given": shape[0] / seconds["accumulate"],
    "heaps": heaps_rate,
  }
  return {
    name: {
      "videos_per_second": rate,
      "speedup": rate / heaps_rate,
      "repeats": rounds.repeats,
    }
    for name, rate in rates.items()
  }


@contextlib.contextmanager
def _best_of_batches(predictions, labels, parts):
  """Function that makes `predictor.batch_metrics` of all batches."""
  with tf.Graph().as_default():
    scores = tf.placeholder(tf.float32, [None, predictions.shape[1]])
    truth = tf.placeholder(tf.bool, scores.shape)
    fetches = predictor.batch_metrics(scores, truth, predictor.TOP_K)
    with tf.Session(config=program.session_config()) as session:
      yield lambda: [
        session.run(fetches, {scores: predictions[part], truth: labels[part]})
        for part in parts
      ]


def inference(settings: Settings, given: dict[str, Any]) -> Rows:
  """From records to the CSV, against the model on batches in memory.

  Batches are timed in the middle of a run, where the reader works as much as
  the model: neither building the graph nor filling the pipeline counts. The
  files are read several times; a video has a row once, so that formatting rows,
  which takes microseconds, does not count either.

  Args:
    settings: budgets.
    given: flags of train.py.
  """
  config, values = benchmark_training.parse_flags(given)
  paths = readers.expand_data_pattern(config.train_data_pattern)
  with (
    tempfile.TemporaryDirectory() as directory,
    _predicting(values, paths) as (predict, count_of),
  ):
    config = dataclasses.replace(
      config, train_dir=directory, max_steps=1, optimizer=_SMALL_OPTIMIZER
    )
    task = cluster.from_environment("{}")
    train.Trainer(config, values, task).run()
    checkpoint = restore.latest_checkpoint(directory)

    size = count_of(paths)
    needed = (_BEFORE + _TIMED + _BEHIND) * _INFERENCE_BATCH
    some = paths * -(-needed // size)

    def infer():
      with _timing_batches() as times:
        inference_program.infer(
          checkpoint,
          values,
          some,
          os.path.join(directory, "predictions.csv"),
          batch_size=_INFERENCE_BATCH,
          num_readers=1,
        )
      return times[_BEFORE + _TIMED] - times[_BEFORE]

    predict()
    rounds = tools.measure(
      {"all": infer, "model": predict},
      repeats=settings.repeats,
      seconds=_INFERENCE_BUDGETS * settings.seconds,
      warm_ups=0,
    )
  rate = _TIMED * _INFERENCE_BATCH / rounds.median("all")
  alone = size / rounds.median("model")
  return {
    "": {
      "videos_per_second": rate,
      "model_videos_per_second": alone,
      "share_of_model": rate / alone,
      "repeats": rounds.repeats,
    }
  }


@contextlib.contextmanager
def _timing_batches():
  """List of when `predictor.run_batches` gave each batch, in seconds."""
  times = []
  run_batches = predictor.run_batches

  def timed(*args):
    for values in run_batches(*args):
      times.append(time.perf_counter())
      yield values

  with mock.patch.object(predictor, "run_batches", timed):
    yield times


# It has no slots, which the checkpoint would hold.
_SMALL_OPTIMIZER = "GradientDescentOptimizer"


@contextlib.contextmanager
def _predicting(values, paths):
  """Function that predicts for all videos, which are held in memory.

  And one that tells how many videos files have.
  """
  reader = model_flags.build_reader(values)
  model = model_flags.build_model(values)

  def batches_of(some):
    return reader.batches(
      some,
      batch_size=_INFERENCE_BATCH,
      use_labels=False,
      skip_frameless=False,
    )

  def count(some):
    return sum(
      1 for path in some for _ in tf.python_io.tf_record_iterator(path)
    )

  with tf.Graph().as_default():
    iterator = tf.data.make_initializable_iterator(batches_of(paths))
    batch = iterator.get_next()
    best = predictor.top_k(
      predictor.predict(model, batch, reader.num_classes), predictor.TOP_K
    )
    with tf.Session(config=program.session_config()) as session:
      session.run([tf.global_variables_initializer(), iterator.initializer])
      feeds = []
      with contextlib.suppress(tf.errors.OutOfRangeError):
        while True:
          found = session.run(batch)
          feeds.append({batch[name]: found[name] for name in batch})
      yield (
        lambda: [session.run(best, feed) for feed in feeds] and None,
        count,
      )
