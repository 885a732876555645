"""Metrics in Python heaps: baselines of `benchmark.py`.

Axes: B videos, C classes.
"""

import heapq
import random

import numpy as np


class HeapMetrics:
  """`eval_util.EvaluationMetrics` in the manner of the starter code.

  It has the starter code's steps, each with numpy's scalars in Python: videos
  one by one, their best pairs sorted out into lists by class, a heap of pairs
  for each class and one for all, each class's labels counted on their own, and
  average precision in a loop over what the heaps hold, shuffled and sorted.
  """

  def __init__(self, num_class, top_k):
    """Starts empty: num_class is C, top_k the pairs that a video adds."""
    self._num_class = num_class
    self._top_k = top_k
    self._class_heaps = [[] for _ in range(num_class)]
    self._class_positives = [0] * num_class
    self._all_pairs = []
    self._hits, self._perrs = [], []

  def accumulate(self, predictions, labels):
    """Adds a batch: float [B, C], bool [B, C]."""
    best = np.argmax(predictions, axis=1)
    self._hits += labels[np.arange(len(labels)), best].tolist()
    by_class = [[] for _ in range(self._num_class)]
    for scores, truth in zip(predictions, labels):
      self._add_perr(scores, truth)
      for j in np.argpartition(scores, -self._top_k)[-self._top_k :]:
        by_class[j].append((scores[j], truth[j]))
    for j, pairs in enumerate(by_class):
      self._class_positives[j] += np.sum(labels[:, j])
      for pair in pairs:
        heapq.heappush(self._class_heaps[j], pair)
        heapq.heappush(self._all_pairs, pair)

  def _add_perr(self, scores, truth):
    count = int(np.sum(truth))
    if not count:
      return
    found = 0.0
    for j in np.argpartition(scores, -count)[-count:]:
      if scores[j] > 0:
        found += truth[j]
    self._perrs.append(found / count)

  def get(self):
    """`avg_hit_at_one`, `avg_perr`, `aps` of classes with positives, `gap`."""
    return {
      "avg_hit_at_one": sum(self._hits) / len(self._hits),
      "avg_perr": sum(self._perrs) / max(1, len(self._perrs)),
      "aps": [
        _average_precision(heap, positives)
        for heap, positives in zip(self._class_heaps, self._class_positives)
        if positives
      ],
      "gap": _average_precision(self._all_pairs, sum(self._class_positives)),
    }


def _average_precision(pairs, num_positives):
  """Of (prediction, is positive) pairs, equal predictions in a random order."""
  if not pairs or not num_positives:
    return 0.0
  shuffled = random.Random(0).sample(range(len(pairs)), len(pairs))
  scores, hits = (np.array(column)[shuffled] for column in zip(*pairs))
  ranked = sorted(range(len(scores)), key=lambda i: scores[i], reverse=True)
  found, area = 0, 0.0
  for rank, i in enumerate(ranked, start=1):
    if hits[i] > 0:
      found += 1
      area += found / rank
  return area / num_positives
