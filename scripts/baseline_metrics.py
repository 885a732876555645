"""Metrics in Python heaps: baselines of `benchmark.py`.

Axes: B videos, C classes.
"""

import heapq

import numpy as np


class HeapMetrics:
  """`eval_util.EvaluationMetrics` in the manner of the starter code.

  Video by video in Python: a heap of (prediction, label) for each class, and
  one for all; average precision from the heaps' sorted content. The starter
  code shuffles what it sorts; here equal predictions keep their order.
  """

  def __init__(self, num_class, top_k):
    """Starts empty: num_class is C, top_k the pairs that a video adds."""
    self._top_k = top_k
    self._class_heaps = [[] for _ in range(num_class)]
    self._class_positives = [0] * num_class
    self._all_pairs = []
    self._hits, self._perrs = [], []

  def accumulate(self, predictions, labels):
    """Adds a batch: float [B, C], bool [B, C]."""
    for scores, truth in zip(predictions, labels):
      self._hits.append(bool(truth[np.argmax(scores)]))
      self._add_perr(scores, truth)
      self._add_pairs(scores, truth)

  def _add_perr(self, scores, truth):
    count = int(np.sum(truth))
    if not count:
      return
    best = np.argpartition(scores, -count)[-count:]
    found = sum(1 for j in best if truth[j] and scores[j] > 0)
    self._perrs.append(found / count)

  def _add_pairs(self, scores, truth):
    for j in np.argpartition(scores, -self._top_k)[-self._top_k :]:
      pair = (float(scores[j]), bool(truth[j]))
      heapq.heappush(self._class_heaps[j], pair)
      heapq.heappush(self._all_pairs, pair)
    for j in np.flatnonzero(truth):
      self._class_positives[j] += 1

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
  """Of (prediction, is positive) pairs, in a loop."""
  found, area = 0, 0.0
  ranked = sorted(pairs, key=lambda pair: pair[0], reverse=True)
  for rank, (_, is_positive) in enumerate(ranked, start=1):
    if is_positive:
      found += 1
      area += found / rank
  return area / num_positives if num_positives else 0.0
