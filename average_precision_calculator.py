"""Non-interpolated average precision, exact under ties, in bounded memory.

`AveragePrecisionCalculator` keeps the names of the YouTube-8M starter code.
`ScoreGroups` and `segmented_average_precision` do the work for any number of
segments at once: one for GAP, one a class for MAP.

Definition. Sort the pairs by descending score. With hits(i) the positives
among the first i pairs, and N the number of positives there are, retrieved or
not,

    AP@n = 1 / min(N, n) * sum over positive ranks i <= n of hits(i) / i

and 0 when N = 0 or there is no pair. Without n the sum has no end and the
divisor is N.

Ties. The starter code shuffles tied pairs with a global generator that it
re-seeds. Here AP is the exact expectation over all orders of tied pairs, so it
depends neither on chance nor on the order of arrival. Let a group of m tied
pairs, p of them positive, follow n0 pairs of which c0 are positive. The place
i of the group (rank n0 + i) holds a positive with probability p/m, and the
i - 1 places before it then hold (i-1)(p-1)/(m-1) positives on average. The
group adds

    1/N * sum over i = 1..m of p/m * (c0 + 1 + (i-1)(p-1)/(m-1)) / (n0 + i)

cut off at rank n. So all there is to know of a score is how many pairs have it
and how many of those are positive: a group.
"""

import numbers
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Pairs that wait, 4 MB of them, before they are sorted for the first time: the
# best 20 of each of 26,000 videos.
_MIN_PENDING = 1 << 19

# 1 + 1/2 + ... + 1/i for i = 0.._TABULATED.
_TABULATED = 64
_HARMONIC = np.concatenate(
  [[0.0], np.cumsum(1.0 / np.arange(1, _TABULATED + 1))]
)


class _Groups(NamedTuple):
  """Parallel arrays [G], one group of tied pairs a place."""

  segments: NDArray[np.integer]
  scores: NDArray[np.floating]
  counts: NDArray[np.integer]
  positives: NDArray[np.integer]


def as_floats(values: ArrayLike) -> NDArray:
  """Returns `values` as floats.

  float32 and float64 pass uncopied; float16 becomes float32, and everything
  else float64.

  Raises:
    ValueError: a value is not a number.
  """
  values = np.asarray(values)
  if values.dtype in (np.float32, np.float64):
    return values
  return values.astype(np.float32 if values.dtype == np.float16 else np.float64)


def as_scores(values: ArrayLike, name: str = "predictions") -> NDArray:
  """Returns `values` as floats (`as_floats`), of which none is NaN.

  Infinities are scores like any other.

  Raises:
    ValueError: a value is NaN or not a number.
  """
  scores = as_floats(values)
  # One NaN makes the maximum NaN, which takes half the time of looking at each.
  if np.isnan(np.max(scores, initial=-np.inf)):
    raise ValueError(
      f"{name} must not be NaN, got {np.count_nonzero(np.isnan(scores))} NaN "
      f"of {scores.size}."
    )
  return scores


def as_hits(values: ArrayLike) -> NDArray[np.bool_]:
  """Returns where `values` are > 0; bool passes uncopied."""
  hits = np.asarray(values)
  return hits if hits.dtype == bool else hits > 0


def as_counts(values: ArrayLike, name: str) -> NDArray[np.int64]:
  """Returns `values` as int64; sums of float labels count too.

  Raises:
    ValueError: a value is negative, fractional, infinite or not a number.
  """
  counts = np.asarray(values)
  if counts.dtype.kind not in "iuf" or not np.all(
    np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))
  ):
    raise ValueError(f"{name} must be whole and >= 0, got {values!r}.")
  return counts.astype(np.int64)


def _as_top_n(top_n: int | None) -> int | None:
  """Returns `top_n` as a plain int or None, or raises ValueError."""
  if top_n is None:
    return None
  if (
    not isinstance(top_n, numbers.Integral)
    or isinstance(top_n, bool)
    or top_n < 0
  ):
    raise ValueError(f"top_n must be None or an int >= 0, got {top_n!r}.")
  return int(top_n)


def _harmonic_difference(
  start: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.float64]:
  """Sums 1/i over start < i <= stop, to a few units in the last place.

  A difference of two running sums would lose digits at high ranks, and is
  multiplied by the rank afterwards. So ranks up to 64 come from a table, and
  the rest from the asymptotic series H(x) = ln x + γ + 1/(2x) - 1/(12x²) +
  1/(120x⁴) - 1/(252x⁶) + ..., whose logarithms are subtracted by log1p.
  """
  low = (
    _HARMONIC[np.minimum(stop, _TABULATED)]
    - _HARMONIC[np.minimum(start, _TABULATED)]
  )
  a = np.maximum(start, _TABULATED).astype(np.float64)
  b = np.maximum(stop, _TABULATED).astype(np.float64)

  def correction(x):
    y = 1.0 / (x * x)
    return 0.5 / x - y * (1 / 12 - y * (1 / 120 - y / 252))

  return low + np.log1p((b - a) / a) + (correction(b) - correction(a))


def _sum_before(
  values: NDArray, segments: NDArray[np.integer]
) -> NDArray[np.int64]:
  """Sums, for each place [G], the places before it in its segment."""
  before = np.cumsum(values, dtype=np.int64) - values
  is_first = np.ones(segments.size, bool)
  is_first[1:] = segments[1:] != segments[:-1]
  first = np.flatnonzero(is_first)
  sizes = np.diff(first, append=segments.size)
  return before - np.repeat(before[first], sizes)


def _by_score(groups: _Groups) -> _Groups:
  """Sorts by segment and descending score, fast if in a few sorted runs."""
  segments, scores = groups.segments, groups.scores
  # Complex numbers sort by real, then by imaginary part. Their type holds both
  # exactly: complex64 for uint16 and float32. The stable sort takes linear time
  # where one sorted run follows another.
  key = np.empty(
    scores.size, np.result_type(segments.dtype, scores.dtype, np.complex64)
  )
  key.real = segments
  key.imag = -scores
  order = np.argsort(key, kind="stable")
  return _Groups(*(column[order] for column in groups))


def _falling_bits(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
  """Bits of float32 as integers that rise as the numbers fall, and back."""
  return np.where(bits >> 31, bits, bits ^ 0x7FFFFFFF)


def _sorted_pairs(
  segments: NDArray[np.integer], scores: NDArray, hits: NDArray[np.bool_]
) -> _Groups:
  """Sorts pairs like `_by_score`, each as a group of its own.

  To sort integers takes numpy half the time of finding the order of floats. So
  segment, score and hit of a pair become one integer wherever they fit.
  """
  ones = np.ones(scores.size, np.uint8)
  if scores.dtype == np.float32 and segments.dtype.itemsize <= 2:
    keys = segments.astype(np.uint64) << 33
    keys |= _falling_bits(scores.view(np.uint32)).astype(np.uint64) << 1
    keys |= hits
    keys.sort()
    bits = _falling_bits((keys >> 1).astype(np.uint32))
    return _Groups(
      (keys >> 33).astype(segments.dtype),
      bits.view(np.float32),
      ones,
      (keys & 1).astype(np.uint8),
    )
  return _by_score(_Groups(segments, scores, ones, hits.view(np.uint8)))


def _grouped(groups: _Groups, top_n: int | None) -> _Groups:
  """Makes ties one group, of groups that are sorted.

  With `top_n`, groups that begin below rank `top_n` are dropped: they add
  nothing, and pairs that come later can only push them down.
  """
  segments, scores, counts, positives = groups
  is_first = np.ones(scores.size, bool)
  is_first[1:] = (segments[1:] != segments[:-1]) | (scores[1:] != scores[:-1])
  if not np.all(is_first):
    first = np.flatnonzero(is_first)
    groups = _Groups(
      segments[first],
      scores[first],
      np.add.reduceat(counts, first, dtype=np.int64),
      np.add.reduceat(positives, first, dtype=np.int64),
    )
  if top_n is None:
    return groups
  kept = _sum_before(groups.counts, groups.segments) < top_n
  return _Groups(*(column[kept] for column in groups))


def _average_precision(
  groups: _Groups, num_positives: NDArray[np.int64], top_n: int | None
) -> NDArray[np.float64]:
  """The definition at the top of this file, on groups out of `_grouped`."""
  # Groups without a positive add nothing, but count in the ranks of others.
  n0 = _sum_before(groups.counts, groups.segments)
  c0 = _sum_before(groups.positives, groups.segments)
  hit = np.flatnonzero(groups.positives)
  n0, c0 = n0[hit], c0[hit]
  m = groups.counts[hit].astype(np.int64)
  p = groups.positives[hit].astype(np.int64)

  # A pair that ties with none needs no series, and a plain quotient keeps a
  # perfect ranking at exactly 1.
  gain = (c0 + 1) / (n0 + 1)
  tied = np.flatnonzero(m > 1)
  m, p, n0, c0 = m[tied], p[tied], n0[tied], c0[tied]
  places = m if top_n is None else np.clip(top_n - n0, 0, m)
  # With r = (p-1)/(m-1) a term of the sum is
  # (c0 + 1 + (i-1) r) / (n0 + i) = r + (c0 + 1 - r (n0+1)) / (n0 + i).
  r = (p - 1) / (m - 1)
  gain[tied] = (
    p
    / m
    * (
      r * places
      + (c0 + 1 - r * (n0 + 1)) * _harmonic_difference(n0, n0 + places)
    )
  )

  total = np.bincount(
    groups.segments[hit], weights=gain, minlength=num_positives.size
  )
  divisor = num_positives if top_n is None else np.minimum(num_positives, top_n)
  return np.where(divisor > 0, total / np.maximum(divisor, 1), 0.0)


def segmented_average_precision(
  segments: ArrayLike,
  scores: ArrayLike,
  counts: ArrayLike,
  positives: ArrayLike,
  num_positives: ArrayLike,
  top_n: int | None = None,
) -> NDArray[np.float64]:
  """Computes the average precision of every segment, expected over ties.

  See the top of this file for the definition. Groups may come in any order
  and several groups may share a segment and a score.

  Args:
    segments: int [G], the segment of each group, in 0..S-1.
    scores: float [G], the score all pairs of the group have.
    counts: int [G], pairs in the group, >= 1.
    positives: int [G], positive pairs in the group, 0..counts.
    num_positives: int [S], positives that each segment has, retrieved or not.
      With fewer than were retrieved, the result may exceed 1, as in the
      starter code.
    top_n: int >= 0 or None, the last rank that counts.

  Returns:
    float64 [S]; 0.0 for a segment without positives or without groups.

  Raises:
    ValueError: shapes that differ, values out of range, or a NaN score.
  """
  top_n = _as_top_n(top_n)
  scores = as_scores(scores, "scores")
  segments = as_counts(segments, "segments")
  counts = as_counts(counts, "counts")
  positives = as_counts(positives, "positives")
  num_positives = as_counts(num_positives, "num_positives")
  shapes = [x.shape for x in (segments, scores, counts, positives)]
  if scores.ndim != 1 or len(set(shapes)) > 1:
    raise ValueError(
      "segments, scores, counts and positives must be of one shape [G], got "
      f"{shapes}."
    )
  if num_positives.ndim != 1:
    raise ValueError(
      f"num_positives must be of shape [S], got {num_positives.shape}."
    )
  if np.any(segments >= num_positives.size):
    raise ValueError(
      f"segments must be below S={num_positives.size}, got {segments.max()}."
    )
  if np.any(counts < 1) or np.any(positives > counts):
    raise ValueError(
      "Need counts >= 1 and positives <= counts, got "
      f"counts={counts}, positives={positives}."
    )
  groups = _by_score(_Groups(segments, scores, counts, positives))
  groups = _grouped(groups, top_n)
  return _average_precision(groups, num_positives, top_n)


class ScoreGroups:
  """Gathers scored pairs of many segments as groups of equal scores.

  Memory: the groups kept (with `top_n`, those that begin within the first
  `top_n` ranks of their segment: at most num_segments * top_n), and a buffer
  of about twice as many pending pairs. The buffer is sorted and merged into the
  groups when it is full, so any number of small batches costs a logarithmic
  number of passes over all pairs. Columns take the smallest integer type that
  holds them: eight bytes a group for float32 scores of up to 65,536 segments.
  """

  def __init__(self, num_segments: int, top_n: int | None = None):
    """Starts empty.

    Args:
      num_segments: int >= 1.
      top_n: int >= 0 or None, the last rank that will be asked for.

    Raises:
      ValueError: `num_segments` or `top_n` is no such number.
    """
    if num_segments < 1:
      raise ValueError(f"num_segments must be >= 1, got {num_segments}.")
    self._num_segments = num_segments
    self._top_n = _as_top_n(top_n)
    self.clear()

  def clear(self) -> None:
    """Forgets all pairs."""
    segment_type = np.min_scalar_type(self._num_segments - 1)
    self._groups = _Groups(
      np.zeros(0, segment_type),
      np.zeros(0, np.float32),
      np.zeros(0, np.uint8),
      np.zeros(0, np.uint8),
    )
    self._pending_segments = np.zeros(0, segment_type)
    self._pending_scores = np.zeros(0, np.float32)
    self._pending_hits = np.zeros(0, bool)
    self._num_pending = 0

  @property
  def num_groups(self) -> int:
    """Distinct pairs of a segment and a score that are kept."""
    self._compact()
    return self._groups.scores.size

  @property
  def num_pairs(self) -> int:
    """Pairs in the groups that are kept."""
    self._compact()
    return int(np.sum(self._groups.counts, dtype=np.int64))

  def add(
    self, segments: ArrayLike, scores: NDArray, hits: NDArray[np.bool_]
  ) -> None:
    """Adds pairs.

    Args:
      segments: int [N] or scalar, in 0..num_segments-1; checked by the caller.
      scores: float32 or float64 [N], not NaN (see `as_scores`).
      hits: bool [N], True for positives.
    """
    stop = self._num_pending + scores.size
    if stop > self._pending_scores.size:
      self._compact()
      stop = scores.size
      capacity = max(_MIN_PENDING, 2 * self._groups.scores.size + stop)
      if capacity > self._pending_scores.size:
        self._pending_segments = np.zeros(
          capacity, self._pending_segments.dtype
        )
        self._pending_scores = np.zeros(capacity, self._pending_scores.dtype)
        self._pending_hits = np.zeros(capacity, bool)
    # Widening float32 keeps ties as they are; narrowing float64 would not.
    if scores.dtype.itemsize > self._pending_scores.dtype.itemsize:
      self._pending_scores = self._pending_scores.astype(scores.dtype)
    place = slice(self._num_pending, stop)
    self._pending_segments[place] = segments
    self._pending_scores[place] = scores
    self._pending_hits[place] = hits
    self._num_pending = stop

  def average_precision(self, num_positives: ArrayLike) -> NDArray[np.float64]:
    """Returns AP of every segment given its positives, int [num_segments]."""
    self._compact()
    return _average_precision(
      self._groups, np.asarray(num_positives, np.int64), self._top_n
    )

  def _compact(self) -> None:
    """Merges the pending pairs into the groups."""
    if not self._num_pending:
      return
    new = slice(self._num_pending)
    groups = _sorted_pairs(
      self._pending_segments[new],
      self._pending_scores[new],
      self._pending_hits[new],
    )
    if self._groups.scores.size:
      columns = zip(self._groups, groups)
      groups = _by_score(_Groups(*map(np.concatenate, columns)))
    segments, scores, counts, positives = _grouped(groups, self._top_n)
    integer = np.min_scalar_type(np.max(counts, initial=0))
    self._groups = _Groups(
      segments, scores, counts.astype(integer), positives.astype(integer)
    )
    self._num_pending = 0


class AveragePrecisionCalculator:
  """Average precision of one ranking, gathered batch by batch.

  Tied predictions yield the expectation of AP over all their orders, exactly:
  m tied pairs, p of them positive, that follow n0 pairs with c0 positives add
  1/N * sum over i = 1..m of p/m * (c0 + 1 + (i-1)(p-1)/(m-1)) / (n0 + i), cut
  off at rank `top_n`. Nothing is drawn at random, and the order in which pairs
  arrive is immaterial. `ScoreGroups` tells what memory is used.
  """

  def __init__(self, top_n: int | None = None):
    """Starts empty.

    Args:
      top_n: int >= 0, the last rank that counts; None for all ranks.

    Raises:
      ValueError: a `top_n` that is neither.
    """
    self._groups = ScoreGroups(1, top_n)
    self._num_positives = 0

  @property
  def heap_size(self) -> int:
    """Pairs kept, named as in the starter code although there is no heap.

    With `top_n` this exceeds `top_n` only where ties run across that rank.
    """
    return self._groups.num_pairs

  @property
  def num_accumulated_positives(self) -> int:
    """Positives accumulated, retrieved or not."""
    return self._num_positives

  def accumulate(
    self,
    predictions: ArrayLike,
    actuals: ArrayLike,
    num_positives: int | None = None,
  ) -> None:
    """Adds a batch of pairs.

    Args:
      predictions: float [N], in any order.
      actuals: [N] of any numeric type; > 0 is a positive.
      num_positives: int >= 0, the positives there are, of which some may be
        missing from `actuals`; None counts `actuals`.

    Raises:
      ValueError: shapes that differ, a NaN prediction, or `num_positives`
        that is no such number. Nothing is accumulated then.
    """
    scores, hits = _as_pairs(predictions, actuals)
    if num_positives is None:
      num_positives = np.count_nonzero(hits)
    self._num_positives += _as_count(num_positives, "num_positives")
    self._groups.add(0, scores, hits)

  def peek_ap_at_n(self) -> float:
    """Returns AP@top_n of what was accumulated, in [0, 1]; 0.0 of nothing."""
    return float(self._groups.average_precision([self._num_positives])[0])

  def clear(self) -> None:
    """Forgets everything accumulated."""
    self._groups.clear()
    self._num_positives = 0

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
    """Returns AP@n, expected over the orders of tied predictions.

    Args:
      predictions: float [N], in any order.
      actuals: [N] of any numeric type; > 0 is a positive.
      n: int >= 1, the last rank that counts; None for all ranks.
      total_num_positives: int >= 0, the positives there are; None counts
        `actuals`.

    Returns:
      A float in [0, 1]; 0.0 without positives or without predictions.

    Raises:
      ValueError: shapes that differ, a NaN prediction, or a bad `n` or
        `total_num_positives`.
    """
    # As in the starter code, a calculator may keep no rank, a call may not.
    if n == 0:
      raise ValueError(f"n must be None or an int >= 1, got {n!r}.")
    calculator = AveragePrecisionCalculator(n)
    calculator.accumulate(predictions, actuals, total_num_positives)
    return calculator.peek_ap_at_n()


def _as_pairs(
  predictions: ArrayLike, actuals: ArrayLike
) -> tuple[NDArray, NDArray[np.bool_]]:
  """Returns float scores [N] and bool hits [N], or raises ValueError."""
  scores = as_scores(predictions)
  hits = as_hits(actuals)
  if scores.ndim != 1 or scores.shape != hits.shape:
    raise ValueError(
      "predictions and actuals must be of one shape [N], got "
      f"{scores.shape} and {hits.shape}."
    )
  return scores, hits


def _as_count(value: int, name: str) -> int:
  """Returns a scalar as an int >= 0, or raises ValueError."""
  count = as_counts(value, name)
  if count.ndim:
    raise ValueError(f"{name} must be a scalar, got shape {count.shape}.")
  return int(count)
