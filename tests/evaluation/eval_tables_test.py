"""Tests of evaluation/eval_tables.py.

Axes: B videos, C classes, K predictions kept.
"""

import collections
import csv
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import eval_util
from checkpoints import evaluations
from evaluation import eval_tables
from predictions import predictor

B, C, K = 23, 5, 4


def evaluated(num_listed, batch_size, is_rated=None):
  """(predictions, labels, losses, filled `Tables`) of random videos."""
  rng = np.random.default_rng(0)
  predictions = rng.permutation(B * C).reshape(B, C).astype(np.float32) / 999
  labels = rng.random([B, C]) < 0.4
  labels[2] = False
  losses = rng.random(B).astype(np.float32)
  tables = eval_tables.Tables(C, num_listed)
  metrics = eval_util.EvaluationMetrics(C, K, None)
  for start in range(0, B, batch_size):
    part = slice(start, start + batch_size)
    with tf.Graph().as_default(), tf.Session() as session:
      batch = {
        "video_ids": tf.constant([b"v%d" % i for i in range(B)][part]),
        "labels": tf.constant(labels[part]),
      }
      weights = None
      if is_rated is not None:
        weights = tf.constant(is_rated[part].astype(np.float32))
        batch["label_weights"] = weights
      found, more = session.run(
        (
          predictor.batch_metrics(
            tf.constant(predictions[part]), batch["labels"], K, weights
          ),
          tables.fetch(batch),
        )
      )
    found["loss"] = losses[part]
    metrics.accumulate_top_k(**found)
    tables.add(found, **more)
  tables.finish(*metrics.by_class())
  return predictions, labels, losses, tables


@pytest.mark.parametrize("rated", [False, True])
def test_finds_what_loops_over_all_videos_find(rated):
  is_rated = np.random.default_rng(1).random([B, C]) < (0.7 if rated else 2)
  predictions, labels, losses, tables = evaluated(
    99, 6, is_rated if rated else None
  )
  labels &= is_rated
  counts, videos = collections.Counter(), []
  predicted, retrieved = np.zeros(C, int), np.zeros(C, int)
  for b in range(B):
    order = [c for c in np.argsort(-predictions[b]) if is_rated[b, c]][:K]
    own = [c for c in range(C) if labels[b, c]]
    for c in order:
      predicted[c] += 1
      retrieved[c] += c in own
    best = order[: len(own)]
    counts.update(
      (t, w) for t in own for w in best if t not in best and w not in own
    )
    if own:
      ap = sum(
        sum(d in own for d in order[:rank]) / rank
        for rank, c in enumerate(order, start=1)
        if c in own
      ) / min(len(own), K)
      videos.append((ap, -losses[b], f"v{b}"))
  assert {c[:2]: c.videos for c in tables.confusions()} == counts
  found = [v.videos for v in tables.confusions()]
  assert found == sorted(found, reverse=True)
  worst = [v.video_id for v in tables.worst_videos()]
  assert worst == [v[2] for v in sorted(videos)]
  assert [v.video_id for v in tables.best_videos()] == worst[::-1]
  np.testing.assert_array_equal(tables.predicted, predicted)
  np.testing.assert_array_equal(tables.retrieved, retrieved)
  np.testing.assert_array_equal(tables.positives, labels.sum(axis=0))


def test_lists_as_many_as_are_asked_for_however_batches_are_cut():
  everything = evaluated(99, B)[3]
  few = evaluated(3, 2)[3]
  assert few.confusions() == everything.confusions()[:3]
  assert few.best_videos() == everything.best_videos()[:3]
  assert few.worst_videos() == everything.worst_videos()[:3]


def test_writes_files_with_names_and_evaluations_own_them(tmp_path):
  predictions, labels, _, tables = evaluated(2, 7)
  names = ["zero", "one, or 1", "two", "drei", "vier"]
  paths = tables.write(str(tmp_path), "-20-segments.csv", names.__getitem__)
  rows = {}
  for path in map(str, paths):
    name = path.rpartition("/")[2]
    assert re.fullmatch(evaluations.FILES, name)
    with open(path) as stream:
      rows[name.partition("-")[0]] = list(csv.DictReader(stream))
  assert [row["name"] for row in rows["classes"]] == names
  aps = [float(row["average_precision"]) for row in rows["classes"]]
  np.testing.assert_allclose(aps, tables.average_precision, atol=1e-6)
  assert len(rows["confusions"]) == 2
  assert {row["label"] for row in rows["confusions"]} <= {*names}
  kinds = [row["kind"] for row in rows["videos"]]
  assert kinds == ["worst", "worst", "best", "best"]
  best = int(rows["videos"][2]["id"][1:])
  assert rows["videos"][2]["labels"] == "; ".join(
    names[c] for c in np.flatnonzero(labels[best])
  )
  shown = rows["videos"][2]["predictions"].split("; ")
  order = np.argsort(-predictions[best])
  assert shown == [f"{names[c]} {predictions[best][c]:.4f}" for c in order[:K]]


def test_without_a_list_asks_the_graph_for_nothing_and_writes_classes(tmp_path):
  tables = evaluated(0, 6)[3]
  assert tables.fetch({}) == {}
  (path,) = tables.write(str(tmp_path), ".csv", str)
  assert path.endswith("classes.csv")
