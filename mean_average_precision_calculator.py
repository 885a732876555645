"""Mean average precision over classes, under the starter code's names."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

import average_precision_calculator as ap_calculator


class MeanAveragePrecisionCalculator:
  """Average precision of every class, gathered batch by batch.

  The definition, ties and memory are those of `average_precision_calculator`.
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
      filter_empty_classes: leaves classes without positives out; else 0.0.
      top_n: int >= 0, the last rank of each class that counts; None for all.
    """
    self._num_class = ap_calculator.as_int(num_class, "num_class", 2)
    self._filter_empty_classes = filter_empty_classes
    self._rankings = ap_calculator.Rankings(self._num_class, top_n)

  def accumulate(
    self,
    predictions: Sequence[ArrayLike],
    actuals: Sequence[ArrayLike],
    num_positives: Sequence[int | None] | None = None,
  ) -> None:
    """Adds the pairs of each class, or raises ValueError and adds nothing.

    Args:
      predictions: num_class lists or arrays of floats, of any lengths.
      actuals: as many, of the same lengths; > 0 is a positive.
      num_positives: num_class ints >= 0, the positives there are of each
        class, of which some may be missing from `actuals`. None, for all
        classes or for one, counts `actuals`.
    """
    if num_positives is None:
      num_positives = [None] * self._num_class
    sizes = [len(predictions), len(actuals), len(num_positives)]
    if sizes != [self._num_class] * 3:
      raise ValueError(
        f"Need {self._num_class} classes of predictions, actuals and "
        f"num_positives, got {sizes}."
      )
    pairs = [
      ap_calculator.as_pairs(*rows, place=f" for class {label}")
      for label, rows in enumerate(zip(predictions, actuals))
    ]
    counts = [
      np.count_nonzero(hits) if given is None else given
      for (_, hits), given in zip(pairs, num_positives)
    ]
    checked = ap_calculator.as_counts(counts, "num_positives")
    for label, (scores, hits) in enumerate(pairs):
      self._rankings.add(label, scores, hits, 0)
    self._rankings.num_positives += checked

  def peek_map_at_n(self) -> list[float]:
    """Returns AP@top_n of each class, in class order; see the constructor."""
    aps = self._rankings.average_precision()
    if self._filter_empty_classes:
      aps = aps[self._rankings.num_positives > 0]
    return aps.tolist()

  def clear(self) -> None:
    """Forgets everything accumulated."""
    self._rankings.clear()

  def is_empty(self) -> bool:
    """Tells whether no class keeps any pair."""
    return self._rankings.num_pairs() == 0
