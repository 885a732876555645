"""Average precision against the definition, over all orders of ties."""

import itertools
import math
import random
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from average_precision_calculator import AveragePrecisionCalculator, Rankings
from records import score_groups

ap = AveragePrecisionCalculator.ap
ap_at_n = AveragePrecisionCalculator.ap_at_n

# Expectations are exact; sums of at most seven quotients are not.
_EXACT = dict(rel=1e-14, abs=1e-15)


def _ordered_ap(actuals, n, num_positives):
  """The definition for one order, pair by pair."""
  if n is not None:
    num_positives = min(num_positives, n)
  if num_positives == 0:
    return Fraction(0)
  total, hits = Fraction(0), 0
  for rank, actual in enumerate(actuals[:n], start=1):
    if actual > 0:
      hits += 1
      total += Fraction(hits, rank)
  return total / num_positives


def _brute_force_ap(predictions, actuals, n=None, num_positives=None):
  """Mean of the definition over every order that descends."""
  if num_positives is None:
    num_positives = sum(actual > 0 for actual in actuals)
  values = []
  for pairs in itertools.permutations(zip(predictions, actuals)):
    if all(a[0] >= b[0] for a, b in itertools.pairwise(pairs)):
      values.append(_ordered_ap([p[1] for p in pairs], n, num_positives))
  return pytest.approx(float(sum(values) / len(values)), **_EXACT)


def _summed_ap(groups, n=None):
  """The formula for ties term by term; groups are (count, positives)."""
  terms, n0, c0 = [], 0, 0
  for m, p in groups:
    for i in range(1, m + 1):
      if n is None or n0 + i <= n:
        before = (i - 1) * (p - 1) / (m - 1) if m > 1 else 0.0
        terms.append(p / m * (c0 + 1 + before) / (n0 + i))
    n0, c0 = n0 + m, c0 + p
  return math.fsum(terms) / (c0 if n is None else min(c0, n))


def _pairs(groups):
  """Predictions and actuals of such groups."""
  predictions = np.repeat(-np.arange(len(groups)), [m for m, _ in groups])
  return predictions, np.concatenate([np.arange(m) < p for m, p in groups])


def test_perfect_rankings_score_exactly_one():
  assert ap(np.linspace(1.0, 0.1, 53), [1] * 49 + [0] * 4) == 1.0
  assert ap([0.5] * 49, [1] * 49) == 1.0  # All tied.


def test_n_is_twenty_unless_given():
  predictions = np.arange(23.0)[::-1]
  actuals = np.arange(23) >= 19  # Rank 20 is the last that counts.
  assert ap_at_n(predictions, actuals) == pytest.approx(1 / 20 / 4, **_EXACT)


# Pairs of a score and whether it is a hit, n, and positives that are missing.
_pairs_that_tie = st.lists(
  st.tuples(st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 1)), max_size=4
)
_cases = st.tuples(
  _pairs_that_tie,
  st.sampled_from([None, 1, 2, 3, 4, 7]),
  st.sampled_from([None, 0, 2]),
)


@hypothesis.settings(max_examples=300)
@hypothesis.given(_cases)
def test_matches_all_orders_of_ties(case):
  pairs, n, missed = case
  scores, actuals = [score for score, _ in pairs], [hit for _, hit in pairs]
  # None, or more than there are: positives that were never retrieved.
  num_positives = None if missed is None else sum(actuals) + missed
  expected = _brute_force_ap(scores, actuals, n, num_positives)
  assert ap_at_n(scores, actuals, n, num_positives) == expected
  calculator = AveragePrecisionCalculator(n)
  for pair in pairs:  # One by one.
    calculator.accumulate(*([value] for value in pair))
    assert calculator.heap_size <= len(pairs)
  assert calculator.peek_ap_at_n() == _brute_force_ap(scores, actuals, n)


@pytest.mark.parametrize("n", [None, 61, 67, 331, 5000])
def test_large_ties_match_the_sum_term_by_term(n):
  groups = [(1, 1), (59, 7), (2, 1), (3, 3), (211, 100), (1, 0), (4001, 3)]
  assert ap_at_n(*_pairs(groups), n) == pytest.approx(
    _summed_ap(groups, n), rel=1e-13
  )


def test_far_down_ties_keep_their_digits():
  groups = [(1_000_003, 11), (7, 5)]
  assert ap(*_pairs(groups)) == pytest.approx(_summed_ap(groups), rel=1e-12)


def test_calculator_starts_and_clears_to_nothing():
  calculator = AveragePrecisionCalculator()
  assert calculator.peek_ap_at_n() == 0.0
  calculator.accumulate([0.9, 0.8, 0.7], [1, 0, 1], 4)
  assert (calculator.heap_size, calculator.num_accumulated_positives) == (3, 4)
  calculator.clear()
  assert (calculator.heap_size, calculator.num_accumulated_positives) == (0, 0)
  assert calculator.peek_ap_at_n() == 0.0


@pytest.mark.parametrize("top_n", [None, 7, 400])
def test_batches_and_orders_do_not_change_a_single_digit(top_n):
  rng = np.random.RandomState(0)
  scores = rng.randint(0, 997, 20_000) / 997
  actuals = rng.rand(20_000) < 0.2
  whole = AveragePrecisionCalculator(top_n)
  whole.accumulate(scores, actuals)
  batches = AveragePrecisionCalculator(top_n)
  order = rng.permutation(20_000)
  for batch in np.split(order, [1, 3, 10, 5000, 9000, 9000, 19_999]):
    batches.accumulate(scores[batch], actuals[batch])
    batches.peek_ap_at_n()  # Looking changes nothing.
  assert batches.peek_ap_at_n() == whole.peek_ap_at_n()
  assert batches.heap_size == whole.heap_size


def test_a_pair_that_ties_with_a_dropped_one_changes_nothing():
  calculator = AveragePrecisionCalculator(2)
  calculator.accumulate([0.9, 0.8, 0.1], [1, 0, 1])
  assert calculator.heap_size == 2
  calculator.accumulate([0.1], [1])
  assert calculator.heap_size == 2
  assert calculator.peek_ap_at_n() == 1 / 1 / 2


def test_what_was_accumulated_is_a_copy():
  calculator = AveragePrecisionCalculator()
  scores, actuals = np.array([0.9, 0.8]), np.array([True, False])
  calculator.accumulate(scores, actuals)
  scores[:], actuals[:] = [0.1, 0.2], [False, True]
  assert calculator.peek_ap_at_n() == 1.0


@hypothesis.given(st.lists(_pairs_that_tie, max_size=9), st.integers(0, 2**31))
def test_rankings_match_one_calculator_each(cases, seed):
  rows = [
    (ranking, *pair) for ranking, pairs in enumerate(cases) for pair in pairs
  ]
  random.Random(seed).shuffle(rows)
  which, scores, actuals = np.reshape(rows, [-1, 3]).T
  # The last ranking has positives and no pair.
  num_positives = [sum(hit for _, hit in pairs) for pairs in cases] + [3]
  for n in (None, 1, 2, 4):
    rankings = Rankings(len(cases) + 1, n)
    rankings.add(which.astype(int), scores, actuals > 0, num_positives)
    assert rankings.average_precision().tolist() == [
      *(
        ap_at_n([score for score, _ in pairs], [hit for _, hit in pairs], n)
        for pairs in cases
      ),
      0.0,
    ]


@pytest.mark.parametrize("top_n", [7, None])
def test_memory_is_bounded(top_n, monkeypatch):
  monkeypatch.setattr(score_groups, "_MIN_PENDING", 4096)
  scores = np.random.RandomState(0).rand(50, 1009)
  rankings = Rankings(2, top_n)
  for row in scores:
    rankings.add(1, row, row > 0.5, 0)
    assert sum(columns[0].size for columns in rankings._groups._pending) <= 4096
    assert rankings._groups._kept[0].size <= (top_n or 0)
  assert rankings.num_pairs() == (top_n or scores.size)


@pytest.mark.parametrize("num_values", [3, 50, 10**6])
def test_what_lies_on_disk_counts_as_what_lies_in_memory(
  num_values, monkeypatch
):
  rng = np.random.default_rng(num_values)
  batches = [
    (
      rng.integers(5, size=37),
      (rng.integers(num_values, size=37) / num_values).astype(dtype),
      rng.random(37) < 0.3,
      [9] * 5,
    )
    for dtype in 20 * [np.float32] + 20 * [np.float64]
  ]
  found = []
  for is_small in (False, True):
    if is_small:
      for name, value in (
        ("MIN_PENDING", 100),
        ("STRIDE", 7),
        ("MAX_BYTES", 1000),
      ):
        monkeypatch.setattr(score_groups, f"_{name}", value)
    rankings = Rankings(5)
    for batch in batches:
      rankings.add(*batch)
    found.append(rankings.average_precision())
  assert len(rankings._groups._runs._runs) > 10
  assert max(len(part[0]) for part in rankings._groups.parts()) < 300
  np.testing.assert_allclose(found[1], found[0], rtol=1e-13)


def test_groups_of_float32_take_eight_bytes():
  rankings = Rankings(3862)
  scores = np.arange(4999, dtype=np.float32)
  rankings.add(np.arange(4999) % 3862, scores, scores > 3, 0)
  rankings.average_precision()
  (run,) = rankings._groups._runs._runs
  assert (run.num_groups, run.dtype.itemsize) == (4999, 8)


def test_many_small_batches_are_sorted_twice(monkeypatch):
  monkeypatch.setattr(score_groups, "_MIN_PENDING", 4096)
  merged = []
  lexsort = np.lexsort
  monkeypatch.setattr(
    np, "lexsort", lambda keys: merged.append(keys[0].size) or lexsort(keys)
  )
  calculator = AveragePrecisionCalculator()
  for row in np.random.RandomState(0).rand(2000, 50):
    calculator.accumulate(row, row > 0.5)
  calculator.peek_ap_at_n()
  assert calculator.heap_size == 100_000
  assert sum(merged) == 2 * 100_000


def test_float32_and_float64_may_be_mixed():
  calculator = AveragePrecisionCalculator()
  calculator.accumulate(np.array([0.5, 0.25], np.float32), [1, 0])
  # The first two tie if float64 is narrowed; the others must tie.
  calculator.accumulate(np.array([0.5 + 1e-12, 0.25]), [0, 1])
  calculator.accumulate(np.array([0.25], np.float16), [0])
  assert calculator.peek_ap_at_n() == _brute_force_ap(
    [1.0, 0.5, 0.25, 0.25, 0.25], [0, 1, 0, 1, 0]
  )


def test_zero_ties_with_minus_zero_and_infinity_with_itself():
  inf = float("inf")
  assert ap([inf, 0.0, -0.0, inf, -inf], [0, 0, 1, 1, 1]) == _brute_force_ap(
    [2, 1, 1, 2, 0], [0, 0, 1, 1, 1]
  )


@pytest.mark.parametrize(
  "actuals",
  [[True, False, True], np.array([0.5, 0.0, 1.0]), np.array([3, -1, 1])],
)
def test_any_actual_above_zero_is_a_positive(actuals):
  assert ap([0.9, 0.8, 0.7], actuals) == pytest.approx(
    (1 / 1 + 2 / 3) / 2, **_EXACT
  )


def test_numpy_integers_are_integers():
  calculator = AveragePrecisionCalculator(np.uint64(2))
  calculator.accumulate([0.9, 0.8, 0.8], [1, 1, 0], np.int32(3))
  assert calculator.peek_ap_at_n() == _brute_force_ap(
    [0.9, 0.8, 0.8], [1, 1, 0], 2, 3
  )
  calculator.accumulate([], [], np.float32(2.0))  # A sum of float labels.
  assert calculator.num_accumulated_positives == 5


def test_top_n_zero_keeps_nothing():
  calculator = AveragePrecisionCalculator(0)
  calculator.accumulate([0.9, 0.8], [1, 1])
  assert calculator.heap_size == 0
  assert calculator.peek_ap_at_n() == 0.0


@pytest.mark.parametrize("top_n", [-1, 2.0, "3", True])
def test_top_n_must_be_none_or_a_count(top_n):
  with pytest.raises(ValueError, match=f"top_n .* int >= 0, got {top_n!r}"):
    AveragePrecisionCalculator(top_n)


def test_n_must_not_be_zero():
  with pytest.raises(ValueError, match="n must be an int >= 1, got 0"):
    ap_at_n([0.5], [1], 0)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (([0.5, 0.4], [1]), r"\(2,\) and \(1,\)"),
    (([[0.5, 0.4]], [[1, 0]]), r"shape \[N\], got \(1, 2\) and \(1, 2\)"),
    ((0.5, 1), r"\(\) and \(\)"),
    (([0.5, math.nan], [1, 1]), "must not be NaN, got 1 NaN of 2"),
    (([math.inf, math.nan, -math.inf], [1, 1, 1]), "got 1 NaN of 3"),
    (([0.5], [1], [1, 2]), r"num_positives must be a scalar, got \(2,\)"),
    *(
      (([0.5], [1], bad), "num_positives must be whole")
      for bad in (-1, 1.5, math.inf, "2", True)
    ),
  ],
)
def test_what_is_refused_leaves_nothing_behind(arguments, message):
  calculator = AveragePrecisionCalculator()
  with pytest.raises(ValueError, match=message):
    calculator.accumulate(*arguments)
  assert calculator.heap_size == calculator.num_accumulated_positives == 0
