"""Tests of evaluation/eval_curves.py.

Axes: C classes, K predictions of a video.
"""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from evaluation import eval_curves

# Three videos of four classes, two predictions each. Class 2 is never one.
_BATCHES = [
  {
    "classes": np.array([[0, 1], [1, 0]]),
    "scores": np.array([[0.9, 0.5], [0.8, 0.2]]),
    "hits": np.array([[True, False], [True, True]]),
  },
  {
    "classes": np.array([[0, 3]]),
    "scores": np.array([[0.4, 0.3]]),
    "hits": np.array([[False, True]]),
  },
]
# Of class 3 one video more, whose score is not among the best.
_POSITIVES = np.array([2, 1, 0, 2])
_AP = np.array([0.8, 1.0, np.nan, 0.5])


def _curve(summary, tag):
  """{row: [thresholds]} of a PR curve, in the plugin's order."""
  (value,) = [v for v in summary.value if v.tag == f"PR/{tag}/pr_curves"]
  assert value.metadata.plugin_data.plugin_name == "pr_curves"
  rows = tf.make_ndarray(value.tensor)
  return dict(zip(("tp", "fp", "tn", "fn", "precision", "recall"), rows))


def test_curves_count_what_is_at_least_as_high_as_a_threshold():
  curves = eval_curves.Curves(4)
  for batch in _BATCHES:
    curves.add(batch)
  names = ("a", "b", "c", "x/y")
  found = curves.summary(_AP, _POSITIVES, names.__getitem__)
  aps = {v.tag: v.simple_value for v in found.value if "AP" in v.tag}
  assert aps == pytest.approx(
    {"per class AP/a": 0.8, "per class AP/b": 1.0, "per class AP/x-y": 0.5}
  )
  # At thresholds 0, 0.3 and 0.95: scores 0.9 and 0.2 of class 0 are right, 0.4
  # is wrong.
  of_a = _curve(found, "a")
  at = [0, 30, 95]
  assert [of_a[row][at].tolist() for row in ("tp", "fp", "tn", "fn")] == [
    [2, 1, 0],
    [1, 1, 0],
    [0, 0, 1],
    [0, 1, 2],
  ]
  np.testing.assert_allclose(of_a["precision"][at], [2 / 3, 1 / 2, 0])
  np.testing.assert_allclose(of_a["recall"][at], [1, 1 / 2, 0])
  # The label that no prediction retrieves is missed at every threshold.
  assert _curve(found, "x-y")["fn"][[0, 29, 31]].tolist() == [1, 1, 2]
  # All of 3 videos and 4 classes.
  of_all = _curve(found, "all")
  assert sum(of_all[row][0] for row in ("tp", "fp", "tn", "fn")) == 12
  assert of_all["recall"][0] == pytest.approx(4 / 5)


def test_of_very_many_classes_there_is_the_curve_of_all():
  curves = eval_curves.Curves(20_000)
  for batch in _BATCHES:
    curves.add(batch)
  positives = np.zeros(20_000, np.int64)
  positives[:4] = _POSITIVES
  found = curves.summary(np.full(20_000, np.nan), positives, str)
  assert [value.tag for value in found.value] == ["PR/all/pr_curves"]
  assert _curve(found, "all")["tp"][0] == 4
