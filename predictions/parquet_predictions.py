"""The best predictions of each video, with descriptors, as a Parquet file.

Columns:

    id            string
    classes       list of int32, the best first
    names         list of string, those of the classes
    scores        list of float32
    descriptor    list of float32, of one length; only if asked for

Axes: B videos of a batch, K predictions kept, H numbers of a descriptor.
"""

import os
from typing import Any

import numpy as np

import files
from predictions import ids as ids_lib
from predictions import submission
from records import vocabulary as vocabulary_lib

# Videos of a row group. With 1,024 numbers each they take 16 MB until they are
# written.
_GROUP = 4096


def require() -> Any:
  """pyarrow; ValueError, which tells how to get it, where it is missing."""
  try:
    import pyarrow.parquet
  except ImportError:
    raise ValueError(
      "--output_format=parquet needs pyarrow: pip install -c constraints.txt "
      "-e '.[parquet]'"
    ) from None
  return pyarrow


class ParquetWriter:
  """Writes the file, as a context manager; it appears when the block ends.

  Attributes:
    path: str, where the file will be.
    num_rows: int, videos so far.
    num_duplicates: int, rows left out because their video was there before.
  """

  video_of = staticmethod(submission.SubmissionWriter.video_of)

  def __init__(
    self,
    path: str | os.PathLike,
    vocabulary: vocabulary_lib.Vocabulary | None = None,
  ):
    """Makes the writer.

    Args:
      path: where the file will be. Missing directories are created.
      vocabulary: of the classes; without it none has a name.

    Raises:
      ValueError: path is empty, a directory, or a device; or no pyarrow.
    """
    self._arrow = require()
    self._output = files.ReplacedFile(path, binary=True)
    self._vocabulary = vocabulary or vocabulary_lib.Vocabulary(())
    self.path = self._output.path
    self.num_rows = self.num_duplicates = 0
    self._seen = ids_lib.Ids()
    self._waiting: list[Any] = []
    self._parquet: Any = None

  @staticmethod
  def fits(video_id: bytes) -> bool:
    """Whether an id can be written: UTF-8."""
    try:
      return bool(video_id.decode())
    except UnicodeDecodeError:
      return False

  def __enter__(self) -> "ParquetWriter":
    self._file: Any = self._output.__enter__()
    return self

  def write(
    self,
    video_ids: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    descriptors: np.ndarray | None = None,
  ) -> None:
    """Adds a batch; of a video that was there before, the first row stays.

    Args:
      video_ids: bytes [B].
      classes: int [B, K].
      scores: real [B, K].
      descriptors: float [B, H], in all batches or in none.
    """
    new = np.flatnonzero(self._seen.add(video_ids)).tolist()
    self.num_duplicates += len(video_ids) - len(new)
    if not new:
      return
    if descriptors is not None:
      descriptors = descriptors[new]
    self.num_rows += len(new)
    self._waiting.append(
      self._table(
        [video_ids[row] for row in new], classes[new], scores[new], descriptors
      )
    )
    if sum(table.num_rows for table in self._waiting) >= _GROUP:
      self._flush()

  def __exit__(self, *exc_info: Any) -> None:
    try:
      if exc_info[0] is None:
        if not self.num_rows:
          none = np.zeros((0, 0))
          self._waiting = [self._table([], none, none)]
        self._flush()
        self._parquet.close()
    except BaseException as error:
      self._output.__exit__(type(error), error, error.__traceback__)
      raise
    self._output.__exit__(*exc_info)

  def _table(self, video_ids, classes, scores, descriptors=None):
    """A table of some rows, see `write`."""
    name = self._vocabulary.name
    pa = self._arrow
    columns = {
      "id": pa.array([each.decode() for each in video_ids], pa.string()),
      "classes": self._lists(classes.astype(np.int32)),
      "names": pa.array(
        [[name(c) for c in row] for row in classes], pa.list_(pa.string())
      ),
      "scores": self._lists(scores.astype(np.float32)),
    }
    if descriptors is not None:
      columns["descriptor"] = self._lists(descriptors.astype(np.float32))
    return pa.table(columns)

  def _lists(self, rows):
    """A column of an array's rows."""
    pa = self._arrow
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(rows.ravel()))

  def _flush(self):
    """Writes what waits as a row group."""
    if not self._waiting:
      return
    table = self._arrow.concat_tables(self._waiting).combine_chunks()
    self._waiting = []
    if not self._parquet:
      self._parquet = self._arrow.parquet.ParquetWriter(
        self._file, table.schema
      )
    self._parquet.write_table(table)
