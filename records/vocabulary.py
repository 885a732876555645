"""Names of the classes: `vocabulary.csv`.

That of YouTube-8M has the header Index,TrainVideoCount,KnowledgeGraphId,Name
and more columns. Any CSV with a column for the index and one for the name will
do, and so does a file of one name a line.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import files
from console import flag_fields, messages

FILE_NAME = "vocabulary.csv"

_HEADER = ("Index", "TrainVideoCount", "Name")
# Names of columns, in small letters; the first that is there counts.
_INDEX_COLUMNS = ("index", "class_index", "label_id", "class_id", "id", "class")
_NAME_COLUMNS = ("name", "display_name", "label_name", "class_name", "label")
# A larger index is a mistake: each takes memory.
_MAX_CLASSES = 10_000_000


def flag(use: str = "") -> Any:
  """The field --vocabulary of a program; `use` says what it shows them in."""
  return flag_fields.path(
    "",
    f"Names of the classes{use}: YouTube-8M's vocabulary.csv, or a CSV with "
    "index and name; the model's own if not given.",
  )


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """The classes' names, by their index; "" for a class without one."""

  names: tuple[str, ...]

  def __len__(self) -> int:
    """The largest index of a name, plus one."""
    return len(self.names)

  def name(self, index: int) -> str:
    """A class's name; "class 17" if it has none."""
    known = self.names[index] if 0 <= index < len(self.names) else ""
    return known or f"class {index}"


def find(directory: str) -> str:
  """The path of a directory's `vocabulary.csv`, or ""."""
  path = os.path.join(directory, FILE_NAME)
  return path if files.exists(path) else ""


def of_model(path: str, directory: str) -> Vocabulary:
  """The classes' names, as a model's users see them.

  Args:
    path: --vocabulary, or "" for the directory's own.
    directory: a train_dir; without a vocabulary, no class has a name.
  """
  path = path or find(directory)
  return load(path) if path else Vocabulary(())


def load(path: str) -> Vocabulary:
  """Reads a vocabulary.

  Args:
    path: a CSV with a header that names an index and a name, in any letters; a
      CSV of index,name without a header; or one name a line.

  Raises:
    ValueError: no name in it, an index that is none or comes twice; the message
      names the file and the line.
    OSError: it can't be read.
  """
  try:
    text = files.read_text(path).removeprefix("\ufeff")
    names = dict(_rows(text))
  except (csv.Error, ValueError) as error:  # Of Unicode, too.
    raise ValueError(f"{path} is no vocabulary: {error}") from None
  if not any(names.values()):
    raise ValueError(f"{path} is no vocabulary: it has no name.")
  return Vocabulary(tuple(names.get(i, "") for i in range(max(names) + 1)))


def save(path: str, names: Sequence[str], counts: Iterable[int]) -> None:
  """Writes a vocabulary with YouTube-8M's columns, as far as they are known.

  Args:
    path: the CSV, which is replaced.
    names: of each class.
    counts: of each class, the training videos that have it.
  """
  with files.ReplacedFile(path) as stream:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows(zip(range(len(names)), counts, names, strict=True))


def _rows(text: str) -> Iterator[tuple[int, str]]:
  """Yields (index, name) of a file's lines, each index once."""
  rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(row)]
  columns = [cell.strip().lower() for cell in rows[0]] if rows else []
  index = _first(_INDEX_COLUMNS, columns)
  name = _first(_NAME_COLUMNS, columns)
  has_indices = index is not None and name is not None
  if has_indices:
    rows = rows[1:]
  elif rows and all(len(row) > 1 and row[0].strip().isdigit() for row in rows):
    index, name, has_indices = 0, 1, True
  if not has_indices:
    # Names may have commas of their own.
    lines = (line.strip() for line in text.splitlines())
    yield from enumerate(line for line in lines if line)
    return
  seen = set()
  for row in rows:
    number = _index(row[index] if index < len(row) else "")
    if number in seen:
      raise ValueError(f"the index {number} comes twice.")
    seen.add(number)
    yield number, row[name].strip() if name < len(row) else ""


def _first(names, columns):
  """The place of the first of some names among columns; None if of none."""
  found = [columns.index(name) for name in names if name in columns]
  return found[0] if found else None


def _index(text):
  """The number that a cell holds."""
  text = text.strip()
  if not text.isdecimal() or int(text[:12]) >= _MAX_CLASSES:
    raise ValueError(f"{messages.short(text)} is no index of a class.")
  return int(text)
