"""Metrics of video classification: Hit@1, PERR, GAP and MAP.

Axes: B videos, C classes, K the pairs of a class and a score kept per video.

Names and definitions are those of the YouTube-8M starter code, with the cases
that it leaves open settled so:

- Among equal scores of one video the lower class comes first, as in
  `tf.math.top_k`. Across videos, ties in GAP and MAP yield the expectation
  over their orders (see `average_precision_calculator`).
- A video without labels is a miss in Hit@1. PERR is not defined for it, so
  it is left out of the average; the starter code counts it as 0.
- No global random state is read or written.

Throughout, predictions are float [B, C] without NaN; labels and actuals are
bool or numeric [B, C], where > 0 is a positive. Shapes that differ, are not
[B, C] or are empty, NaN, and arguments out of range raise ValueError.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

import average_precision_calculator as ap_calculator


def calculate_hit_at_one(predictions: ArrayLike, actuals: ArrayLike) -> float:
  """Returns the share of videos whose best class is a label, in [0, 1]."""
  predictions, actuals = _as_batch(predictions, actuals)
  best = np.argmax(predictions, axis=1)  # The lowest class among equals.
  return float(np.mean(actuals[np.arange(best.size), best]))


def calculate_precision_at_equal_recall_rate(
  predictions: ArrayLike, actuals: ArrayLike
) -> float:
  """Returns PERR: precision at as many predictions as a video has labels.

  As in the starter code, a label among these counts only if its prediction is
  positive. The mean is over videos with labels, 0.0 if there is none.
  """
  predictions, actuals = _as_batch(predictions, actuals)
  num_labels = np.count_nonzero(actuals, axis=1)
  _, scores, hits = _top_pairs(predictions, actuals, num_labels.max())
  perr = _perr_per_video(scores, hits, num_labels)
  return _ratio(np.sum(perr), np.count_nonzero(num_labels))


def calculate_gap(
  predictions: ArrayLike, actuals: ArrayLike, top_k: int = 20
) -> float:
  """Returns GAP: average precision of all videos' best `top_k` pairs pooled.

  Labels that no pair retrieves count all the same. 0.0 without labels.
  """
  predictions, actuals = _as_batch(predictions, actuals)
  top_k = ap_calculator.as_int(top_k, "top_k", 1)
  _, scores, hits = _top_pairs(predictions, actuals, top_k)
  return ap_calculator.AveragePrecisionCalculator.ap_at_n(
    scores.ravel(), hits.ravel(), None, np.count_nonzero(actuals)
  )


def top_k_by_class(
  predictions: ArrayLike, labels: ArrayLike, k: int = 20
) -> tuple[list[list[float]], list[list[bool]], list[int]]:
  """Takes the `k` best pairs of each video and sorts them out by class.

  Returns:
    Three lists of length C: the predictions of the class that were among the
    best of their video, in the order of videos; whether each is a positive;
    and the number of videos that have the class as a label, retrieved or not.
  """
  predictions, labels = _as_batch(predictions, labels)
  k = ap_calculator.as_int(k, "k", 1)
  classes, scores, hits = _top_pairs(predictions, labels, k)
  of_class = [classes == c for c in range(predictions.shape[1])]
  return (
    [scores[where].tolist() for where in of_class],
    [hits[where].tolist() for where in of_class],
    np.count_nonzero(labels, axis=0).tolist(),
  )


class EvaluationMetrics:
  """All metrics of an evaluation, gathered batch by batch.

  A batch comes whole (`accumulate`) or as what `tf.math.top_k` leaves of it
  (`accumulate_top_k`), and both ways yield the same numbers. Batches weigh by
  their videos: how an evaluation is split does not matter.
  """

  def __init__(self, num_class: int, top_k: int, top_n: int | None):
    """Starts empty.

    Args:
      num_class: int >= 2, C.
      top_k: int >= 1, the pairs each video contributes to GAP and MAP.
      top_n: int >= 0, the last rank of each class that counts in MAP, or None.
    """
    self._num_class = ap_calculator.as_int(num_class, "num_class", 2)
    self._top_k = min(ap_calculator.as_int(top_k, "top_k", 1), self._num_class)
    self._of_class = ap_calculator.Rankings(self._num_class, top_n)
    self._of_all = ap_calculator.Rankings(1)
    self.clear()

  def accumulate(
    self, predictions: ArrayLike, labels: ArrayLike, loss: ArrayLike
  ) -> dict[str, float]:
    """Adds a whole batch; `loss`, what it returns and raises as below."""
    predictions, labels = _as_batch(predictions, labels)
    shape = predictions.shape
    if shape[1] != self._num_class:
      raise ValueError(f"Need C={self._num_class} classes, got {shape}.")
    num_labels = np.count_nonzero(labels, axis=1)
    k = self._top_k  # One selection serves GAP, MAP and PERR.
    pairs = _top_pairs(predictions, labels, max(k, num_labels.max()))
    classes, scores, hits = pairs
    return self.accumulate_top_k(
      classes[:, :k],
      scores[:, :k],
      hits[:, :k],
      num_labels,
      _perr_per_video(scores, hits, num_labels),
      loss,
      np.count_nonzero(labels, axis=0),
    )

  def accumulate_top_k(
    self, classes, scores, hits, num_labels, perr, loss, num_positives
  ):
    """Adds a batch of which only the best K = min(top_k, C) pairs are left.

    Args:
      classes: int [B, K], in descending order of their scores, the lower class
        first among equals.
      scores: float [B, K], descending.
      hits: bool or numeric [B, K]; > 0 where the class is a label.
      num_labels: int [B], labels of each video, retrieved or not.
      perr: float [B] in [0, 1], precision of each video among its best
        num_labels classes; any value, NaN too, where num_labels is 0.
      loss: float [B], or the mean of the batch as a scalar.
      num_positives: int [C], videos of this batch that have each class.

    Returns:
      `hit_at_one`, `perr` (0.0 if no video has labels) and `loss` of the batch.

    Raises:
      ValueError: arguments that do not fit. Nothing is accumulated then.
    """
    classes, hits = np.asarray(classes), np.asarray(hits) > 0
    scores = ap_calculator.as_scores(scores, "scores")
    num_labels = ap_calculator.as_counts(num_labels, "num_labels")
    num_positives = ap_calculator.as_counts(num_positives, "num_positives")
    perr, loss = np.asarray(perr, np.float64), np.asarray(loss, np.float64)
    b = len(scores) if scores.ndim else 0
    if b == 0:
      raise ValueError(f"Need B >= 1 videos, got scores of {scores.shape}.")
    loss = np.full(b, loss) if loss.ndim == 0 else loss
    for name, array, shape in (
      ("classes", classes, (b, self._top_k)),
      ("scores", scores, (b, self._top_k)),
      ("hits", hits, (b, self._top_k)),
      ("num_labels", num_labels, (b,)),
      ("perr", perr, (b,)),
      ("loss", loss, (b,)),
      ("num_positives", num_positives, (self._num_class,)),
    ):
      if array.shape != shape:
        raise ValueError(f"{name} must be of {shape}, got {array.shape}.")
    perr = perr[num_labels > 0]
    self._check(classes, scores, hits, num_labels, perr, num_positives)

    pairs = scores.ravel(), hits.ravel()
    self._of_class.add(classes.ravel(), *pairs, num_positives)
    self._of_all.add(0, *pairs, np.sum(num_labels))
    # Sums and counts, of which `get` and this batch have the means.
    batch = {
      "hit_at_one": (np.count_nonzero(hits[:, 0]), b),
      "perr": (np.sum(perr), perr.size),
      "loss": (np.sum(loss), b),
    }
    for name, values in batch.items():
      self._totals[name] += values
    return {name: _ratio(*values) for name, values in batch.items()}

  def _check(self, classes, scores, hits, num_labels, perr, num_positives):
    """Raises ValueError if values are out of range or at odds."""
    low, high, last = classes.min(), classes.max(), self._num_class - 1
    excess = np.count_nonzero(hits, axis=1) - num_labels
    sums = np.sum(num_positives), np.sum(num_labels)
    # A graph that multiplies by 1/num_labels in float32 may end just above 1.
    no_share = perr[~((perr >= 0) & (perr <= 1 + 1e-6))]
    message = None
    if classes.dtype.kind not in "iu" or low < 0 or high > last:
      message = f"classes must be ints in 0..{last}, got {low}..{high}."
    elif np.any(scores[:, 1:] > scores[:, :-1]):
      message = "scores must descend within each video."
    elif np.any(excess > 0):
      message = f"Video {np.argmax(excess > 0)} has more hits than num_labels."
    elif sums[0] != sums[1]:
      message = f"Sums of num_positives and num_labels differ: {sums}."
    elif no_share.size:
      message = f"perr of videos with labels must be in [0, 1]: {no_share}."
    if message:
      raise ValueError(message)

  def get(self) -> dict[str, float | list[float]]:
    """Returns the metrics of everything accumulated; ValueError of nothing.

    They are `avg_hit_at_one`, over all videos; `avg_perr`, over videos with
    labels, 0.0 if there is none; `avg_loss`; `aps`, the average precision of
    each class that has positives, in class order; and `gap`.
    """
    if self._totals["loss"][1] == 0:
      raise ValueError("No metrics: no video was accumulated.")
    aps, _ = self.by_class()
    return {
      **{f"avg_{name}": _ratio(*v) for name, v in self._totals.items()},
      "aps": aps[~np.isnan(aps)].tolist(),
      "gap": float(self._of_all.average_precision()[0]),
    }

  def by_class(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns average precision and number of positives of each class, [C].

    The former is NaN where the latter is 0.
    """
    positives = self._of_class.num_positives.copy()
    aps = self._of_class.average_precision()
    return np.where(positives > 0, aps, np.nan), positives

  def clear(self) -> None:
    """Forgets everything accumulated."""
    self._of_class.clear()
    self._of_all.clear()
    self._totals = {n: np.zeros(2) for n in ("hit_at_one", "perr", "loss")}


def _as_batch(
  predictions: ArrayLike, labels: ArrayLike
) -> tuple[NDArray, NDArray[np.bool_]]:
  """Returns float and bool [B, C], B and C >= 1, or raises ValueError."""
  predictions, labels = ap_calculator.as_pairs(predictions, labels, "B, C")
  if not predictions.size:
    raise ValueError(f"Need B >= 1 and C >= 1, got {predictions.shape}.")
  return predictions, labels


def _ratio(total: float, count: int) -> float:
  return float(total / count) if count else 0.0


def _top_pairs(
  predictions: NDArray, labels: NDArray[np.bool_], k: int
) -> tuple[NDArray[np.intp], NDArray, NDArray[np.bool_]]:
  """Selects the k best classes of each video, the lower first among equals.

  At least 1, at most C. Returns classes, descending scores and hits, [B, k].
  """
  num_class = predictions.shape[1]
  k = min(max(k, 1), num_class)
  least = np.partition(predictions, num_class - k)[:, num_class - k, None]
  better, equal = predictions > least, predictions == least
  wanted = k - np.count_nonzero(better, axis=1)
  chosen = better | (equal & (np.cumsum(equal, axis=1) <= wanted[:, None]))
  classes = np.nonzero(chosen)[1].reshape([-1, k])  # Ascending.
  scores = np.take_along_axis(predictions, classes, axis=1)
  order = np.argsort(-scores, axis=1, kind="stable")
  scores = np.take_along_axis(scores, order, axis=1)
  classes = np.take_along_axis(classes, order, axis=1)
  return classes, scores, np.take_along_axis(labels, classes, axis=1)


def _perr_per_video(
  scores: NDArray, hits: NDArray[np.bool_], num_labels: NDArray[np.integer]
) -> NDArray[np.float64]:
  """Returns PERR of each video out of max(num_labels) pairs; 0.0 of none."""
  counted = np.arange(scores.shape[1]) < num_labels[:, None]
  num_hits = np.count_nonzero(hits & counted & (scores > 0), axis=1)
  return num_hits / np.maximum(num_labels, 1)
