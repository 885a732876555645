"""Evaluates one checkpoint on a whole data set. Axes: B videos, C classes."""

import os

import numpy as np
from absl import logging

import eval_util
import losses
from checkpoints import restore
from console import program
from predictions import predictor


def evaluate(
  source,
  values,
  paths,
  *,
  top_k=predictor.TOP_K,
  tables=None,
  curves=None,
  **data,
):
  """Evaluates one checkpoint.

  Args:
    source: path prefix of the checkpoint, or a train_dir for the newest.
    values: dict of the model flags.
    paths: list of str, the files.
    top_k: int >= 1.
    tables: `eval_tables.Tables` to fill, or None.
    curves: `eval_curves.Curves` to fill, or None.
    **data: `batch_size`, `num_readers`, `holdout` (the held-out videos only),
      `skip_unlabelled`, `strict`, see `readers.BaseReader.batches`.

  Returns:
    dict of `gap`, `map`, `avg_hit_at_one`, `avg_perr`, `avg_loss`, `step`,
    `checkpoint` and `path` (its name and path prefix), `num_videos`, of which
    `num_unlabelled`, `num_labels`, `flawed_records` (dict of kind to number),
    `num_files`, `holdout`, `segments`, `top_k` and `skip_unlabelled`.

  Raises:
    program.UserError: the files hold no usable video.
  """
  loss_fn = losses.get_loss(values["label_loss"], values)
  holdout = data.get("holdout", False)
  if holdout:
    data = {**data, "holdout_fraction": values["holdout_fraction"]}

  def fetch(batch, predictions):
    found = _fetch(batch, predictions, loss_fn, top_k)
    return found, tables.fetch(batch) if tables else {}

  with predictor.Predictor(values, paths, fetch, **data) as videos:
    checkpoint = videos.restore(source)
    logging.info("Evaluating %s.", checkpoint)
    metrics = eval_util.EvaluationMetrics(
      videos.reader.num_classes, top_k, None
    )
    counts = _gather(videos, metrics, tables, curves)
  report = videos.reader.report
  if not counts["num_videos"]:
    flag = "--eval_data_pattern" + " (--holdout)" * holdout
    raise program.no_video(report, paths, flag)
  report.log_warnings()
  if tables:
    tables.finish(*metrics.by_class())
  return {
    **_told(checkpoint, values, paths, top_k, data),
    **counts,
    "flawed_records": report.counts(),
    **_averages(metrics.get()),
  }


def _told(checkpoint, values, paths, top_k, data):
  """What was evaluated, and how: dict."""
  return {
    "step": restore.step_of(checkpoint),
    "checkpoint": os.path.basename(checkpoint),
    "path": checkpoint,
    "num_files": len(paths),
    "holdout": data.get("holdout", False),
    "segments": values["segment_labels"],
    "top_k": top_k,
    "skip_unlabelled": data.get("skip_unlabelled", False),
  }


def _fetch(batch, predictions, loss_fn, top_k):
  """dict of tensors, what `EvaluationMetrics.accumulate_top_k` takes."""
  labels, weights = batch["labels"], batch.get("label_weights")
  return {
    **predictor.batch_metrics(predictions, labels, top_k, weights),
    "loss": loss_fn.per_example(predictions, labels, weights),
  }


def _gather(videos, metrics, tables, curves):
  """Goes through all videos: dict of counts of them and of their labels."""
  counts = {"num_videos": 0, "num_unlabelled": 0, "num_labels": 0}
  for found, more in videos:
    metrics.accumulate_top_k(**found)
    if tables:
      tables.add(found, **more)
    if curves:
      curves.add(found)
    counts["num_videos"] += len(found["num_labels"])
    counts["num_unlabelled"] += int(np.sum(found["num_labels"] == 0))
    counts["num_labels"] += int(np.sum(found["num_labels"]))
  return counts


def _averages(results):
  """The numbers of `EvaluationMetrics.get`, the mean over classes for each."""
  names = ("gap", "avg_hit_at_one", "avg_perr", "avg_loss")
  mean = float(np.mean(results["aps"])) if results["aps"] else 0.0
  return {"map": mean, **{name: results[name] for name in names}}
