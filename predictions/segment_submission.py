"""The Kaggle CSV file of segments.

Axes: B segments, K classes kept for each.

Byte for byte the starter code's format, a line a class:

    Class,Segments
    7,tEst:10 aB3d:0

the segments descending by score. The file is written as `submission.py` says.
A part of several, which merge.py joins, has the scores too:

    Class,SegmentConfidencePairs
    7,tEst:10 0.98 aB3d:0 0.5
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import files
from console import messages
from predictions import submission

SEGMENT_HEADER = "Class,Segments"
PART_HEADER = "Class,SegmentConfidencePairs"

# A class that was predicted for a segment.
_PAIR = np.dtype([("class", "i4"), ("score", "f4"), ("segment", "i4")])
_MIN_PENDING = 1 << 20


class SegmentWriter:
  """Ranks segments for each class and writes the segment CSV on leaving.

  Attributes:
    num_rows: int, segments seen so far.
    num_duplicates: int, segments left out because they were seen before.
  """

  def __init__(
    self, path: str | os.PathLike, max_per_class: int, is_part: bool = False
  ):
    """Makes the writer.

    Args:
      path: where the file will be. Missing directories are created.
      max_per_class: segments to list for each class, the best.
      is_part: write scores too, and a file without a segment as well.

    Raises:
      ValueError: max_per_class < 1, or path is empty, a directory or a device.
    """
    if max_per_class < 1:
      raise ValueError(f"Need max_per_class >= 1, got {max_per_class}.")
    self.path = files.ReplacedFile(path).path
    self.num_rows = 0
    self.num_duplicates = 0
    self._max_per_class = max_per_class
    self._is_part = is_part
    self._index = {}
    self._kept = np.zeros(0, _PAIR)
    self._pending = []

  def __enter__(self) -> "SegmentWriter":
    return self

  def __exit__(self, exc_type: Any, *unused_exc_info: Any) -> None:
    # Without a segment there is nothing to write, and whoever wrote none says
    # so: an old file stays.
    if exc_type is None and (self.num_rows or self._is_part):
      self._compact()
      names = list(self._index)
      classes, starts = np.unique(self._kept["class"], return_index=True)
      groups = np.split(self._kept, starts[1:])
      with files.ReplacedFile(self.path) as output:
        output.write((PART_HEADER if self._is_part else SEGMENT_HEADER) + "\n")
        for label, group in zip(classes, groups):
          best = [names[segment] for segment in group["segment"].tolist()]
          if self._is_part:
            # Nine digits tell any two float32 apart.
            scores = group["score"].tolist()
            best = [f"{name} {x:.9g}" for name, x in zip(best, scores)]
          output.write(f"{label},{' '.join(best)}\n")

  def write(
    self,
    segment_ids: Sequence[bytes | str] | np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
  ) -> None:
    """Adds a batch.

    Args:
      segment_ids: bytes (UTF-8) or str [B], "<video id>:<start in seconds>".
      classes: int [B, K].
      scores: real [B, K], finite; a score below 0 is passed over.

    Raises:
      ValueError: a segment that is not of that form.
    """
    fresh = []
    for row, segment in enumerate(segment_ids):
      segment = _checked_segment(segment)
      if segment in self._index:
        self.num_duplicates += 1
      else:
        self._index[segment] = self.num_rows
        self.num_rows += 1
        fresh.append(row)
    pairs = np.empty((len(fresh), classes.shape[1]), _PAIR)
    pairs["class"] = classes[fresh]
    pairs["score"] = scores[fresh]
    pairs["segment"] = np.arange(self.num_rows - len(fresh), self.num_rows)[
      :, np.newaxis
    ]
    self._pending.append(pairs[pairs["score"] >= 0])
    if sum(map(len, self._pending)) > max(len(self._kept), _MIN_PENDING):
      self._compact()

  @staticmethod
  def fits(segment: bytes | str) -> bool:
    """Whether "<video id>:<start>" can stand in the CSV: no blanks either."""
    return submission.passes(_checked_segment, segment)

  @staticmethod
  def video_of(row_id: bytes) -> bytes:
    """The video of a segment."""
    return row_id.rpartition(b":")[0]

  def _compact(self) -> None:
    """Keeps the best of each class; earlier segments first among equals."""
    pairs = np.concatenate([self._kept, *self._pending])
    pairs = pairs[
      np.lexsort((pairs["segment"], -pairs["score"], pairs["class"]))
    ]
    _, starts, counts = np.unique(
      pairs["class"], return_index=True, return_counts=True
    )
    rank = np.arange(len(pairs)) - np.repeat(starts, counts)
    self._kept = pairs[rank < self._max_per_class]
    self._pending = []


def iter_classes(path: submission.Path) -> Iterator[tuple[int, bytes]]:
  """Reads a segment CSV class by class.

  Args:
    path: the file.

  Yields:
    (class, its segments as `parse_segments` takes them).

  Raises:
    ValueError: with file and line, while iterating: wrong header, a line that
      is not a class and segments, a class or segment given twice, a line of
      more than 4 MB.
  """
  seen = set()
  for number, line in submission.iter_lines(path, SEGMENT_HEADER):
    label, comma, segments = line.rstrip(b"\r").partition(b",")
    try:
      if not comma or not label.isdigit():
        raise ValueError(
          f"Need '<class>,<segments>', got {messages.short(line)}."
        )
      if int(label) in seen:
        raise ValueError(f"Class {int(label)} has a line above.")
      names = parse_segments(segments)
      if len(set(names)) != len(names):
        raise ValueError(f"Class {int(label)} lists a segment twice.")
    except ValueError as error:
      raise ValueError(f"{os.fspath(path)}:{number}: {error}") from error
    seen.add(int(label))
    yield int(label), segments


def iter_part(
  path: submission.Path,
) -> Iterator[tuple[int, list[tuple[bytes, float]]]]:
  """Reads a part, see `SegmentWriter`, class by class.

  Yields:
    (class, [(segment, score)]).

  Raises:
    ValueError: with file and line, while iterating: it is no part.
  """
  for number, line in submission.iter_lines(path, PART_HEADER):
    label, _, pairs = line.partition(b",")
    fields = pairs.split()
    try:
      scores = map(float, fields[1::2])
      yield int(label), list(zip(fields[::2], scores, strict=True))
    except ValueError:
      raise ValueError(
        f"{os.fspath(path)}:{number}: Need '<class>,<segments and scores>', "
        f"got {messages.short(line)}."
      ) from None


def parse_segments(segments: bytes) -> list[str]:
  """The segments of a line, best first; raises ValueError for one that is none.

  Args:
    segments: separated by blanks.
  """
  return [_checked_segment(segment) for segment in segments.split()]


def _checked_segment(segment: bytes | str) -> str:
  """Returns "<video id>:<start>" as str, or raises ValueError."""
  text = submission.checked_id(segment)
  video_id, _, start = text.rpartition(":")
  # Blanks separate segments. isdigit alone would let "²" through.
  if (
    not video_id
    or text.split() != [text]
    or not (start.isascii() and start.isdigit())
  ):
    raise ValueError(
      f"Need a segment '<video id>:<start>', got {messages.short(text)}."
    )
  return text
