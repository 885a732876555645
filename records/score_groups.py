"""Scores by the million, sorted, in bounded memory.

A group is all pairs (of a score and whether it is a positive) that have one
score in one ranking. Of G groups there are four columns, [G] each.
"""

import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Of a group: whose, its score, how many pairs have it, how many are positive.
_COLUMNS = ("ranking", "score", "pairs", "positives")
# Pairs that wait before they are sorted (the best 20 of 26,000 videos), and
# groups that are read at once, about.
_MIN_PENDING = 1 << 19
# Bytes of sorted pairs beyond which they lie on disk.
_MAX_BYTES = 1 << 25
# Of sorted pairs every so many's score stays in memory.
_STRIDE = 1 << 12


def _grouped(columns: list[NDArray], by_score: bool) -> list[NDArray]:
  """Groups of equal ranking and score, `_COLUMNS` each.

  Args:
    columns: the same of pairs or groups, in any order.
    by_score: bool, whether to sort by descending score; else by ranking, and
      those of one ranking by descending score.
  """
  keys = [columns[0], -columns[1]]
  order = np.lexsort(keys if by_score else keys[::-1])
  rankings, scores, *sums = (column[order] for column in columns)
  is_first = np.ones(scores.size, bool)
  is_first[1:] = (rankings[1:] != rankings[:-1]) | (scores[1:] != scores[:-1])
  first = np.flatnonzero(is_first)
  if first.size:
    sums = [np.add.reduceat(s, first, dtype=np.int64) for s in sums]
  small = np.min_scalar_type(max(np.max(s, initial=0) for s in sums))
  return [rankings[first], scores[first], *(s.astype(small) for s in sums)]


class _Run(NamedTuple):
  """Where sorted groups lie in a file.

  Attributes:
    offset: int, in bytes.
    dtype: of a group.
    num_groups: int.
    scores: float64, every `_STRIDE`-th group's.
  """

  offset: int
  dtype: np.dtype
  num_groups: int
  scores: NDArray


class _Runs:
  """Groups by descending score, in a temporary file once they are many."""

  def __init__(self) -> None:
    self._file = tempfile.SpooledTemporaryFile(max_size=_MAX_BYTES)
    self._runs: list[_Run] = []

  def add(self, columns: list[NDArray]) -> None:
    """Keeps groups, sorted by descending score."""
    rows = np.empty(
      len(columns[0]), [(n, c.dtype) for n, c in zip(_COLUMNS, columns)]
    )
    for name, column in zip(_COLUMNS, columns):
      rows[name] = column
    scores = columns[1][::_STRIDE].astype(np.float64)
    offset = self._file.seek(0, 2)
    self._runs.append(_Run(offset, rows.dtype, rows.size, scores))
    self._file.write(rows.tobytes())

  def parts(self) -> Iterator[list[NDArray]]:
    """All groups, in columns of bounded size; no part has a later one's score.

    The same group may come from several runs.
    """
    scores = np.concatenate([[], *(run.scores for run in self._runs)])
    bounds = np.unique(-scores)[:: max(_MIN_PENDING // _STRIDE, 1)]
    done = [0] * len(self._runs)
    for bound in [*-bounds, -np.inf]:
      parts = []
      for number, run in enumerate(self._runs):
        rows = self._read(run, done[number], bound)
        done[number] += rows.size
        parts.append([rows[name] for name in _COLUMNS])
      if parts:
        yield [np.concatenate(column) for column in zip(*parts)]

  def _read(self, run: _Run, first: int, bound: float) -> NDArray:
    """A run's groups from one on, whose scores are not below a bound."""
    end = int(np.searchsorted(-run.scores, -bound, side="right")) * _STRIDE
    count = max(0, min(end, run.num_groups) - first)
    size = run.dtype.itemsize
    self._file.seek(run.offset + first * size)
    rows = np.frombuffer(self._file.read(count * size), run.dtype)
    return rows[rows["score"] >= bound]


class Groups:
  """The groups of many rankings.

  Memory is bounded: with `top_n` only what is within the first `top_n` ranks is
  kept; without, eight bytes for each distinct float32 score of each ranking go
  to a temporary file. New pairs wait, and are sorted when they are many: small
  batches rarely are.
  """

  def __init__(self, num_rankings: int, top_n: int | None):
    """Starts empty; `top_n` is the last rank that counts, None for all."""
    self._top_n = top_n
    types = (np.min_scalar_type(num_rankings - 1), np.float32, "u1", "u1")
    # With `top_n`, sorted by ranking and descending score.
    self._kept: list[NDArray] = [np.zeros(0, dtype) for dtype in types]
    self._runs = _Runs()
    self._pending: list[list[NDArray]] = []
    self._num_pending = self._num_pairs = 0

  def add(self, rankings: ArrayLike, scores: NDArray, hits: NDArray) -> None:
    """Adds pairs.

    Args:
      rankings: int [N] or scalar.
      scores: float32 or float64 [N], not NaN.
      hits: bool [N], True for positives.
    """
    if scores.size:
      rankings = np.full(scores.shape, rankings, self._kept[0].dtype)
      ones = np.ones(scores.size, np.uint8)
      hits = hits.astype(np.uint8)
      self._pending.append([rankings, scores.copy(), ones, hits])
    self._num_pending += scores.size
    self._num_pairs += scores.size
    if self._num_pending > max(_MIN_PENDING, 2 * self._kept[0].size):
      self._merge()

  def num_pairs(self) -> int:
    """Returns the number of pairs in the groups that are kept."""
    if self._top_n is None:
      return self._num_pairs
    self._merge()
    return int(np.sum(self._kept[2], dtype=np.int64))

  def parts(self) -> Iterator[list[NDArray]]:
    """Columns of all groups, the counts int64; sorted by ranking and score.

    The scores descend, also from part to part.
    """
    self._merge()
    parts = self._runs.parts() if self._top_n is None else [self._kept]
    for columns in parts:
      rankings, scores, *sums = _grouped(columns, by_score=False)
      yield [rankings, scores, *(column.astype(np.int64) for column in sums)]

  def _merge(self) -> None:
    """Sorts the pending pairs, and puts them where the others are."""
    if not self._pending:
      return
    # float32 and float64 become float64, which keeps ties as they are.
    columns = [np.concatenate(c) for c in zip(self._kept, *self._pending)]
    self._pending, self._num_pending = [], 0
    if self._top_n is None:
      self._runs.add(_grouped(columns, by_score=True))
      return
    groups = _grouped(columns, by_score=False)
    # Pairs that come later can only push the dropped groups further down.
    kept = sum_before(groups[2].astype(np.int64), groups[0]) < self._top_n
    self._kept = [column[kept] for column in groups]


def sum_before(values: NDArray, rankings: NDArray) -> NDArray[np.int64]:
  """Sums, for each place [G], the places before it in its ranking."""
  before = np.cumsum(values) - values
  return before - before[np.searchsorted(rankings, rankings)]
