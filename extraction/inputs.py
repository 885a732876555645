"""From a file to what its encoders take. Without TensorFlow: it runs in many
processes. Axes: T frames, S samples."""

import fractions
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from extraction import logmel, media, preprocessing


def decode(
  path: str,
  fps: float,
  max_frames: int,
  wanted: Mapping[str, preprocessing.Preprocessing],
  threads: int = 0,
) -> dict[str, np.ndarray]:
  """Decodes a file for some encoders.

  Args:
    path: of a local file.
    fps: float > 0, rows a second.
    max_frames: int >= 1.
    wanted: {feature: what its encoder takes}.
    threads: int, of the decoder; 0 for as many as it likes.

  Returns:
    {feature: array [T, ...]}: pictures as `Preprocessing.cut` makes them, the
    one on screen at k / fps seconds; log-mel patches or waveforms that begin
    there. With pictures, T is their number: sound is cut, or goes on silent.

  Raises:
    as `media.read`.
  """
  cuts = {
    name: each.cut
    for name, each in wanted.items()
    if each.input == preprocessing.PICTURE
  }
  found = media.read(
    path,
    media.Wanted(fps, max_frames, bool(cuts), len(cuts) < len(wanted), threads),
    lambda picture: {name: cut(picture) for name, cut in cuts.items()},
  )
  arrays = {name: np.stack([p[name] for p in found.pictures]) for name in cuts}
  if found.sound is not None:
    rows = len(found.pictures) or min(
      max_frames, math.ceil(len(found.sound) / media.RATE * fps)
    )
    for name, each in wanted.items():
      if name not in cuts:
        arrays[name] = _sound(found.sound, fps, rows, each)
  return {name: arrays[name] for name in wanted}


def attempt(path: str, *arguments: Any) -> dict[str, np.ndarray] | str:
  """`decode`, but of a file that gives nothing returns why."""
  try:
    return decode(path, *arguments)
  except media.MediaError as error:
    return str(error)
  except OSError as error:
    return error.strerror or str(error)
  except Exception as error:  # Whatever PyAV makes of a hostile file.
    return f"{type(error).__name__}: {error}"


def _sound(sound, fps, rows, wanted):
  """Pieces of a sound [S] that begin at k / fps, the last ones padded."""
  is_mel = wanted.input == preprocessing.LOGMEL
  samples = logmel.SAMPLES if is_mel else wanted.samples
  step = fractions.Fraction(media.RATE) / fractions.Fraction(fps)
  starts = [round(k * step) for k in range(rows)]
  padded = np.zeros(starts[-1] + samples, np.float32)
  length = min(len(sound), len(padded))
  padded[:length] = sound[:length]
  windows = np.stack([padded[start : start + samples] for start in starts])
  return logmel.patches(windows) if is_mel else windows
