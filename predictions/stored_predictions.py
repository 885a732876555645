"""The best predictions of each video in a compact file: write and look up.

Axes: N videos, P pairs of class and score of all videos together.

The file is an uncompressed .npz of arrays:

    ids            uint8, all ids one after the other, UTF-8
    id_ends        int64 [N], where each ends
    classes        int32 [P]
    scores         float16 [P], in [0, 1]
    pair_ends      int64 [N], where the pairs of each video end
    num_classes    int64

With 50 pairs a video these are 320 bytes and the id. In memory an id takes some
200 bytes more, so that a million videos take about 520 MB. A submission, as
`inference.py` or `blend.py` writes it, is read as well, more slowly.
"""

import io
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

import files
from console import messages
from predictions import submission

_Path = str | os.PathLike
# Ids, classes, scores, and where the pairs of each id end.
_Parts = tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray]
# Their types.
ARRAYS = {
  "ids": "uint8",
  "id_ends": "int64",
  "classes": "int32",
  "scores": "float16",
  "pair_ends": "int64",
  "num_classes": "int64",
}
# What reading a damaged archive raises; a RuntimeError where it seems to be
# encrypted, or compressed in some other way.
_DAMAGE = (
  EOFError,
  KeyError,
  RuntimeError,
  ValueError,
  zipfile.BadZipFile,
)


class PredictionsWriter:
  """Writes the file, as a context manager; it appears when the block ends.

  Attributes:
    path: str, where the file will be.
    num_rows: int, videos so far.
    num_duplicates: int, rows left out because their video was there before.
  """

  fits = staticmethod(submission.SubmissionWriter.fits)
  video_of = staticmethod(submission.SubmissionWriter.video_of)

  def __init__(self, path: _Path, num_classes: int):
    """Makes the writer.

    Args:
      path: where the file will be. Missing directories are created.
      num_classes: int, C.

    Raises:
      ValueError: path is empty, a directory, or a device.
    """
    self._output = files.ReplacedFile(path, binary=True)
    self._num_classes = num_classes
    self.path = self._output.path
    self.num_rows = self.num_duplicates = 0
    self._seen: set[bytes] = set()
    self._ids: list[bytes] = []
    self._classes: list[np.ndarray] = []
    self._scores: list[np.ndarray] = []
    self._counts: list[np.ndarray] = []

  def __enter__(self) -> "PredictionsWriter":
    self._file: Any = self._output.__enter__()
    return self

  def write(
    self, video_ids: np.ndarray, classes: np.ndarray, scores: np.ndarray
  ) -> None:
    """Adds a batch; of a video that was there before, the first row stays.

    Args:
      video_ids: bytes [B].
      classes: int [B, K].
      scores: real [B, K], in [0, 1].
    """
    new = []
    for row, video_id in enumerate(video_ids):
      if video_id not in self._seen:
        self._seen.add(video_id)
        self._ids.append(video_id)
        new.append(row)
    self.num_rows += len(new)
    self.num_duplicates += len(video_ids) - len(new)
    kept = np.asarray(classes)[new], np.asarray(scores)[new]
    self._classes.append(kept[0].astype(np.int32).ravel())
    self._scores.append(kept[1].astype(np.float16).ravel())
    self._counts.append(np.full(len(new), kept[0].shape[1], np.int64))

  def __exit__(self, *exc_info: Any) -> None:
    if exc_info[0] is None:
      np.savez(
        self._file,
        ids=np.frombuffer(b"".join(self._ids), np.uint8),
        id_ends=np.cumsum(
          [len(video_id) for video_id in self._ids], dtype="i8"
        ),
        classes=_joined(self._classes, np.int32),
        scores=_joined(self._scores, np.float16),
        pair_ends=np.cumsum(_joined(self._counts, np.int64)),
        num_classes=np.int64(self._num_classes),
      )
    self._output.__exit__(*exc_info)


class StoredPredictions:
  """What such a file, or a submission, says of each video.

  Attributes:
    num_videos: int, N.
  """

  def __init__(self, path: _Path, num_classes: int):
    """Reads the file.

    Args:
      path: .npz of `PredictionsWriter`, or CSV of videos.
      num_classes: int, C; the file is to be of as many, or of none beyond.

    Raises:
      ValueError: neither of these formats, damaged, of other classes, or a
        score outside of [0, 1].
    """
    with files.gfile().GFile(os.fspath(path), "rb") as stream:
      is_archive = stream.read(2) == b"PK"
    ids, classes, scores, ends = (
      _read_archive(path, num_classes) if is_archive else _read_csv(path)
    )
    if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
      raise ValueError(
        f"{path} has class {classes.max()}, but --num_classes={num_classes}."
      )
    if not np.all((scores >= 0) & (scores <= 1)):
      raise ValueError(f"{path} has scores outside of [0, 1].")
    self.num_videos = len(ids)
    self._rows = {video_id: row for row, video_id in enumerate(ids)}
    self._classes, self._scores, self._ends = classes, scores, ends

  def of(self, video_id: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """(int32 [K] classes, float16 [K] scores) of a video, or None."""
    row = self._rows.get(video_id)
    if row is None:
      return None
    start = self._ends[row - 1] if row else 0
    pairs = slice(start, self._ends[row])
    return self._classes[pairs], self._scores[pairs]


def _read_archive(path: _Path, num_classes: int) -> _Parts:
  """(list of bytes ids, classes, scores, pair_ends) of an .npz."""
  try:
    with files.gfile().GFile(os.fspath(path), "rb") as stream:
      with np.load(io.BytesIO(stream.read()), allow_pickle=False) as stored:
        found = {
          name: np.asarray(stored[name], dtype)
          for name, dtype in ARRAYS.items()
        }
  except _DAMAGE as error:
    raise ValueError(
      f"{path} is damaged, or was not written by inference.py "
      f"--output_format=npz: {messages.short(str(error))}."
    ) from None
  if found["num_classes"] != num_classes:
    raise ValueError(
      f"{path} is of {found['num_classes']} classes, but "
      f"--num_classes={num_classes}."
    )
  text, ends = found["ids"].tobytes(), found["id_ends"].tolist()
  ids = [text[start:end] for start, end in zip([0, *ends], ends)]
  return ids, found["classes"], found["scores"], found["pair_ends"]


def _read_csv(path: _Path) -> _Parts:
  """The same of a submission."""
  ids, counts = [], []
  classes, scores = bytearray(), bytearray()
  for video_id, row_classes, row_scores in submission.iter_submission(path):
    ids.append(video_id.encode())
    counts.append(len(row_classes))
    classes += row_classes.astype(np.int32).tobytes()
    scores += row_scores.astype(np.float16).tobytes()
  return (
    ids,
    np.frombuffer(classes, np.int32),
    np.frombuffer(scores, np.float16),
    np.cumsum(counts, dtype=np.int64),
  )


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
  """Arrays one after the other; there may be none."""
  return np.concatenate([np.zeros(0, dtype), *parts])
