"""The Kaggle CSV file of videos: write and read.

Axes: B videos, K classes kept for each.

Byte for byte the starter code's format, UTF-8, lines ended by "\\n". Videos, a
line each, every video once:

    VideoId,LabelConfidencePairs
    tEst,7 0.98 0 0.5 3 0.5

the classes descending by score, equal scores by ascending class; scores as
"%g", six significant digits. That of segments is in segment_submission.py.

A path is anything TensorFlow can open. A file appears under its name complete
or not at all: it is written beside it and renamed. On a local disk the rename
is atomic; elsewhere it is whatever the file system makes of it.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np

import files
from console import messages
from predictions import ids as ids_lib

VIDEO_HEADER = "VideoId,LabelConfidencePairs"

Path = str | os.PathLike

_MAX_CLASS = 2**31 - 1
_FORBIDDEN_IN_IDS = frozenset(",\"'\r\n")
_BUFFER_BYTES = 1 << 20
# Room for two hundred thousand pairs.
_MAX_LINE_BYTES = 1 << 22


def format_line(
  video_id: str, classes: Sequence[int], scores: Sequence[float]
) -> str:
  """Returns one video's line, its "\\n" included.

  Nothing is checked or sorted; `SubmissionWriter` does both.

  Args:
    video_id: the id.
    classes: int [K].
    scores: float [K].
  """
  pairs = " ".join("%i %g" % pair for pair in zip(classes, scores))
  return f"{video_id},{pairs}\n"


class SubmissionWriter:
  """Writes the video CSV, batch by batch, as a context manager.

  The file appears when the `with` block ends. If the block raises, it does
  not, and a file that was there before stays as it was.

  Attributes:
    path: str, where the file will be.
    num_rows: int, videos written so far.
    num_duplicates: int, rows left out because their video was written before.
  """

  def __init__(self, path: Path):
    """Makes the writer; the disk is first touched by the `with`.

    Args:
      path: where the file will be. Missing directories are created.

    Raises:
      ValueError: path is empty, a directory, or a device.
    """
    self._output = files.ReplacedFile(path)
    self.path = self._output.path
    self._reset()

  def __enter__(self) -> "SubmissionWriter":
    self._reset()
    self._file: Any = self._output.__enter__()
    self._file.write(VIDEO_HEADER + "\n")
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self._file = None
    self._output.__exit__(*exc_info)

  def write(
    self,
    video_ids: Sequence[bytes | str] | np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
  ) -> None:
    """Adds a batch, or raises and adds nothing of it.

    Of a video seen before, in this batch or an earlier one, the first row
    stays; the repeat is counted in `num_duplicates`. Equal scores are put in
    the order of their classes.

    Args:
      video_ids: bytes (UTF-8) or str [B].
      classes: int [B, K], >= 0, different within a row.
      scores: real [B, K], finite, descending.

    Raises:
      ValueError: the writer is not open, shapes do not agree, an id could not
        stand in a CSV file, or a row breaks the rules above (named by its
        id).
    """
    if self._file is None:
      raise ValueError(f"Write to {self.path} inside its `with` block only.")
    ids = [checked_id(video_id) for video_id in video_ids]
    classes, scores = _canonical(ids, classes, scores)
    new = self._seen.add([video_id.encode() for video_id in ids])
    lines = [
      format_line(video_id, row_classes, row_scores)
      for video_id, row_classes, row_scores, is_new in zip(
        ids, classes.tolist(), scores.tolist(), new.tolist()
      )
      if is_new
    ]
    self.num_duplicates += len(ids) - len(lines)
    self._file.write("".join(lines))
    self.num_rows += len(lines)

  @staticmethod
  def fits(video_id: bytes | str) -> bool:
    """Whether an id can stand in the CSV: UTF-8, no comma, quote or newline."""
    return passes(checked_id, video_id)

  @staticmethod
  def video_of(row_id: bytes) -> bytes:
    """The video of a row: its id."""
    return row_id

  def _reset(self) -> None:
    self.num_rows = 0
    self.num_duplicates = 0
    self._file = None
    self._seen = ids_lib.Ids()


def iter_submission(
  path: Path,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
  """Reads a video CSV row by row.

  Classes come in the order of the file, sorted or not; a row may have none.

  Args:
    path: the file.

  Yields:
    (video id, int64 [K] classes, float64 [K] scores); K may differ.

  Raises:
    ValueError: with file and line, while iterating: wrong header, a row that
      is not an id and pairs of class and score, a score that is not finite,
      a class given twice, a video seen before, a line of more than 4 MB.
  """
  for video_id, classes, scores in iter_rows(path):
    yield (video_id, np.array(classes, np.int64), np.array(scores, np.float64))


def read_submission(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads a whole video CSV.

  Args:
    path: the file.

  Returns:
    {video id: (int64 [K] classes, float64 [K] scores)}, in the file's order.

  Raises:
    ValueError: see `iter_submission`.
  """
  return {
    video_id: (classes, scores)
    for video_id, classes, scores in iter_submission(path)
  }


def iter_rows(path: Path) -> Iterator[tuple[str, list[int], list[float]]]:
  """Yields (video id, classes, scores); raises as `iter_submission` does."""
  seen = set()
  for number, line in iter_lines(path, VIDEO_HEADER):
    try:
      row = _parse_row(line)
      if row[0] in seen:
        raise ValueError(f"Video {messages.short(row[0])} has a row above")
    except ValueError as error:
      raise ValueError(f"{os.fspath(path)}:{number}: {error}.") from error
    seen.add(row[0])
    yield row


def header_of(path: Path) -> str:
  """The first line of a file, as text; of one that is none, what it can be."""
  with _open(os.fspath(path)) as stream:
    first = stream.read(_BUFFER_BYTES).split(b"\n")[0]
  return first.rstrip(b"\r").decode(errors="replace")


def iter_lines(path: Path, header: str) -> Iterator[tuple[int, bytes]]:
  """Yields (number, line without "\n") of what follows a file's header.

  Raises:
    ValueError: another header, or a line of more than 4 MB.
  """
  path = os.fspath(path)
  with _open(path) as stream:
    lines = _split_lines(stream, path)
    _, first = next(lines, (1, b""))
    if first.rstrip(b"\r") != header.encode():
      raise ValueError(
        f"{path}:1: Need the header {header!r}, got {messages.short(first)}."
      )
    yield from lines


def _open(path: str) -> IO[bytes]:
  # Bytes, decoded line by line, so that a file that is not text has its line
  # named like every other fault.
  if "://" in path:
    return files.gfile().GFile(path, "rb")
  return open(path, "rb", buffering=0)


def _split_lines(stream: IO[bytes], path: str) -> Iterator[tuple[int, bytes]]:
  """Yields (number from 1, line without "\\n") of a binary stream.

  Raises:
    ValueError: a line that is too long, of whatever file that may be.
  """
  number, rest = 1, b""
  while block := stream.read(_BUFFER_BYTES):
    *lines, rest = (rest + block).split(b"\n")
    yield from enumerate(lines, start=number)
    number += len(lines)
    if len(rest) > _MAX_LINE_BYTES:
      raise ValueError(
        f"{path}:{number}: Need lines of at most {_MAX_LINE_BYTES:,} bytes, "
        f"got one that begins with {messages.short(rest)}."
      )
  if rest:
    yield number, rest


def _parse_row(line: bytes) -> tuple[str, list[int], list[float]]:
  """Returns (video id, classes, scores) of a line, or raises ValueError."""
  # A file edited on Windows is as good as any.
  video_id, comma, pairs = line.decode().rstrip("\r").partition(",")
  if not comma:
    raise ValueError(f"Need '<id>,<pairs>', got {messages.short(line)}")
  video_id = checked_id(video_id)
  fields = pairs.split()
  if len(fields) % 2:
    raise ValueError(f"Need pairs of class and score, got {len(fields)} fields")
  classes = [int(field) for field in fields[::2]]
  scores = [float(field) for field in fields[1::2]]
  if classes and not 0 <= min(classes) <= max(classes) <= _MAX_CLASS:
    raise ValueError(
      f"Need classes in [0, {_MAX_CLASS}], got {messages.short(classes)}"
    )
  if len(set(classes)) != len(classes):
    raise ValueError(f"Need each class once, got {messages.short(classes)}")
  if not all(map(math.isfinite, scores)):
    raise ValueError(f"Need finite scores, got {messages.short(scores)}")
  return video_id, classes, scores


def _canonical(
  ids: Sequence[str], classes: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Checks a batch, see `SubmissionWriter.write`; orders equal scores by class.

  Returns:
    int [B, K] classes and float64 [B, K] scores.
  """
  classes, scores = np.asarray(classes), np.asarray(scores)
  if classes.ndim != 2 or not (
    classes.shape == scores.shape == (len(ids), classes.shape[1])
  ):
    raise ValueError(
      f"Need classes and scores of shape [B, K] for B ids, got {len(ids)} "
      f"ids, classes {classes.shape} and scores {scores.shape}."
    )
  if not np.issubdtype(classes.dtype, np.integer):
    raise ValueError(f"Need integer classes, got {classes.dtype}.")
  scores = scores.astype(np.float64)
  ascending = np.sort(classes, axis=1)
  for rule, good, values in (
    ("finite scores", np.isfinite(scores), scores),
    ("descending scores", scores[:, :-1] >= scores[:, 1:], scores),
    (
      f"classes in [0, {_MAX_CLASS}]",
      (classes >= 0) & (classes <= _MAX_CLASS),
      classes,
    ),
    ("each class once", ascending[:, :-1] != ascending[:, 1:], classes),
  ):
    rows = np.flatnonzero(~good.all(axis=1))
    if rows.size:
      raise ValueError(
        f"Video {messages.short(ids[rows[0]])}: need {rule}, got "
        f"{values[rows[0]]}."
      )
  order = np.lexsort((classes, -scores), axis=1)
  return np.take_along_axis(classes, order, axis=1), scores


def passes(check: Callable[[bytes | str], str], text: bytes | str) -> bool:
  """Whether `checked_id`, or a check like it, accepts an id."""
  try:
    check(text)
  except ValueError:  # Of which UnicodeDecodeError is one.
    return False
  return True


def checked_id(video_id: bytes | str) -> str:
  """Returns the id as str, or raises ValueError."""
  text = video_id.decode() if isinstance(video_id, bytes) else video_id
  if (
    not isinstance(text, str)
    or not text
    or not _FORBIDDEN_IN_IDS.isdisjoint(text)
  ):
    raise ValueError(
      "Need a video id (bytes or str) that is not empty and has no comma, "
      f"quote or newline, got {messages.short(text)}"
    )
  return text
