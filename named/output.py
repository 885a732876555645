"""How predictions are shown: as text, as JSON, as CSV."""

import csv
import json
import typing
from collections.abc import Sequence
from typing import Any, NamedTuple

from named import model as model_lib
from named import sources

_BAR = 24  # Characters of a score of 1.
_HEADER = ("file", "id", "start", "end", "rank", "class", "name", "score")


class Window(NamedTuple):
  """A part of a video and what is predicted for it.

  Attributes:
    start: float, seconds.
    end: float.
    prediction: `model.Prediction`.
  """

  start: float
  end: float
  prediction: model_lib.Prediction


class Text:
  """Names with scores and bars."""

  def __init__(self, stream: typing.TextIO):
    """Writes to a stream."""
    self._stream = stream
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
      "█".encode(encoding)
      self._block = "█"
    except (LookupError, UnicodeEncodeError):
      self._block = "#"

  def add(
    self,
    video: sources.Video,
    prediction: model_lib.Prediction,
    windows: Sequence[Window],
  ) -> None:
    """Shows a video's predictions."""
    self._line(f"{video.name} ({video.num_frames} frames)")
    for name, score in zip(prediction.names, prediction.scores):
      bar = self._block * round(float(score) * _BAR)
      self._line(f"  {score:.3f} {bar:<{_BAR}} {name}")
    for window in windows:
      pairs = zip(window.prediction.names, window.prediction.scores)
      told = " | ".join(f"{name} {score:.3f}" for name, score in pairs)
      self._line(f"  {_span(window)}  {told}")

  def _line(self, text):
    encoding = getattr(self._stream, "encoding", None) or "ascii"
    self._stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    self._stream.flush()


class Json:
  """A JSON object a line and video."""

  def __init__(self, stream: typing.TextIO):
    """Writes to a stream."""
    self._stream = stream

  def add(self, video, prediction, windows):
    """See `Text.add`."""
    found = {
      "file": video.file,
      "id": video.video_id or None,
      "frames": video.num_frames,
      "predictions": _pairs(prediction),
    }
    if windows:
      found["windows"] = [
        {"start": w.start, "end": w.end, "predictions": _pairs(w.prediction)}
        for w in windows
      ]
    self._stream.write(json.dumps(found) + "\n")
    self._stream.flush()


class Csv:
  """A row a prediction; start and end are empty in those of whole videos."""

  def __init__(self, stream: typing.TextIO):
    """Writes to a stream."""
    self._writer = csv.writer(stream, lineterminator="\n")
    self._writer.writerow(_HEADER)

  def add(self, video, prediction, windows):
    """See `Text.add`."""
    for start, end, found in (("", "", prediction), *windows):
      for rank, pair in enumerate(_pairs(found), start=1):
        self._writer.writerow(
          [video.file, video.video_id, start, end, rank, *pair.values()]
        )


def _pairs(prediction: model_lib.Prediction) -> list[dict[str, Any]]:
  """What files have of a prediction."""
  return [
    {"class": int(index), "name": name, "score": round(float(score), 6)}
    for index, name, score in zip(
      prediction.classes, prediction.names, prediction.scores
    )
  ]


def _span(window):
  """From when to when, in words."""
  return f"{window.start:6g} - {window.end:g} s"
