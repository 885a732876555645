"""Gives freed memory back to the system.

Reading makes strings of all sizes in several threads. Of what these free,
glibc's `malloc` keeps all that lies below something in use: 0.4 GB of a
training on frames. Given back, it is free for whatever asks for memory next.
"""

import ctypes
import time

# At each try all of malloc's lists are gone through: 10 to 30 ms.
_SECONDS = 5.0


class Heap:
  """What `malloc` holds for this process."""

  def __init__(self):
    """Starts the clock."""
    # Not of every system.
    self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    self._last = time.monotonic()

  def shrink(self):
    """Gives back what is free, if it is time to; whether it did."""
    now = time.monotonic()
    if not self._trim or now - self._last < _SECONDS:
      return False
    self._last = now
    return bool(self._trim(0))
