"""Which ids there are, in 8 bytes each: of a million videos a few MB."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hashes(ids: Iterable[bytes]) -> NDArray[np.uint64]:
  """64 bits of each id, [B]."""
  found = [hashlib.blake2b(each, digest_size=8).digest() for each in ids]
  return np.frombuffer(b"".join(found), np.uint64)


class Ids:
  """A set of ids, of which hashes are kept.

  Two ids of a million share theirs in one of 37 million such sets.
  """

  def __init__(self):
    """Starts empty."""
    # Each is sorted, and longer than all that follow together: adding sorts a
    # hash as often as their number doubles.
    self._runs: list[NDArray[np.uint64]] = []

  def add(self, ids: Iterable[bytes]) -> NDArray[np.bool_]:
    """Adds ids: whether each was new, bool [B]; of equal ones the first is."""
    own = hashes(ids)
    new = np.zeros(len(own), bool)
    new[np.unique(own, return_index=True)[1]] = True
    new &= ~self._has(own)
    run = np.sort(own[new])
    while self._runs and self._runs[-1].size <= 2 * run.size:
      run = np.sort(np.concatenate([self._runs.pop(), run]))
    self._runs.append(run)
    return new

  def has(self, ids: Iterable[bytes]) -> NDArray[np.bool_]:
    """Which ids were added, bool [B]."""
    return self._has(hashes(ids))

  def _has(self, own):
    found = np.zeros(len(own), bool)
    for run in self._runs:
      if run.size:
        places = np.minimum(np.searchsorted(run, own), run.size - 1)
        found |= run[places] == own
    return found
