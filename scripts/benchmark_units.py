"""What `benchmark.py` measures and with which sizes; calls in forks.

Axes: B videos, T frames, K centres, C classes.
"""

import dataclasses
import multiprocessing
import os
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

FEATURES = ("rgb", "audio")
GIGA = 1e9

Rows = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Settings:
  """The sizes and budgets of all measurements; most are the flag of the name.

  Attributes:
    data_dir: directory of frame/*.tfrecord and video/*.tfrecord.
    feature_sizes: sizes of rgb and audio.
    num_classes: C.
    batch_size: B of frame-level models.
    video_batch_size: B of video-level models.
    clusters: K.
    hidden_size: units of the hidden layer.
    frames: T, sampled of each video.
    max_frames: T of all frames of a video.
    shuffle_buffer: records in the buffer of the reader alone.
    metrics_videos: videos to compute metrics of.
    repeats: rounds that are wanted.
    seconds: budget of a measurement.
    memory_gb: memory in which the largest batch is looked for.
  """

  data_dir: str
  feature_sizes: tuple[int, ...]
  num_classes: int
  batch_size: int
  video_batch_size: int
  clusters: int
  hidden_size: int
  frames: int
  max_frames: int
  shuffle_buffer: int
  metrics_videos: int
  repeats: int
  seconds: float
  memory_gb: float

  @property
  def budget(self) -> dict[str, Any]:
    """Arguments of `benchmark_tools.measure`."""
    return {"repeats": self.repeats, "seconds": self.seconds}

  def pattern(self, level: str) -> str:
    """The files of level "frame" or "video"."""
    return os.path.join(self.data_dir, level, "*.tfrecord")


class Unit(NamedTuple):
  """What one process measures.

  Attributes:
    case: the table it belongs to.
    name: its row, or what it is called if it makes several.
    function: a key of `benchmark_cases.FUNCTIONS`, called with `Settings`.
    arguments: further arguments, of JSON's types.
  """

  case: str
  name: str
  function: str
  arguments: dict[str, Any]


class UnitFailed(Exception):
  """A process failed; the message is the end of what it said."""


def run_forked(function: Callable, *arguments: Any, **options: Any) -> Any:
  """What a function returns in a fork of this process.

  For peak memory, in a process that has only imported so far: TensorFlow, once
  it has computed something, has threads, which a fork would lack. To import all
  of it once more would take most of the time.

  Raises:
    UnitFailed: the function failed.
  """
  context = multiprocessing.get_context("fork")
  receiver, sender = context.Pipe(duplex=False)

  def send():
    try:
      sender.send((function(*arguments, **options), None))
    except Exception:  # Handed on, with its traceback, to the parent.
      sender.send((None, traceback.format_exc()))

  process = context.Process(target=send)
  process.start()
  sender.close()
  try:
    result, error = receiver.recv()
  except EOFError:
    result, error = None, "killed, for want of memory?"
  process.join()
  if error:
    raise UnitFailed(f"{function.__name__}, {options}: {error}")
  return result
