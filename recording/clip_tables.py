"""CSV and Parquet files as rows, and copies of them by clip.

A file has a row a frame, with an id that rows of one clip share, or a row a
clip. Numbers stand in columns of their own, or, in Parquet, as lists.
"""

import csv
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import files
from console import messages

Rows = Iterator[Sequence[Any]]

# Names of columns, in small letters.
ID_COLUMNS = (
  "id", "video_id", "clip_id", "clip", "video", "file", "filename", "path",
  "name",
)  # fmt: skip
LABEL_COLUMNS = (
  "labels", "label", "classes", "class", "tags", "tag", "categories",
  "category", "target",
)  # fmt: skip
# What a row may say besides; never a feature's numbers.
_FACTS = (
  "frame", "frame_index", "frame_number", "time", "timestamp", "start", "end",
  "index", "split", "fold", "fps", "duration", "num_frames",
)  # fmt: skip
_PARQUET = (".parquet", ".pq")
_INDEX = "index.json"


def is_table(path: str) -> bool:
  """Whether a path is that of a CSV or Parquet file, by its name."""
  return path.lower().endswith((".csv", ".tsv", *_PARQUET))


def read(path: str) -> tuple[list[str], Rows]:
  """Opens a table.

  Returns:
    (names of the columns, iterator of rows: str of a CSV, else what Parquet
    holds).

  Raises:
    ValueError: it is no such file; also while it is read.
    OSError: it can't be read.
  """
  if path.lower().endswith(_PARQUET):
    return _read_parquet(path)
  rows = _csv_rows(path)
  columns = [str(cell).strip() for cell in next(rows, [])]
  if not columns:
    raise ValueError(f"{path} is empty.")
  return columns, rows


def _csv_rows(path):
  """Yields the rows of a CSV, the first too, whatever it separates cells by."""
  try:
    with open(path, encoding="utf-8-sig", newline="") as stream:
      head = stream.readline()
      delimiter = max(",;\t", key=head.count)
      stream.seek(0)
      for row in csv.reader(stream, delimiter=delimiter):
        if any(cell.strip() for cell in row):
          yield row
  except UnicodeDecodeError:
    raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
  except csv.Error as error:
    raise ValueError(f"{path} is no CSV: {error}.") from None


def _read_parquet(path):
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError:
    raise ValueError(
      f"{path}: reading Parquet needs pyarrow: pip install pyarrow."
    ) from None
  try:
    table = parquet.ParquetFile(path)
  except pyarrow.ArrowException as error:
    raise ValueError(f"{path} is no Parquet file: {error}") from None

  def rows():
    try:
      for batch in table.iter_batches(batch_size=1024):
        yield from zip(*(column.to_pylist() for column in batch.columns))
    except pyarrow.ArrowException as error:
      raise ValueError(f"{path} is damaged: {error}") from None

  return list(table.schema_arrow.names), rows()


def find(columns: Sequence[str], names: Iterable[str]) -> int | None:
  """The place of the first of some names, in any letters; None if of none."""
  small = [column.lower() for column in columns]
  return next((small.index(name) for name in names if name in small), None)


@dataclasses.dataclass(frozen=True)
class Columns:
  """What the columns of a table of features are.

  Attributes:
    id: int, that of the ids.
    features: {name: places of its columns}.
    unused: names of the others.
  """

  id: int
  features: Mapping[str, Sequence[int]]
  unused: Sequence[str]


def columns_of(
  path: str,
  names: Sequence[str],
  default: str,
  id_column: str = "",
  others: Iterable[str] = (),
) -> Columns:
  """Finds out what the columns of a table of features are.

  Columns such as rgb_0, rgb_1 ... are one feature, rgb, and so is one of
  lists; other columns of numbers are one feature together.

  Args:
    path: of the table.
    names: the features to take; all if not given.
    default: the name of a feature that no column names.
    id_column: its name, or "" for one of `ID_COLUMNS`, else the first.
    others: names of columns that are no numbers of features.

  Raises:
    ValueError: no such column, or no numbers.
  """
  columns, rows = read(path)
  first = next(rows, None)
  if first is None:
    raise ValueError(f"{path} has no row.")
  wanted = [id_column.lower()] if id_column else ID_COLUMNS
  id_place = find(columns, wanted)
  if id_place is None and id_column:
    raise ValueError(
      f"--id_column={id_column} is none of the columns of {path}: "
      f"{messages.short(columns)}."
    )
  id_place = id_place or 0
  no_numbers = {*_FACTS, *LABEL_COLUMNS, *(name.lower() for name in others)}
  features: dict[str, list[int]] = {}
  for place, (column, cell) in enumerate(zip(columns, first)):
    if place != id_place and column.lower() not in no_numbers:
      if name := _feature_of(column, cell, default):
        features.setdefault(name, []).append(place)
  missing = [name for name in names if name not in features]
  if missing or not features:
    raise ValueError(
      f"--features={path} has no feature {missing[0] if missing else ''!r}; "
      f"columns of numbers: {messages.short(features)}."
    )
  if names:
    features = {name: features[name] for name in names}
  used = {id_place, *(place for each in features.values() for place in each)}
  unused = [c for place, c in enumerate(columns) if place not in used]
  return Columns(id_place, features, unused)


def _feature_of(column, cell, default):
  """The feature that a column is of, by its name and first cell; or None."""
  if isinstance(cell, (list, tuple)):
    return column
  try:
    float(cell)
  except (TypeError, ValueError):
    return None
  match = re.fullmatch(r"(.*?)[_.\-\[ ]*\d+\]?", column)
  return (match[1] if match else "") or default


def file_of(columns_or_sizes: Mapping[str, Any], name: str) -> str:
  """The name of the file with a feature's numbers."""
  return f"{list(columns_or_sizes).index(name)}.float32"


def copied(path: str, directory: str, columns: Columns) -> dict[str, Any]:
  """Copies a table's numbers into a file a feature, unless that is done.

  Returns:
    dict of `clips`, {id: {feature: [first row, number of rows]}}, `sizes`,
    {feature: numbers of a row}, and `skipped`, [[id, why]].

  Raises:
    ValueError: rows of one id that do not stand together.
  """
  done = os.path.join(directory, _INDEX)
  if os.path.exists(done):
    with open(done, encoding="utf-8") as stream:
      return json.load(stream)
  os.makedirs(directory, exist_ok=True)
  copy = _Copy(path, directory, columns)
  _, rows = read(path)
  for number, row in enumerate(rows, 2):  # The header is the first.
    copy.add(number, row)
  copy.finish()
  index = {"clips": copy.clips, "sizes": copy.sizes, "skipped": copy.skipped}
  files.write_text(done, json.dumps(index))
  return index


class _Copy:
  """Copies rows, holding those of one clip."""

  def __init__(self, path, directory, columns):
    self.clips: dict[str, dict[str, list[int]]] = {}
    self.sizes: dict[str, int] = {}
    self.skipped: list[tuple[str, str]] = []
    self._path, self._columns = path, columns
    self._streams = {
      name: open(os.path.join(directory, file_of(columns.features, name)), "wb")
      for name in columns.features
    }
    self._written = dict.fromkeys(columns.features, 0)
    self._seen: set[str] = set()
    self._id = ""
    self._held: dict[str, list[np.ndarray]] = {}
    self._problem = ""

  def add(self, number, row):
    """Takes a row."""
    cell = row[self._columns.id] if self._columns.id < len(row) else ""
    clip_id = "" if cell is None else str(cell).strip()
    if not clip_id:
      self.skipped.append((f"row {number}", "it has no id"))
      return
    if clip_id != self._id:
      self._end_clip()
      if clip_id in self._seen:
        raise ValueError(
          f"{self._path}, row {number}: {clip_id!r} has come before, and then "
          "another id: rows of one clip must stand together. Sort the file by "
          "its ids."
        )
      self._seen.add(clip_id)
      self._id = clip_id
    if self._problem:
      return
    try:
      for name, places in self._columns.features.items():
        self._held.setdefault(name, []).append(self._frames(row, name, places))
    except (IndexError, TypeError, ValueError) as error:
      self._problem = f"row {number}: {error or 'too few cells'}"

  def _frames(self, row, name, places):
    """The frames [T, D] of a row."""
    cells = [row[place] for place in places]
    if len(cells) == 1 and isinstance(cells[0], (list, tuple)):
      values = np.asarray(cells[0], np.float32)
      values = values.reshape(1, -1) if values.ndim == 1 else values
    else:
      values = np.array([[float(cell) for cell in cells]], np.float32)
    size = self.sizes.setdefault(name, values.shape[1])
    if values.ndim != 2 or values.shape[1] != size:
      raise ValueError(
        f"{name!r} has the shape {list(values.shape)}, where rows before have "
        f"{size} numbers"
      )
    return values

  def _end_clip(self):
    """Writes the clip that is held."""
    if self._problem:
      self.skipped.append((self._id, self._problem))
    elif self._id:
      places = self.clips[self._id] = {}
      for name, parts in self._held.items():
        values = np.concatenate(parts)
        self._streams[name].write(values.astype("<f4").tobytes())
        places[name] = [self._written[name], len(values)]
        self._written[name] += len(values)
    self._id, self._held, self._problem = "", {}, ""

  def finish(self):
    """Ends the files."""
    self._end_clip()
    for stream in self._streams.values():
      stream.close()
