"""What numbers a feature has: the range for its bytes, and their resolution.

Axes: T frames, D numbers of a frame.
"""

import numpy as np
from numpy.typing import NDArray

# Numbers that are kept to take quantiles of.
_KEPT = 1_000_000


class Numbers:
  """Numbers of a feature, of which an even share is kept.

  Attributes:
    low: float, the smallest.
    high: float, the largest.
  """

  def __init__(self):
    self.low, self.high = np.inf, -np.inf
    self._kept: list[NDArray] = []
    self._num_kept, self._share = 0, 1.0
    self._rng = np.random.default_rng(0)
    self._count, self._shift = 0, None
    self._sum = self._squares = np.float64(0.0)

  def add(self, frames: NDArray[np.float32]) -> None:
    """Takes frames [T, D]."""
    self.low = min(self.low, float(frames.min()))
    self.high = max(self.high, float(frames.max()))
    if self._shift is None:
      self._shift = frames.mean(axis=0, dtype=np.float64)
    residuals = frames - self._shift
    self._count += len(frames)
    self._sum = self._sum + residuals.sum(axis=0)
    self._squares = self._squares + np.square(residuals).sum(axis=0)
    kept: NDArray = frames.reshape(-1)
    if self._share < 1.0:
      kept = kept[self._rng.random(kept.size) < self._share]
    self._kept.append(kept.copy())
    self._num_kept += kept.size
    while self._num_kept > _KEPT:
      joined = np.concatenate(self._kept)
      joined = joined[self._rng.random(joined.size) < 0.5]
      self._kept, self._num_kept = [joined], joined.size
      self._share /= 2

  def range(self, outside: float) -> tuple[float, float]:
    """The range that holds all numbers but a share of them, on both sides.

    Args:
      outside: that share, in [0, 1).

    Returns:
      (low, high), low < high also where all numbers are the same.
    """
    low, high = self.low, self.high
    if outside:
      values = np.concatenate(self._kept)
      low, high = np.quantile(values, [outside / 2, 1 - outside / 2]).tolist()
    if low >= high:  # Nearly all numbers are the same.
      low, high = self.low, self.high
    if low >= high:
      margin = max(abs(low), 1.0) * 0.5
      low, high = low - margin, high + margin
    # As float32, as which models take them.
    return float(np.float32(low)), float(np.float32(high))

  def num_coarse(self, low: float, high: float) -> int:
    """How many of D vary, but by less than a byte's step over a range."""
    if self._count < 2:
      return 0
    mean = self._sum / self._count
    variance = np.maximum(self._squares / self._count - np.square(mean), 0.0)
    deviations = np.sqrt(variance)
    return int(np.sum((deviations > 0) & (deviations < (high - low) / 255)))


def num_outside(frames: NDArray, low: float, high: float) -> int:
  """How many numbers bytes over a range do not reach."""
  return int(np.count_nonzero((frames < low) | (frames > high)))
