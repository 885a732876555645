"""Decoding in processes of their own, each file within a time limit.

So a file on which FFmpeg hangs or crashes costs its own features and a process,
which another replaces. The processes import the program that was started:
loading TensorFlow would make them slow and large.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from console import flag_fields
from extraction import extractor, inputs, media, packages


def timeout_flag() -> Any:
  """The field --timeout_secs of a program."""
  return flag_fields.real(
    300.0, "Skip a file whose decoding takes longer.", low=0.1
  )


def require() -> Any:
  """The package of the processes.

  Raises:
    ValueError: it is missing, or the one that decodes.
  """
  packages.load("av", "Decoding")
  return packages.load("pebble", "Decoding")


def num_cores() -> int:
  """The processor's cores that this process may use."""
  return len(os.sched_getaffinity(0))


class Decoders:
  """Decodes what an extractor's encoders take."""

  def __init__(self, network: extractor.Extractor, jobs: int, timeout: float):
    """Starts the processes.

    Args:
      network: whose `encode` takes what they make.
      jobs: how many there are.
      timeout: seconds that a file may take.

    Raises:
      ValueError: a package is missing.
    """
    pebble = require()
    self._timeout = timeout
    self._arguments = (
      network.declaration["fps"],
      network.declaration["max_frames"],
      network.takes,
      max(1, num_cores() // jobs),
    )
    # Not forked: TensorFlow has threads here.
    context = multiprocessing.get_context("spawn")
    self._pool = pebble.ProcessPool(jobs, context=context)

  def start(self, path: str) -> Callable[[], dict[str, np.ndarray]]:
    """Begins a file: a function that waits for its arrays.

    The function raises `media.MediaError` if the file gives none.
    """
    future = self._pool.schedule(
      inputs.attempt, args=[path, *self._arguments], timeout=self._timeout
    )

    def result():
      try:
        found = future.result()
      except concurrent.futures.TimeoutError:
        found = f"decoding took more than {self._timeout:g} seconds"
      except Exception as error:  # The process ended, which pebble tells.
        found = f"the decoder crashed: {error}"
      if isinstance(found, str):
        raise media.MediaError(found)
      return found

    return result

  def close(self) -> None:
    """Ends the processes."""
    self._pool.stop()
    self._pool.join()
