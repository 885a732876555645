"""TensorBoard's view of single classes: average precision, PR curves.

Axes: C classes, K predictions kept of each video, N thresholds.
"""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from tensorboard.plugins.pr_curve import summary as pr_curve

# N: 0, 0.01 ... 1.
_THRESHOLDS = 101
# Classes that are shown on their own: those that most videos have.
_SHOWN = 20
# Beyond so many, counts of each class are not worth their memory (16 MB).
_MAX_CLASSES = 10_000


class Curves:
  """Counts hits and misses by score, of each class and of all.

  A video's classes that are not among its K predictions count as below every
  threshold.
  """

  def __init__(self, num_classes: int):
    """Starts empty.

    Args:
      num_classes: int, C; of more than 10,000 there is the curve of all alone.
    """
    self._num_classes = num_classes
    self._rows = num_classes if num_classes <= _MAX_CLASSES else 1
    self._counts: NDArray = np.zeros([2, self._rows, _THRESHOLDS], np.int64)
    self._num_videos = 0

  def add(self, metrics: Mapping[str, NDArray]) -> None:
    """Adds a batch, what `predictor.batch_metrics` says of it."""
    scores, hits = metrics["scores"], metrics["hits"] > 0
    self._num_videos += len(scores)
    rated = np.isfinite(scores)  # All, but in segments.
    rows = metrics["classes"][rated] if self._rows > 1 else 0
    bins = np.floor(np.clip(scores[rated], 0, 1) * (_THRESHOLDS - 1))
    places = rows * _THRESHOLDS + bins.astype(np.int64)
    for i, chosen in enumerate((hits[rated], ~hits[rated])):
      self._counts[i] += np.bincount(
        places[chosen], minlength=self._rows * _THRESHOLDS
      ).reshape([self._rows, _THRESHOLDS])

  def summary(
    self,
    average_precision: NDArray,
    positives: NDArray,
    name: Callable[[int], str],
    kind: str = "",
  ) -> tf.Summary:
    """`per class AP/NAME` and `PR/NAME` of the commonest classes, `PR/all`.

    Args:
      average_precision: float64 [C].
      positives: int64 [C], videos that have the class.
      name: function of a class, its name.
      kind: str, of the data, see `events.common`.
    """
    found = tf.Summary()
    total = self._num_videos * self._num_classes
    self._add(
      found, f"PR{kind}/all", self._counts.sum(axis=1), positives.sum(), total
    )
    if self._rows == 1:
      return found
    order = np.argsort(-positives, kind="stable")[:_SHOWN]
    for i in order[positives[order] > 0]:
      tag = name(int(i)).replace("/", "-")
      found.value.add(
        tag=f"per class AP{kind}/{tag}", simple_value=average_precision[i]
      )
      tag = f"PR{kind}/{tag}"
      self._add(found, tag, self._counts[:, i], positives[i], self._num_videos)
    return found

  def _add(self, found, tag, counts, positives, total):
    """Adds a curve to a summary."""
    # At least so high: sums from the right.
    tp, fp = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    curve = pr_curve.raw_data_pb(
      tag,
      true_positive_counts=tp,
      false_positive_counts=fp,
      true_negative_counts=total - positives - fp,
      false_negative_counts=positives - tp,
      precision=tp / np.maximum(tp + fp, 1),
      recall=tp / max(positives, 1),
      num_thresholds=_THRESHOLDS,
    )
    found.MergeFromString(curve.SerializeToString())
