"""Mean average precision over classes.

The names are those of the YouTube-8M starter code, which holds one heap a
class. Here the pairs of all classes lie in the same arrays, and one pass over
them yields the average precision of every class.
"""

import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

import average_precision_calculator as ap_calculator


class MeanAveragePrecisionCalculator:
  """Average precision of every class, gathered batch by batch.

  The definition, and what becomes of ties, are those of
  `average_precision_calculator`; the memory used is that of its `ScoreGroups`.
  """

  def __init__(
    self,
    num_class: int,
    filter_empty_classes: bool = True,
    top_n: int | None = None,
  ):
    """Starts empty.

    Args:
      num_class: int >= 2.
      filter_empty_classes: whether classes without positives are left out of
        the result; if not, each of them is there as 0.0.
      top_n: int >= 0, the last rank of each class that counts; None for all.

    Raises:
      ValueError: `num_class` or `top_n` is no such number.
    """
    if (
      not isinstance(num_class, numbers.Integral)
      or isinstance(num_class, bool)
      or num_class < 2
    ):
      raise ValueError(f"num_class must be an int >= 2, got {num_class!r}.")
    self._num_class = int(num_class)
    self._filter_empty_classes = filter_empty_classes
    self._groups = ap_calculator.ScoreGroups(self._num_class, top_n)
    self.clear()

  def accumulate(
    self,
    predictions: Sequence[ArrayLike],
    actuals: Sequence[ArrayLike],
    num_positives: Sequence[int | None] | None = None,
  ) -> None:
    """Adds a batch of pairs that are sorted out by class.

    Args:
      predictions: num_class lists or arrays of floats, of any lengths.
      actuals: as many, of the same lengths; > 0 is a positive.
      num_positives: num_class ints >= 0, the positives there are of each
        class, of which some may be missing from `actuals`. None, for all
        classes or for one, counts `actuals`.

    Raises:
      ValueError: not num_class of each, lengths that differ, a NaN prediction
        or a bad count. Nothing is accumulated then.
    """
    sizes = [len(predictions), len(actuals)]
    if num_positives is not None:
      sizes.append(len(num_positives))
    if any(size != self._num_class for size in sizes):
      raise ValueError(
        f"Need {self._num_class} classes of predictions, actuals and "
        f"num_positives, got {sizes}."
      )
    scores = [ap_calculator.as_scores(row) for row in predictions]
    hits = [ap_calculator.as_hits(row) for row in actuals]
    for label, (score, hit) in enumerate(zip(scores, hits)):
      if score.ndim != 1 or score.shape != hit.shape:
        raise ValueError(
          "predictions and actuals must be of one shape [N], got "
          f"{score.shape} and {hit.shape} for class {label}."
        )
    counted = [np.count_nonzero(hit) for hit in hits]
    if num_positives is not None:
      counted = [
        own if given is None else given
        for own, given in zip(counted, num_positives)
      ]
    lengths = [score.size for score in scores]
    # An empty list is float64 to numpy, and would widen all the others.
    scores = [score for score in scores if score.size]
    self.accumulate_pairs(
      np.repeat(np.arange(self._num_class), lengths),
      np.concatenate(scores) if scores else np.zeros(0, np.float32),
      np.concatenate(hits),
      counted,
    )

  def accumulate_pairs(
    self,
    classes: ArrayLike,
    scores: ArrayLike,
    hits: ArrayLike,
    num_positives: ArrayLike,
  ) -> None:
    """Adds a batch of pairs of any classes, in any order.

    Args:
      classes: int [N], in 0..num_class-1.
      scores: float [N].
      hits: bool [N] or numeric; > 0 is a positive.
      num_positives: int [num_class], the positives there are of each class in
        this batch, of which some may be missing from `hits`.

    Raises:
      ValueError: shapes that differ, a class out of range, a NaN score or a
        bad count. Nothing is accumulated then.
    """
    classes = np.asarray(classes)
    scores = ap_calculator.as_scores(scores, "scores")
    hits = ap_calculator.as_hits(hits)
    if scores.ndim != 1 or not classes.shape == scores.shape == hits.shape:
      raise ValueError(
        "classes, scores and hits must be of one shape [N], got "
        f"{classes.shape}, {scores.shape} and {hits.shape}."
      )
    if classes.size and (
      classes.dtype.kind not in "iu"
      or classes.min() < 0
      or classes.max() >= self._num_class
    ):
      raise ValueError(
        f"classes must be ints in 0..{self._num_class - 1}, got "
        f"{classes.dtype} in {classes.min()}..{classes.max()}."
      )
    num_positives = ap_calculator.as_counts(num_positives, "num_positives")
    if num_positives.shape != (self._num_class,):
      raise ValueError(
        f"num_positives must be of shape [{self._num_class}], got "
        f"{num_positives.shape}."
      )
    self._groups.add(classes, scores, hits)
    self._num_positives += num_positives

  def peek_map_at_n(self) -> list[float]:
    """Returns AP@top_n of each class, in class order; see the constructor."""
    aps = self._groups.average_precision(self._num_positives)
    if self._filter_empty_classes:
      aps = aps[self._num_positives > 0]
    return aps.tolist()

  def clear(self) -> None:
    """Forgets everything accumulated."""
    self._groups.clear()
    self._num_positives = np.zeros(self._num_class, np.int64)

  def is_empty(self) -> bool:
    """Tells whether no class keeps any pair."""
    return self._groups.num_groups == 0
