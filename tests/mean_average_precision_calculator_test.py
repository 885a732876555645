"""Mean average precision against one average precision calculator a class."""

import random

import numpy as np
import pytest

import average_precision_calculator as ap_calculator
from average_precision_calculator import AveragePrecisionCalculator
from mean_average_precision_calculator import MeanAveragePrecisionCalculator


def _random_batch(rng, size, num_class):
  """Pairs of which many tie, and counts with positives never retrieved."""
  classes = rng.randint(0, num_class, size)
  scores = rng.randint(0, 5, size) / 5
  hits = rng.rand(size) < 0.4
  num_positives = [
    int(hits[classes == c].sum()) + rng.randint(0, 3) for c in range(num_class)
  ]
  return classes, scores, hits, num_positives


def _by_class(classes, values, num_class):
  return [
    [v for c, v in zip(classes, values) if c == wanted]
    for wanted in range(num_class)
  ]


def test_each_class_has_the_ap_of_its_own_pairs():
  calculator = MeanAveragePrecisionCalculator(3)
  calculator.accumulate(
    [[0.9, 0.1, 0.5], [0.3], [0.2, 0.4]], [[1, 1, 0], [1], [1, 0]]
  )
  assert calculator.peek_map_at_n() == [(1 + 2 / 3) / 2, 1.0, 1 / 2]


@pytest.mark.parametrize(
  "filter_empty_classes, expected",
  [(True, [1.0, 0.0, 1 / 2]), (False, [1.0, 0.0, 0.0, 0.0, 1 / 2])],
)
def test_classes_without_positives_are_left_out_or_zero(
  filter_empty_classes, expected
):
  calculator = MeanAveragePrecisionCalculator(5, filter_empty_classes)
  # Class 1 has no pair but positives, 2 nothing, 3 a pair but no positive.
  calculator.accumulate(
    [[0.9], [], [], [0.7], [0.4, 0.6]],
    [[1], [], [], [0], [1, 0]],
    [1, 2, 0, 0, 1],
  )
  assert calculator.peek_map_at_n() == expected


@pytest.mark.parametrize("top_n", [None, 1, 2, 7])
def test_random_pairs_match_one_calculator_a_class(top_n):
  rng = np.random.RandomState(0)
  for _ in range(20):
    num_class = rng.randint(2, 6)
    mean = MeanAveragePrecisionCalculator(num_class, False, top_n)
    listed = MeanAveragePrecisionCalculator(num_class, False, top_n)
    single = [AveragePrecisionCalculator(top_n) for _ in range(num_class)]
    for size in (11, 0, 1, 17):
      classes, scores, hits, counts = _random_batch(rng, size, num_class)
      mean.accumulate_pairs(classes, scores, hits, counts)
      scores = _by_class(classes, scores, num_class)
      hits = _by_class(classes, hits, num_class)
      listed.accumulate(scores, hits, counts)
      for calculator, *batch in zip(single, scores, hits, counts):
        calculator.accumulate(*batch)
    expected = [calculator.peek_ap_at_n() for calculator in single]
    assert mean.peek_map_at_n() == expected
    assert listed.peek_map_at_n() == expected


def test_batches_and_orders_do_not_change_a_single_digit():
  rng = np.random.RandomState(1)
  classes, scores, hits, _ = _random_batch(rng, 10_000, 7)
  whole = MeanAveragePrecisionCalculator(7, top_n=101)
  whole.accumulate_pairs(
    classes, scores, hits, np.bincount(classes[hits], minlength=7)
  )
  batches = MeanAveragePrecisionCalculator(7, top_n=101)
  for batch in np.split(rng.permutation(10_000), [2, 5000, 5003, 9000]):
    hit_classes = classes[batch][hits[batch]]
    batches.accumulate_pairs(
      classes[batch],
      scores[batch],
      hits[batch],
      np.bincount(hit_classes, minlength=7),
    )
  assert batches.peek_map_at_n() == whole.peek_map_at_n()


def test_rows_of_arrays_are_accepted():
  calculator = MeanAveragePrecisionCalculator(2)
  calculator.accumulate(
    np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]),
    np.array([[0, 1, 0], [1, 0, 0]]),
    np.array([1, 3]),
  )
  assert calculator.peek_map_at_n() == [1 / 2, 1 / 3]


def test_a_class_may_leave_its_positives_to_be_counted():
  calculator = MeanAveragePrecisionCalculator(2)
  calculator.accumulate([[0.9], [0.6]], [[1], [1]], [None, 4])
  assert calculator.peek_map_at_n() == [1.0, 1 / 4]


def test_empty_classes_do_not_widen_float32():
  calculator = MeanAveragePrecisionCalculator(3)
  calculator.accumulate([np.array([0.5], np.float32), [], []], [[1], [], []])
  calculator.peek_map_at_n()
  assert calculator._groups._groups.scores.dtype == np.float32


def test_is_empty_until_a_pair_comes_and_after_clear():
  calculator = MeanAveragePrecisionCalculator(2)
  assert calculator.is_empty()
  assert calculator.peek_map_at_n() == []
  calculator.accumulate([[], []], [[], []])
  assert calculator.is_empty()
  calculator.accumulate([[], [0.5]], [[], [1]])
  assert not calculator.is_empty()
  calculator.clear()
  assert calculator.is_empty()
  assert calculator.peek_map_at_n() == []


def test_memory_is_bounded_by_top_n_a_class(monkeypatch):
  monkeypatch.setattr(ap_calculator, "_MIN_PENDING", 4096)
  calculator = MeanAveragePrecisionCalculator(5, top_n=3)
  rng = np.random.RandomState(0)
  for _ in range(20):
    calculator.accumulate_pairs(
      rng.randint(0, 5, 1009), rng.rand(1009), np.ones(1009), [0] * 5
    )
    assert calculator._groups._groups.scores.size <= 5 * 3
    assert calculator._groups._pending_scores.size <= 4096
  assert calculator._groups.num_pairs == 5 * 3


def test_global_random_state_is_untouched():
  before, np_before = random.getstate(), np.random.get_state()
  calculator = MeanAveragePrecisionCalculator(2)
  calculator.accumulate([[0.5, 0.5], [0.5]], [[0, 1], [1]])
  calculator.peek_map_at_n()
  assert random.getstate() == before
  after = np.random.get_state()
  assert all(np.array_equal(x, y) for x, y in zip(np_before, after))


@pytest.mark.parametrize("num_class", [1, 0, -3, 2.0, "5", True, None])
def test_num_class_must_be_two_or_more(num_class):
  with pytest.raises(ValueError, match=f"int >= 2, got {num_class!r}"):
    MeanAveragePrecisionCalculator(num_class)


def test_top_n_must_be_a_count():
  with pytest.raises(ValueError, match="top_n must be None or an int >= 0"):
    MeanAveragePrecisionCalculator(2, top_n=-1)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (([[0.5]], [[1], [0]]), r"Need 2 classes .*, got \[1, 2\]"),
    (([[0.5], [0.4]], [[1]]), r"got \[2, 1\]"),
    (([[0.5], [0.4]], [[1], [0]], [1]), r"got \[2, 2, 1\]"),
    (([[0.5], [0.4]], [[1], [0, 1]]), r"\(1,\) and \(2,\) for class 1"),
    (([[0.5], [np.nan]], [[1], [0]]), "must not be NaN"),
    (([[0.5], [0.4]], [[1], [0]], [1, -1]), "num_positives must be whole"),
  ],
)
def test_accumulate_checks_its_arguments(arguments, message):
  calculator = MeanAveragePrecisionCalculator(2)
  with pytest.raises(ValueError, match=message):
    calculator.accumulate(*arguments)
  assert calculator.is_empty()


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(classes=[0]), r"\(1,\), \(2,\) and \(2,\)"),
    (dict(hits=[True]), r"\(2,\), \(2,\) and \(1,\)"),
    (
      dict(classes=[[0, 1]], scores=[[0.5, 0.4]], hits=[[1, 1]]),
      r"shape \[N\], got \(1, 2\)",
    ),
    (dict(classes=[0, 3]), r"ints in 0\.\.2, got int64 in 0\.\.3"),
    (dict(classes=[-1, 0]), r"in -1\.\.0"),
    (dict(classes=[0.0, 1.0]), "got float64"),
    (dict(scores=[np.nan, 0.5]), "scores must not be NaN"),
    (dict(num_positives=[1, 1]), r"shape \[3\], got \(2,\)"),
    (dict(num_positives=[1, 0.5, 1]), "num_positives must be whole"),
  ],
)
def test_accumulate_pairs_checks_its_arguments(change, message):
  calculator = MeanAveragePrecisionCalculator(3)
  arguments = dict(
    classes=[0, 2],
    scores=[0.5, 0.4],
    hits=[True, False],
    num_positives=[1, 0, 1],
  )
  with pytest.raises(ValueError, match=message):
    calculator.accumulate_pairs(**(arguments | change))
  assert calculator.is_empty()
  calculator.accumulate_pairs(**arguments)
  assert calculator.peek_map_at_n() == [1.0, 0.0]
