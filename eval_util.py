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

Predictions are float [B, C] without NaN; labels are bool or numeric [B, C],
where > 0 is a positive.
"""

import numbers
from concurrent import futures

import numpy as np
from numpy.typing import ArrayLike, NDArray

import average_precision_calculator as ap_calculator
import mean_average_precision_calculator as map_calculator


def calculate_hit_at_one(predictions: ArrayLike, actuals: ArrayLike) -> float:
  """Returns the share of videos whose best class is a label, in [0, 1].

  Args:
    predictions: float [B, C].
    actuals: bool or numeric [B, C]; > 0 is a positive.

  Raises:
    ValueError: shapes that differ, are not [B, C] or are empty, or NaN.
  """
  predictions, actuals = _as_batch(predictions, actuals)
  predictions = ap_calculator.as_scores(predictions)
  best = np.argmax(predictions, axis=1)  # The lowest class among equals.
  return float(np.mean(actuals[np.arange(best.size), best]))


def calculate_precision_at_equal_recall_rate(
  predictions: ArrayLike, actuals: ArrayLike
) -> float:
  """Returns PERR: precision at as many predictions as a video has labels.

  As in the starter code, a label among these counts only if its prediction is
  positive.

  Args:
    predictions: float [B, C].
    actuals: bool or numeric [B, C]; > 0 is a positive.

  Returns:
    The mean over videos with labels, in [0, 1]; 0.0 if there is none.

  Raises:
    ValueError: shapes that differ, are not [B, C] or are empty, or NaN.
  """
  predictions, actuals = _as_batch(predictions, actuals)
  num_labels, _ = _count_labels(actuals)
  _, scores, hits = _top_pairs(predictions, actuals, num_labels.max())
  perr = _perr_per_video(scores, hits, num_labels)
  return _ratio(np.sum(perr[num_labels > 0]), np.count_nonzero(num_labels))


def calculate_gap(
  predictions: ArrayLike, actuals: ArrayLike, top_k: int = 20
) -> float:
  """Returns GAP: average precision of all videos' best pairs in one ranking.

  Args:
    predictions: float [B, C].
    actuals: bool or numeric [B, C]; > 0 is a positive.
    top_k: int >= 1, the pairs each video contributes; C if that is less.

  Returns:
    A float in [0, 1]; 0.0 without labels. Labels that no pair retrieves count
    as positives all the same.

  Raises:
    ValueError: shapes that differ, are not [B, C] or are empty, NaN, or a bad
      `top_k`.
  """
  predictions, actuals = _as_batch(predictions, actuals)
  _, scores, hits = _top_pairs(
    predictions, actuals, _as_k(top_k, "top_k", predictions.shape[1])
  )
  return ap_calculator.AveragePrecisionCalculator.ap_at_n(
    scores.ravel(),
    hits.ravel(),
    n=None,
    total_num_positives=np.count_nonzero(actuals),
  )


def top_k_by_class(
  predictions: ArrayLike, labels: ArrayLike, k: int = 20
) -> tuple[list[list[float]], list[list[bool]], list[int]]:
  """Takes the best pairs of each video and sorts them out by class.

  Args:
    predictions: float [B, C].
    labels: bool or numeric [B, C]; > 0 is a positive.
    k: int >= 1, the pairs each video contributes; C if that is less.

  Returns:
    Three lists of length C: the predictions of the class that were among the
    best of their video, in the order of videos; whether each is a positive;
    and the number of videos that have the class as a label, retrieved or not.

  Raises:
    ValueError: shapes that differ, are not [B, C] or are empty, NaN, or a bad
      `k`.
  """
  predictions, labels = _as_batch(predictions, labels)
  num_class = predictions.shape[1]
  classes, scores, hits = (
    pairs.ravel()
    for pairs in _top_pairs(predictions, labels, _as_k(k, "k", num_class))
  )
  by_class = np.argsort(classes, kind="stable")
  ends = np.cumsum(np.bincount(classes, minlength=num_class))[:-1]
  return (
    [part.tolist() for part in np.split(scores[by_class], ends)],
    [part.tolist() for part in np.split(hits[by_class], ends)],
    _count_labels(labels)[1].tolist(),
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
      top_k: int >= 1, the pairs each video contributes to GAP and MAP; C if
        that is less.
      top_n: int >= 0, the last rank of each class that counts in MAP; None
        for all ranks. GAP counts all ranks.

    Raises:
      ValueError: an argument is no such number.
    """
    self._map_calculator = map_calculator.MeanAveragePrecisionCalculator(
      num_class, top_n=top_n
    )
    self._gap_calculator = ap_calculator.AveragePrecisionCalculator()
    self._num_class = int(num_class)
    self._top_k = _as_k(top_k, "top_k", self._num_class)
    self.clear()

  def accumulate(
    self, predictions: ArrayLike, labels: ArrayLike, loss: ArrayLike
  ) -> dict[str, float]:
    """Adds a batch.

    Args:
      predictions: float [B, C].
      labels: bool or numeric [B, C]; > 0 is a positive.
      loss: float [B], or the mean of the batch as a scalar.

    Returns:
      `hit_at_one`, `perr` and `loss` of this batch. PERR is 0.0 where no video
      has labels.

    Raises:
      ValueError: shapes that differ, are empty or do not fit, or a NaN
        prediction. Nothing is accumulated then.
    """
    predictions, labels = _as_batch(predictions, labels)
    if predictions.shape[1] != self._num_class:
      raise ValueError(
        f"predictions must be of shape [B, {self._num_class}], got "
        f"{predictions.shape}."
      )
    num_labels, num_positives = _count_labels(labels)
    # One selection serves GAP, MAP and PERR: the first of PERR's and of K.
    classes, scores, hits = _top_pairs(
      predictions, labels, max(self._top_k, num_labels.max())
    )
    perr = _perr_per_video(scores, hits, num_labels)
    k = self._top_k
    return self.accumulate_top_k(
      classes[:, :k],
      scores[:, :k],
      hits[:, :k],
      num_labels,
      perr,
      loss,
      num_positives,
    )

  def accumulate_top_k(
    self,
    classes: ArrayLike,
    scores: ArrayLike,
    hits: ArrayLike,
    num_labels: ArrayLike,
    perr: ArrayLike,
    loss: ArrayLike,
    num_positives: ArrayLike,
  ) -> dict[str, float]:
    """Adds a batch of which only the best pairs of each video are left.

    K is top_k, or C if that is less.

    Args:
      classes: int [B, K], in 0..C-1, in descending order of their scores, the
        lower class first among equals.
      scores: float [B, K], descending.
      hits: bool or numeric [B, K]; > 0 where the class is a label.
      num_labels: int [B], labels of each video, retrieved or not.
      perr: float [B] in [0, 1], precision of each video among its best
        num_labels classes; any value, NaN too, where num_labels is 0.
      loss: float [B], or the mean of the batch as a scalar.
      num_positives: int [C], videos of this batch that have the class as a
        label.

    Returns:
      `hit_at_one`, `perr` and `loss` of this batch. PERR is 0.0 where no video
      has labels.

    Raises:
      ValueError: shapes that do not fit, values out of range or at odds with
        each other, or a NaN score. Nothing is accumulated then.
    """
    classes = np.asarray(classes)
    scores = ap_calculator.as_scores(scores, "scores")
    hits = ap_calculator.as_hits(hits)
    num_labels = ap_calculator.as_counts(num_labels, "num_labels")
    num_positives = ap_calculator.as_counts(num_positives, "num_positives")
    perr = np.asarray(perr, np.float64)
    loss = np.asarray(loss, np.float64)

    num_videos = len(scores) if scores.ndim else 0
    if num_videos == 0:
      raise ValueError(f"Need B >= 1 videos, got scores of {scores.shape}.")
    pairs_shape = (num_videos, self._top_k)
    for name, array, shapes in (
      ("classes", classes, [pairs_shape]),
      ("scores", scores, [pairs_shape]),
      ("hits", hits, [pairs_shape]),
      ("num_labels", num_labels, [(num_videos,)]),
      ("perr", perr, [(num_videos,)]),
      ("loss", loss, [(), (num_videos,)]),
      ("num_positives", num_positives, [(self._num_class,)]),
    ):
      if array.shape not in shapes:
        raise ValueError(
          f"{name} must be of shape {' or '.join(map(str, shapes))}, got "
          f"{array.shape}."
        )
    if np.any(scores[:, 1:] > scores[:, :-1]):
      raise ValueError("scores must descend within each video.")
    retrieved = np.count_nonzero(hits, axis=1)
    if np.any(retrieved > num_labels):
      video = np.argmax(retrieved > num_labels)
      raise ValueError(
        f"Video {video} has {retrieved[video]} hits, but num_labels is "
        f"{num_labels[video]}."
      )
    total_labels = int(np.sum(num_labels))
    if np.sum(num_positives) != total_labels:
      raise ValueError(
        "num_positives and num_labels must sum to the same, got "
        f"{np.sum(num_positives)} and {total_labels}."
      )
    perr = perr[num_labels > 0]
    # A graph that multiplies by 1/num_labels in float32 may end just above 1.
    is_share = (perr >= 0) & (perr <= 1 + 1e-6)
    if not np.all(is_share):
      raise ValueError(
        f"perr must be in [0, 1] where there are labels, got {perr[~is_share]}."
      )

    self._map_calculator.accumulate_pairs(
      classes.ravel(), scores.ravel(), hits.ravel(), num_positives
    )
    self._gap_calculator.accumulate(scores.ravel(), hits.ravel(), total_labels)
    sum_hit_at_one = int(np.count_nonzero(hits[:, 0]))
    sum_perr = float(np.sum(perr))
    sum_loss = float(np.sum(loss) if loss.ndim else loss * num_videos)
    self._num_videos += num_videos
    self._num_labelled += perr.size
    self._sum_hit_at_one += sum_hit_at_one
    self._sum_perr += sum_perr
    self._sum_loss += sum_loss
    return {
      "hit_at_one": sum_hit_at_one / num_videos,
      "perr": _ratio(sum_perr, perr.size),
      "loss": sum_loss / num_videos,
    }

  def get(self) -> dict[str, float | list[float]]:
    """Returns the metrics of everything accumulated.

    Returns:
      `avg_hit_at_one`, over all videos; `avg_perr`, over videos with labels,
      0.0 if there is none; `avg_loss`; `aps`, a list of the average precision
      of each class that has positives, in class order; and `gap`. All but the
      loss are in [0, 1].

    Raises:
      ValueError: nothing was accumulated.
    """
    if self._num_videos == 0:
      raise ValueError("No metrics: no video was accumulated.")
    # Each sorts its pairs, which numpy does without holding Python's lock.
    with futures.ThreadPoolExecutor(1) as threads:
      aps = threads.submit(self._map_calculator.peek_map_at_n)
      gap = self._gap_calculator.peek_ap_at_n()
    return {
      "avg_hit_at_one": self._sum_hit_at_one / self._num_videos,
      "avg_perr": _ratio(self._sum_perr, self._num_labelled),
      "avg_loss": self._sum_loss / self._num_videos,
      "aps": aps.result(),
      "gap": gap,
    }

  def clear(self) -> None:
    """Forgets everything accumulated."""
    self._map_calculator.clear()
    self._gap_calculator.clear()
    self._num_videos = 0
    self._num_labelled = 0
    self._sum_hit_at_one = 0
    self._sum_perr = 0.0
    self._sum_loss = 0.0


def _as_batch(
  predictions: ArrayLike, labels: ArrayLike
) -> tuple[NDArray, NDArray[np.bool_]]:
  """Returns float and bool [B, C], B and C >= 1, or raises ValueError."""
  predictions = ap_calculator.as_floats(predictions)
  labels = ap_calculator.as_hits(labels)
  if predictions.ndim != 2 or predictions.shape != labels.shape:
    raise ValueError(
      "predictions and labels must be of one shape [B, C], got "
      f"{predictions.shape} and {labels.shape}."
    )
  if not predictions.size:
    raise ValueError(
      f"Need B >= 1 videos and C >= 1 classes, got {predictions.shape}."
    )
  return predictions, labels


def _as_k(k: int, name: str, num_class: int) -> int:
  """Returns k, at most num_class, or raises ValueError if it is no int >= 1."""
  if not isinstance(k, numbers.Integral) or isinstance(k, bool) or k < 1:
    raise ValueError(f"{name} must be an int >= 1, got {k!r}.")
  return min(int(k), num_class)


def _ratio(total: float, count: int) -> float:
  return float(total) / count if count else 0.0


def _count_labels(
  labels: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
  """Counts labels, bool [B, C], by video [B] and by class [C]."""
  num_videos, num_class = labels.shape
  # One pass finds the few that there are; two passes would add up all places.
  videos, classes = np.divmod(np.flatnonzero(labels), num_class)
  return (
    np.bincount(videos, minlength=num_videos),
    np.bincount(classes, minlength=num_class),
  )


def _top_pairs(
  predictions: NDArray, labels: NDArray[np.bool_], k: int
) -> tuple[NDArray[np.intp], NDArray, NDArray[np.bool_]]:
  """Selects the k best classes of each video, the lower first among equals.

  Args:
    predictions: float [B, C].
    labels: bool [B, C].
    k: int in 0..C.

  Returns:
    Classes, scores and hits, each [B, k], in descending order of scores.

  Raises:
    ValueError: a prediction is NaN.
  """
  if k == 0:
    ap_calculator.as_scores(predictions)  # Looks for NaN.
    empty = np.zeros([len(predictions), 0], np.intp)
    return empty, empty.astype(predictions.dtype), empty.astype(bool)
  videos, classes = _candidates(predictions, k)
  counts = np.bincount(videos)
  # [B, M], M the most candidates of a video. Padding is to the right of them,
  # and the sort is stable: even a score of minus infinity comes before it.
  is_candidate = np.arange(counts.max()) < counts[:, None]
  candidates = np.zeros(is_candidate.shape, np.intp)
  candidates[is_candidate] = classes
  keys = np.full(is_candidate.shape, np.inf, predictions.dtype)
  keys[is_candidate] = -predictions[videos, classes]
  order = np.argsort(keys, axis=1, kind="stable")[:, :k]
  classes = np.take_along_axis(candidates, order, axis=1)
  return (
    classes,
    -np.take_along_axis(keys, order, axis=1),
    np.take_along_axis(labels, classes, axis=1),
  )


def _candidates(
  predictions: NDArray, k: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
  """Finds the k best classes of each video, and perhaps a few more.

  Args:
    predictions: float [B, C].
    k: int in 1..C.

  Returns:
    Videos and classes, each [N] with k or more of every video, in ascending
    order. Classes left out come after k of these, the lower first among equals.
  """
  least = _bound_top(predictions, k)
  selected = predictions >= least  # [B, C]
  num_class = predictions.shape[1]
  # np.nonzero takes ten times as long where few are selected.
  videos, classes = np.divmod(np.flatnonzero(selected), num_class)
  num_selected = np.bincount(videos)
  tied_videos = np.flatnonzero(num_selected > 2 * k)
  if not tied_videos.size:
    return videos, classes
  # Ties may select nearly all: keep the lowest classes among those.
  for video in tied_videos:
    tied = np.flatnonzero(predictions[video] == least[video])
    num_better = num_selected[video] - tied.size
    selected[video, tied[max(0, k - num_better) :]] = False
  return np.divmod(np.flatnonzero(selected), num_class)


def _bound_top(predictions: NDArray, k: int) -> NDArray:
  """Bounds the k-th best score of each video from below, and closely.

  Classes are dealt out to blocks. The best k of the blocks' maxima are k scores
  of the video, so that its k-th best score is no less than the least of them.

  Args:
    predictions: float [B, C].
    k: int in 1..C.

  Returns:
    float [B, 1].

  Raises:
    ValueError: a prediction is NaN.
  """
  num_class = predictions.shape[1]
  # Sixteenths leave few maxima to look through and hardly more than k classes
  # above the bound. Neighbours, often good together, go to different blocks.
  block_size = max(1, min(16, num_class // (2 * k)))
  num_blocks = num_class // block_size
  dealt = predictions[:, : num_blocks * block_size]
  maxima = dealt.reshape([-1, block_size, num_blocks]).max(axis=1)
  place = num_blocks - k
  ranked = np.partition(maxima, place, axis=1)
  # NaN is the maximum of whatever it is in, and ranks above all numbers.
  left_over = predictions[:, num_blocks * block_size :]
  if np.any(np.isnan(ranked[:, place:])) or np.any(np.isnan(left_over)):
    raise ValueError("predictions must not be NaN.")
  return ranked[:, place, None]


def _perr_per_video(
  scores: NDArray, hits: NDArray[np.bool_], num_labels: NDArray[np.integer]
) -> NDArray[np.float64]:
  """Computes each video's precision among its first num_labels pairs.

  Args:
    scores: float [B, K], descending, K at least the largest of num_labels.
    hits: bool [B, K].
    num_labels: int [B].

  Returns:
    float64 [B]; 0.0 for a video without labels.
  """
  counted = np.arange(scores.shape[1]) < num_labels[:, None]
  num_hits = np.count_nonzero(hits & counted & (scores > 0), axis=1)
  return num_hits / np.maximum(num_labels, 1)
