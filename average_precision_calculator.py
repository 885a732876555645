"""Non-interpolated average precision, exact under ties, in bounded memory.

Sort the pairs (of a score and whether it is a positive) by descending score.
With hits(i) the positives among the first i pairs, and N the number of
positives there are, retrieved or not,

    AP@n = 1 / min(N, n) * sum over positive ranks i <= n of hits(i) / i

and 0 when N = 0 or there is no pair. Without n, all ranks count, and the
divisor is N.

The starter code shuffles tied pairs at random. Here AP is the expectation over
all orders of tied pairs, so it depends neither on chance nor on the order of
arrival. Let m tied pairs, p of them positive, follow n0 pairs of which c0 are
positive. The i-th of them (rank n0 + i) is positive with probability p/m, and
the i - 1 before it then hold (i-1)(p-1)/(m-1) positives on average. It adds

    p/m * (c0 + 1 + (i-1)(p-1)/(m-1)) / (n0 + i)

to the sum. So all there is to know of a score is how many pairs have it and
how many of those are positive: a group.
"""

import numbers

import numpy as np
from numpy.typing import ArrayLike, NDArray

from records import score_groups


def as_scores(values: ArrayLike, name: str = "predictions") -> NDArray:
  """Returns `values` as float32 or float64; ValueError if one is NaN."""
  scores = np.asarray(values)
  if scores.dtype not in (np.float32, np.float64):
    scores = scores.astype(np.float64)
  if bad := np.count_nonzero(np.isnan(scores)):
    raise ValueError(f"{name} must not be NaN, got {bad} NaN of {scores.size}.")
  return scores


def as_counts(values: ArrayLike, name: str) -> NDArray[np.int64]:
  """Returns `values` as int64; ValueError unless all are whole and >= 0."""
  counts = np.asarray(values)
  if counts.dtype.kind not in "iuf" or not np.all(  # Sums of floats, too.
    np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))
  ):
    raise ValueError(f"{name} must be whole and >= 0, got {values!r}.")
  return counts.astype(np.int64)


def as_int(value: int, name: str, low: int) -> int:
  """Returns `value` as a plain int; ValueError unless it is an int >= low."""
  is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not is_int or value < low:
    raise ValueError(f"{name} must be an int >= {low}, got {value!r}.")
  return int(value)


def as_pairs(
  predictions: ArrayLike, actuals: ArrayLike, axes: str = "N", place: str = ""
) -> tuple[NDArray, NDArray[np.bool_]]:
  """Returns float scores and bool hits; ValueError unless they fit."""
  scores, hits = as_scores(predictions), np.asarray(actuals) > 0
  if scores.ndim != len(axes.split()) or scores.shape != hits.shape:
    raise ValueError(
      f"predictions and actuals must be of one shape [{axes}], got "
      f"{scores.shape} and {hits.shape}{place}."
    )
  return scores, hits


class Rankings:
  """Average precision of many rankings: one for GAP, one a class for MAP.

  Memory is bounded, see `score_groups.Groups`.
  """

  def __init__(self, num_rankings: int, top_n: int | None = None):
    """Starts empty; `top_n` is the last rank that counts, None for all."""
    self._top_n = None if top_n is None else as_int(top_n, "top_n", 0)
    self.num_positives = np.zeros(num_rankings, np.int64)
    self.clear()

  def clear(self) -> None:
    """Forgets everything accumulated."""
    self.num_positives[:] = 0
    self._groups = score_groups.Groups(self.num_positives.size, self._top_n)
    self._found: NDArray | None = None

  def add(
    self,
    rankings: ArrayLike,
    scores: NDArray,
    hits: NDArray[np.bool_],
    num_positives: ArrayLike,
  ) -> None:
    """Adds pairs; the caller has checked them.

    Args:
      rankings: int [N] or scalar, in 0..num_rankings-1.
      scores: float32 or float64 [N], not NaN.
      hits: bool [N], True for positives.
      num_positives: int [num_rankings], positives retrieved or not.
    """
    self.num_positives += np.asarray(num_positives, np.int64)
    self._found = None
    self._groups.add(rankings, scores, hits)

  def num_pairs(self) -> int:
    """Returns the number of pairs in the groups that are kept."""
    return self._groups.num_pairs()

  def average_precision(self) -> NDArray[np.float64]:
    """Returns AP@top_n of every ranking, 0.0 where there is no positive."""
    if self._found is None:  # Of a million videos this takes seconds.
      self._found = self._average_precision()
    return self._found.copy()

  def _average_precision(self) -> NDArray[np.float64]:
    count = self.num_positives
    total = np.zeros(count.size)
    before = np.zeros([2, count.size], np.int64)  # Pairs, positives.
    for rankings, _, *sums in self._groups.parts():
      total += self._gains(rankings, sums, before)
      for seen, column in zip(before, sums):
        np.add.at(seen, rankings, column)
    divisor = count if self._top_n is None else np.minimum(count, self._top_n)
    return np.where(divisor > 0, total / np.maximum(divisor, 1), 0.0)

  def _gains(self, rankings, sums, before):
    """What groups add to each ranking's sum, after others: [num_rankings]."""
    starts = [
      seen[rankings] + score_groups.sum_before(column, rankings)
      for seen, column in zip(before, sums)
    ]
    # Groups without a positive add nothing, but count in the ranks of others.
    hit = sums[1] > 0
    ranking, m, p, n0, c0 = (c[hit] for c in (rankings, *sums, *starts))
    places = m if self._top_n is None else np.minimum(m, self._top_n - n0)
    # The formula at the top, for all places i of all groups.
    group = np.repeat(np.arange(m.size), places)
    i = np.arange(1, group.size + 1) - (np.cumsum(places) - places)[group]
    earlier = (i - 1) * ((p - 1) / np.maximum(m - 1, 1))[group]
    gains = (p / m)[group] * (c0[group] + 1 + earlier) / (n0[group] + i)
    return np.bincount(ranking[group], gains, minlength=len(before[0]))


class AveragePrecisionCalculator:
  """Average precision of one ranking, gathered batch by batch."""

  def __init__(self, top_n: int | None = None):
    """Starts empty; `top_n` >= 0 is the last rank that counts, None for all."""
    self._rankings = Rankings(1, top_n)

  @property
  def heap_size(self) -> int:
    """Pairs kept: more than `top_n` only where ties run across that rank."""
    return self._rankings.num_pairs()

  @property
  def num_accumulated_positives(self) -> int:
    """Positives accumulated, retrieved or not."""
    return int(self._rankings.num_positives[0])

  def accumulate(
    self,
    predictions: ArrayLike,
    actuals: ArrayLike,
    num_positives: int | None = None,
  ) -> None:
    """Adds pairs, or raises ValueError and adds nothing.

    Args:
      predictions: float [N], not NaN, in any order.
      actuals: bool or numeric [N]; > 0 is a positive.
      num_positives: int >= 0, the positives there are, of which some may be
        missing from `actuals`; None counts `actuals`.
    """
    scores, hits = as_pairs(predictions, actuals)
    known = np.count_nonzero(hits) if num_positives is None else num_positives
    count = as_counts(known, "num_positives")
    if count.ndim:
      raise ValueError(f"num_positives must be a scalar, got {count.shape}.")
    self._rankings.add(0, scores, hits, count)

  def peek_ap_at_n(self) -> float:
    """Returns AP@top_n of what was accumulated, in [0, 1]; 0.0 of nothing."""
    return float(self._rankings.average_precision()[0])

  def clear(self) -> None:
    """Forgets everything accumulated."""
    self._rankings.clear()

  @staticmethod
  def ap(predictions: ArrayLike, actuals: ArrayLike) -> float:
    """Returns AP over all ranks; see `ap_at_n`."""
    return AveragePrecisionCalculator.ap_at_n(predictions, actuals, n=None)

  @staticmethod
  def ap_at_n(
    predictions: ArrayLike,
    actuals: ArrayLike,
    n: int | None = 20,
    total_num_positives: int | None = None,
  ) -> float:
    """Returns AP@n of the pairs, n >= 1 or None; see `accumulate`."""
    if n is not None:  # A calculator may keep no rank, a call may not.
      n = as_int(n, "n", 1)
    calculator = AveragePrecisionCalculator(n)
    calculator.accumulate(predictions, actuals, total_num_positives)
    return calculator.peek_ap_at_n()
