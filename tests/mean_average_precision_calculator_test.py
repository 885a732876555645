"""Mean average precision against one average precision calculator a class."""

import numpy as np
import pytest

from average_precision_calculator import AveragePrecisionCalculator
from mean_average_precision_calculator import MeanAveragePrecisionCalculator


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
    single = [AveragePrecisionCalculator(top_n) for _ in range(num_class)]
    for _ in range(3):
      sizes = rng.choice([0, 1, 5, 11], num_class)
      scores = [rng.randint(0, 5, size) / 5 for size in sizes]  # Many ties.
      hits = [rng.rand(size) < 0.4 for size in sizes]
      # Positives that were never retrieved, and what is to be counted.
      counts = [row.sum() + rng.randint(0, 3) for row in hits]
      counts[0] = None
      mean.accumulate(scores, hits, counts)
      for calculator, *batch in zip(single, scores, hits, counts):
        calculator.accumulate(*batch)
    expected = [calculator.peek_ap_at_n() for calculator in single]
    assert mean.peek_map_at_n() == expected


def test_rows_of_arrays_are_accepted():
  calculator = MeanAveragePrecisionCalculator(2)
  calculator.accumulate(
    np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]),
    np.array([[0, 1, 0], [1, 0, 0]]),
    np.array([1, 3]),
  )
  assert calculator.peek_map_at_n() == [1 / 2, 1 / 3]


def test_empty_classes_do_not_widen_float32():
  calculator = MeanAveragePrecisionCalculator(3)
  calculator.accumulate([np.array([0.5], np.float32), [], []], [[1], [], []])
  calculator.peek_map_at_n()
  (run,) = calculator._rankings._groups._runs._runs
  assert run.dtype["score"] == np.float32


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


@pytest.mark.parametrize("num_class", [1, 0, -3, 2.0, "5", True, None])
def test_num_class_must_be_two_or_more(num_class):
  with pytest.raises(ValueError, match=f"int >= 2, got {num_class!r}"):
    MeanAveragePrecisionCalculator(num_class)


def test_top_n_must_be_a_count():
  with pytest.raises(ValueError, match="top_n must be an int >= 0, got -1"):
    MeanAveragePrecisionCalculator(2, top_n=-1)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (([[0.5]], [[1], [0]]), r"Need 2 classes .*, got \[1, 2, 2\]"),
    (([[0.5], [0.4]], [[1]]), r"got \[2, 1, 2\]"),
    (([[0.5], [0.4]], [[1], [0]], [1]), r"got \[2, 2, 1\]"),
    (([[0.5], [0.4]], [[1], [0, 1]]), r"\(1,\) and \(2,\) for class 1"),
    (([[0.5], [[0.4]]], [[1], [[0]]]), r"\(1, 1\) and \(1, 1\) for class 1"),
    (([[0.5], [np.nan]], [[1], [0]]), "must not be NaN"),
    (([[0.5], [0.4]], [[1], [0]], [1, -1]), "num_positives must be whole"),
  ],
)
def test_accumulate_checks_its_arguments(arguments, message):
  calculator = MeanAveragePrecisionCalculator(2)
  with pytest.raises(ValueError, match=message):
    calculator.accumulate(*arguments)
  assert calculator.is_empty()
