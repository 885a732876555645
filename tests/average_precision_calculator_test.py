"""Average precision against the definition, over all orders of ties."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

import average_precision_calculator as ap_calculator
from average_precision_calculator import AveragePrecisionCalculator

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
  for rank, actual in enumerate(actuals, start=1):
    if n is not None and rank > n:
      break
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
  return sum(values) / len(values)


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


def _random_case(rng):
  size = rng.randint(0, 5)
  scores = [rng.choice([0.25, 0.5, 0.75]) for _ in range(size)]
  actuals = [rng.choice([0, 1]) for _ in range(size)]
  n = rng.choice([None, 1, 2, 3, 4, 7])
  num_positives = rng.choice([None, sum(actuals), sum(actuals) + 2])
  return scores, actuals, n, num_positives


def test_ap_of_distinct_scores_is_mean_precision_at_the_positives():
  assert ap([0.9, 0.1, 0.7, 0.3], [1, 1, 0, 1]) == pytest.approx(
    (1 / 1 + 2 / 3 + 3 / 4) / 3, **_EXACT
  )


def test_perfect_ranking_scores_exactly_one():
  assert ap(np.linspace(1.0, 0.1, 53), [1] * 49 + [0] * 4) == 1.0


def test_all_tied_positives_score_exactly_one():
  assert ap([0.5] * 49, [1] * 49) == 1.0


def test_n_limits_ranks_and_divisor():
  predictions, actuals = [0.9, 0.8, 0.7, 0.6, 0.5], [0, 1, 1, 1, 1]
  assert ap_at_n(predictions, actuals, n=3) == pytest.approx(
    (1 / 2 + 2 / 3) / 3, **_EXACT
  )
  assert ap_at_n(predictions, actuals, n=None) == ap(predictions, actuals)


def test_n_is_twenty_unless_given():
  predictions = np.arange(23.0)[::-1]
  actuals = np.arange(23) >= 19  # Rank 20 is the last that counts.
  assert ap_at_n(predictions, actuals) == pytest.approx(1 / 20 / 4, **_EXACT)


def test_positives_never_retrieved_lower_ap():
  assert ap_at_n([0.9, 0.8], [1, 0], n=None, total_num_positives=5) == 1 / 5
  assert ap_at_n([0.9, 0.8], [1, 0], n=3, total_num_positives=5) == 1 / 3


def test_two_tied_pairs_average_both_orders():
  assert ap([0.5, 0.5], [1, 0]) == pytest.approx((1 + 1 / 2) / 2, **_EXACT)


@pytest.mark.parametrize(
  "n, expected",
  [
    # The positive of the tie is at rank 2, 3 or 4, each in one order of three.
    (None, (1 + (2 / 2 + 2 / 3 + 2 / 4) / 3) / 2),
    (3, (1 + (2 / 2 + 2 / 3) / 3) / 2),
    (2, (1 + (2 / 2) / 3) / 2),
    (1, 1.0),
  ],
)
def test_rank_n_may_fall_inside_a_tie(n, expected):
  assert ap_at_n([0.5, 0.5, 0.9, 0.5], [0, 1, 1, 0], n=n) == pytest.approx(
    expected, **_EXACT
  )


def test_random_cases_match_all_orders_of_ties():
  rng = random.Random(0)
  for _ in range(300):
    scores, actuals, n, num_positives = _random_case(rng)
    expected = _brute_force_ap(scores, actuals, n, num_positives)
    assert ap_at_n(scores, actuals, n, num_positives) == pytest.approx(
      float(expected), **_EXACT
    ), (scores, actuals, n, num_positives)


@pytest.mark.parametrize("n", [None, 2, 5])
def test_seven_pairs_match_all_orders_of_ties(n):
  predictions = [3, 1, 2, 2, 2, 1, 2]
  actuals = [0, 1, 1, 0, 1, 0, 1]
  assert ap_at_n(predictions, actuals, n) == pytest.approx(
    float(_brute_force_ap(predictions, actuals, n)), **_EXACT
  )


@pytest.mark.parametrize("n", [None, 61, 67, 331, 5000])
def test_large_ties_match_the_sum_term_by_term(n):
  groups = [(1, 1), (59, 7), (2, 1), (3, 3), (211, 100), (1, 0), (4001, 3)]
  predictions = np.repeat(-np.arange(len(groups)), [m for m, _ in groups])
  actuals = np.concatenate([np.arange(m) < p for m, p in groups])
  assert ap_at_n(predictions, actuals, n) == pytest.approx(
    _summed_ap(groups, n), rel=1e-13
  )


def test_far_down_ties_keep_their_digits():
  # Ranks near a million, where differences of harmonic numbers would not.
  groups = [(1_000_003, 11), (7, 5)]
  result = ap_calculator.segmented_average_precision(
    [0, 0], [0.9, 0.1], [1_000_003, 7], [11, 5], [16]
  )
  assert result.tolist() == pytest.approx([_summed_ap(groups)], rel=1e-12)


@pytest.mark.parametrize(
  "predictions, actuals, num_positives",
  [
    ([], [], None),
    ([], [], 3),
    ([0.9, 0.8], [0, 0], None),
    ([0.9, 0.8], [0, 0], 0),
  ],
)
def test_ap_is_zero_without_positives_or_predictions(
  predictions, actuals, num_positives
):
  assert ap_at_n(predictions, actuals, 5, num_positives) == 0.0


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


def test_random_cases_in_batches_match_all_orders_of_ties():
  rng = random.Random(1)
  for _ in range(100):
    scores, actuals, n, _ = _random_case(rng)
    calculator = AveragePrecisionCalculator(n)
    for score, actual in zip(scores, actuals):
      calculator.accumulate([score], [actual])
      assert calculator.heap_size <= len(scores)
    assert calculator.peek_ap_at_n() == pytest.approx(
      float(_brute_force_ap(scores, actuals, n)), **_EXACT
    )


def test_a_pair_that_ties_with_a_dropped_one_changes_nothing():
  calculator = AveragePrecisionCalculator(2)
  calculator.accumulate([0.9, 0.8, 0.1], [1, 0, 1])
  assert calculator.heap_size == 2
  calculator.accumulate([0.1], [1])
  assert calculator.heap_size == 2
  assert calculator.peek_ap_at_n() == 1 / 1 / 2


def test_memory_is_bounded_by_top_n(monkeypatch):
  monkeypatch.setattr(ap_calculator, "_MIN_PENDING", 4096)
  calculator = ap_calculator.ScoreGroups(1, top_n=7)
  rng = np.random.RandomState(0)
  for _ in range(50):
    scores = rng.rand(1009)
    calculator.add(0, scores, scores > 0.5)
    assert calculator._pending_scores.size <= 4096
    assert calculator._groups.scores.size <= 7
  assert calculator.num_groups == calculator.num_pairs == 7


def test_memory_is_bounded_by_distinct_scores(monkeypatch):
  monkeypatch.setattr(ap_calculator, "_MIN_PENDING", 4096)
  calculator = ap_calculator.ScoreGroups(1)
  for _ in range(50):
    calculator.add(0, np.arange(1009) % 5 / 5.0, np.ones(1009, bool))
    assert calculator._pending_scores.size <= 4096
  assert calculator.num_groups == 5
  assert calculator.num_pairs == 50 * 1009


def test_groups_of_float32_take_eight_bytes():
  calculator = ap_calculator.ScoreGroups(3862)
  scores = np.arange(4999, dtype=np.float32)
  calculator.add(np.arange(4999) % 3862, scores, scores > 3)
  assert calculator.num_groups == 4999
  assert sum(column.nbytes for column in calculator._groups) == 8 * 4999


def test_many_small_batches_sort_a_logarithmic_number_of_times(monkeypatch):
  monkeypatch.setattr(ap_calculator, "_MIN_PENDING", 4096)
  sorted_pairs = []
  grouped = ap_calculator._grouped

  def count(groups, top_n):
    sorted_pairs.append(groups.scores.size)
    return grouped(groups, top_n)

  monkeypatch.setattr(ap_calculator, "_grouped", count)
  calculator = AveragePrecisionCalculator()
  scores = np.random.RandomState(0).rand(2000, 50)
  for row in scores:
    calculator.accumulate(row, row > 0.5)
  assert calculator.heap_size == 100_000
  # 4096 pending pairs double to 100,000 in five steps, each a factor of two.
  assert len(sorted_pairs) <= 7
  assert sum(sorted_pairs) <= 4 * 100_000


def test_float32_and_float64_may_be_mixed():
  calculator = AveragePrecisionCalculator()
  calculator.accumulate(np.array([0.5, 0.25], np.float32), [1, 0])
  # The first two tie if float64 is narrowed; the others must tie.
  calculator.accumulate(np.array([0.5 + 1e-12, 0.25]), [0, 1])
  calculator.accumulate(np.array([0.25], np.float16), [0])
  expected = _brute_force_ap([1.0, 0.5, 0.25, 0.25, 0.25], [0, 1, 0, 1, 0])
  assert calculator.peek_ap_at_n() == pytest.approx(float(expected), **_EXACT)


def test_zero_ties_with_minus_zero_and_infinity_with_itself():
  inf = float("inf")
  assert ap([inf, 0.0, -0.0, inf], [0, 0, 1, 1]) == pytest.approx(
    float(_brute_force_ap([2, 1, 1, 2], [0, 0, 1, 1])), **_EXACT
  )


@pytest.mark.parametrize(
  "actuals",
  [[True, False, True], np.array([0.5, 0.0, 1.0]), np.array([3, -1, 1])],
)
def test_any_actual_above_zero_is_a_positive(actuals):
  assert ap([0.9, 0.8, 0.7], actuals) == pytest.approx(
    (1 / 1 + 2 / 3) / 2, **_EXACT
  )


def test_segments_match_one_calculator_each():
  rng = random.Random(2)
  cases = [_random_case(rng)[:2] for _ in range(29)]
  rows = [
    (segment, score, actual)
    for segment, case in enumerate(cases)
    for score, actual in zip(*case)
  ]
  rng.shuffle(rows)
  segments, scores, actuals = map(list, zip(*rows))
  num_positives = [sum(actuals) for _, actuals in cases] + [3]
  for n in (None, 1, 2, 4):
    result = ap_calculator.segmented_average_precision(
      segments, scores, [1] * len(rows), actuals, num_positives, n
    )
    # The last segment has positives and no pair.
    assert result.tolist() == [ap_at_n(*case, n) for case in cases] + [0.0]
    assert result.dtype == np.float64


@pytest.mark.parametrize("num_segments", [7, 300, 70_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batches_of_segments_match_all_pairs_at_once(num_segments, dtype):
  rng = np.random.RandomState(0)
  used = rng.randint(0, num_segments, 29)
  calculator = ap_calculator.ScoreGroups(num_segments)
  batches = []
  for size in (3001, 2, 0, 4999, 3001):
    segments = rng.choice(used, size)
    scores = rng.choice([-np.inf, -0.0, 0.0, *rng.rand(50), np.inf], size)
    batches.append((segments, scores.astype(dtype), rng.rand(size) < 0.3))
    calculator.add(*batches[-1])
    assert calculator.num_groups > 0  # Looking merges what is pending.
  segments, scores, hits = map(np.concatenate, zip(*batches))
  num_positives = np.bincount(segments[hits], minlength=num_segments)
  expected = ap_calculator.segmented_average_precision(
    segments, scores, np.ones(segments.size), hits.astype(int), num_positives
  )
  result = calculator.average_precision(num_positives)
  assert result.tolist() == expected.tolist()
  for segment in np.unique(used):
    chosen = segments == segment
    assert result[segment] == ap(scores[chosen], hits[chosen])


def test_segments_that_float32_does_not_tell_apart_are_kept_apart():
  segments = np.array([2**24 + 1, 2**24, 2**24 + 1, 2**24], np.uint32)
  scores = np.array([0.25, 0.25, 0.5, 0.25], np.float32)
  ones = np.ones(4, np.uint8)
  by_score = ap_calculator._by_score(
    ap_calculator._Groups(segments, scores, ones, ones)
  )
  merged = ap_calculator._grouped(by_score, None)
  assert merged.segments.tolist() == [2**24, 2**24 + 1, 2**24 + 1]
  assert merged.scores.tolist() == [0.25, 0.5, 0.25]
  assert merged.counts.tolist() == merged.positives.tolist() == [2, 1, 1]


def test_groups_equal_the_pairs_they_stand_for():
  result = ap_calculator.segmented_average_precision(
    segments=[1, 1, 1],
    scores=[0.5, 0.9, 0.5],
    counts=[2, 1, 1],
    positives=[1, 1, 0],
    num_positives=[2, 3],
    top_n=3,
  )
  expected = _brute_force_ap([0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0], 3, 3)
  assert result.tolist() == pytest.approx([0.0, float(expected)], **_EXACT)


def test_no_groups_yield_zeros():
  result = ap_calculator.segmented_average_precision([], [], [], [], [2, 0, 1])
  assert result.tolist() == [0.0, 0.0, 0.0]


def test_numpy_integers_are_integers():
  calculator = AveragePrecisionCalculator(np.uint64(2))
  calculator.accumulate([0.9, 0.8, 0.8], [1, 1, 0], np.int32(3))
  assert calculator.peek_ap_at_n() == pytest.approx(
    float(_brute_force_ap([0.9, 0.8, 0.8], [1, 1, 0], 2, 3)), **_EXACT
  )
  calculator.accumulate([], [], np.float32(2.0))  # A sum of float labels.
  assert calculator.num_accumulated_positives == 5


def test_top_n_zero_keeps_nothing():
  calculator = AveragePrecisionCalculator(0)
  calculator.accumulate([0.9, 0.8], [1, 1])
  assert calculator.heap_size == 0
  assert calculator.peek_ap_at_n() == 0.0


def test_global_random_state_is_untouched():
  before, np_before = random.getstate(), np.random.get_state()
  ap([0.5, 0.5, 0.5], [1, 0, 1])
  assert random.getstate() == before
  after = np.random.get_state()
  assert all(np.array_equal(x, y) for x, y in zip(np_before, after))


@pytest.mark.parametrize("top_n", [-1, 2.0, "3", True])
def test_top_n_must_be_none_or_a_count(top_n):
  with pytest.raises(ValueError, match=f"int >= 0, got {top_n!r}"):
    AveragePrecisionCalculator(top_n)


def test_n_must_not_be_zero():
  with pytest.raises(ValueError, match="n must be None or an int >= 1, got 0"):
    ap_at_n([0.5], [1], 0)


@pytest.mark.parametrize(
  "predictions, actuals, shapes",
  [
    ([0.5, 0.4], [1], r"\(2,\) and \(1,\)"),
    ([[0.5, 0.4]], [[1, 0]], r"\(1, 2\) and \(1, 2\)"),
    (0.5, 1, r"\(\) and \(\)"),
  ],
)
def test_shapes_must_be_equal_and_flat(predictions, actuals, shapes):
  with pytest.raises(ValueError, match=shapes):
    AveragePrecisionCalculator().accumulate(predictions, actuals)


@pytest.mark.parametrize("other", [0.5, float("inf"), -float("inf")])
def test_nan_is_refused_and_nothing_is_kept(other):
  calculator = AveragePrecisionCalculator()
  with pytest.raises(ValueError, match="must not be NaN, got 1 NaN of 2"):
    calculator.accumulate([other, float("nan")], [1, 1])
  assert calculator.heap_size == calculator.num_accumulated_positives == 0


@pytest.mark.parametrize("num_positives", [-1, 1.5, float("inf"), "2", True])
def test_num_positives_must_be_a_count(num_positives):
  calculator = AveragePrecisionCalculator()
  with pytest.raises(ValueError, match="num_positives must be whole"):
    calculator.accumulate([0.5], [1], num_positives)
  assert calculator.heap_size == 0


def test_num_positives_must_be_scalar():
  with pytest.raises(ValueError, match=r"scalar, got shape \(2,\)"):
    AveragePrecisionCalculator().accumulate([0.5], [1], [1, 2])


def test_score_groups_need_a_segment():
  with pytest.raises(ValueError, match="num_segments must be >= 1, got 0"):
    ap_calculator.ScoreGroups(0)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(segments=[0]), r"one shape \[G\]"),
    (dict(segments=[0, 2]), "below S=2, got 2"),
    (dict(segments=[0, -1]), "segments must be whole"),
    (dict(scores=[0.5, np.nan]), "scores must not be NaN"),
    (dict(counts=[1, 0], positives=[0, 0]), "counts >= 1"),
    (dict(positives=[2, 0]), "positives <= counts"),
    (dict(num_positives=3), r"shape \[S\], got \(\)"),
    (dict(top_n=-2), "got -2"),
  ],
)
def test_segmented_average_precision_checks_its_arguments(change, message):
  arguments = dict(
    segments=[0, 1],
    scores=[0.5, 0.4],
    counts=[1, 3],
    positives=[1, 0],
    num_positives=[1, 1],
    top_n=None,
  )
  ap_calculator.segmented_average_precision(**arguments)
  with pytest.raises(ValueError, match=message):
    ap_calculator.segmented_average_precision(**(arguments | change))
