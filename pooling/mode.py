"""What all layers of a model are told alike."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Mode:
  """How layers are built, whatever their sizes.

  Attributes:
    is_training: bool, statistics of the batch and dropout; else averages.
    batch_norm_decay: float in [0, 1), what the averages of statistics keep at
      each update once warm, see `moving_average`.
    add_batch_norm: bool, batch normalisation in layers that also do without.
    dtype: tf.bfloat16, or None for float32 throughout: what linear layers,
      gating and sums of residuals are multiplied in (`products.matmul`).
      Statistics, whitening, distances and Gram matrices, which are differences
      of large numbers, and attention stay float32.

  Raises:
    ValueError: batch_norm_decay outside [0, 1).
  """

  is_training: bool
  batch_norm_decay: float
  add_batch_norm: bool = True
  dtype: Any = None

  def __post_init__(self):
    if not 0.0 <= self.batch_norm_decay < 1.0:
      raise ValueError(
        f"Need 0 <= batch_norm_decay < 1, got {self.batch_norm_decay}."
      )

  def with_batch_norm(self, add_batch_norm):
    """The same, but for batch normalisation: `Mode`."""
    return dataclasses.replace(self, add_batch_norm=add_batch_norm)
