"""Labels of clips from a spreadsheet, and which part of a set a clip is in.

A table has a line a clip, with an id (with the ending of its file or without)
and names separated by ;, or a column of 0 and 1 for each label. Ids may come on
several lines, with a label each.
"""

import collections
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from console import messages
from recording import clip_tables

SEPARATOR = ";"
PARTS = ("train", "validate", "test")

_YES = ("1", "1.0", "true", "yes")
_NO = ("", "0", "0.0", "false", "no", "none", "nan")
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Labels:
  """What a table says.

  Attributes:
    names: of the classes, by their index.
    of: {clip id: sorted classes}; a clip that the table lacks is not there.
    groups: {clip id: its group}, empty without such a column.
    strays: ids of the table that no clip has.
    unknown: {name: lines} of labels that a given vocabulary lacks.
    unused: names of columns that say nothing.
  """

  names: tuple[str, ...]
  of: Mapping[str, list[int]]
  groups: Mapping[str, str]
  strays: Sequence[str]
  unknown: Mapping[str, int]
  unused: Sequence[str]


def read(
  path: str,
  ids: Sequence[str],
  *,
  id_column: str = "",
  label_column: str = "",
  group_column: str = "",
  names: Sequence[str] = (),
) -> Labels:
  """Reads a table of labels.

  Args:
    path: of a CSV or Parquet file.
    ids: of the clips.
    id_column: its name, or "" for one of `clip_tables.ID_COLUMNS`, else the
      first.
    label_column: that of the names, or "" to find it, or columns of 0 and 1.
    group_column: that of the groups, or "".
    names: those of the classes; if not given, those that occur, the most
      frequent first.

  Raises:
    ValueError: a column that is not there, or labels of no clip.
  """
  columns, rows = _open(path, ids)
  at_id = _place(path, columns, "id_column", id_column, clip_tables.ID_COLUMNS)
  at_id = at_id or 0
  at_group = _place(path, columns, "group_column", group_column, ())
  at_label = _place(
    path, columns, "label_column", label_column, clip_tables.LABEL_COLUMNS
  )
  others = [i for i in range(len(columns)) if i not in (at_id, at_group)]
  if at_label is None and len(others) == 1:
    at_label = others[0]
  by_row: dict[str, set[str]] = {}
  groups: dict[str, str] = {}
  yes: dict[str, set[int]] = {}  # Columns that say yes.
  flags = set(others) if at_label is None else set()
  for own_id, row, cells in _lines(rows, at_id, len(columns)):
    found = by_row.setdefault(own_id, set())
    if at_label is not None:
      found.update(_split(row[at_label] if at_label < len(row) else ""))
    for place in list(flags):
      if cells[place].lower() in _YES:
        yes.setdefault(own_id, set()).add(place)
      elif cells[place].lower() not in _NO:
        flags.discard(place)  # It says something else.
    if at_group is not None:
      groups[own_id] = cells[at_group]
  if at_label is None and not flags:
    raise ValueError(
      f"--labels={path} has neither a column of labels (label, labels; or give "
      f"--label_column) nor columns of 0 and 1 among {messages.short(columns)}."
    )
  for own_id, places in yes.items():
    by_row[own_id] |= {columns[place] for place in places & flags}
  if flags:
    names = names or [columns[place] for place in sorted(flags)]
  unused = [columns[i] for i in others if i != at_label and i not in flags]
  return _matched(path, ids, by_row, groups, names, unused)


def _lines(rows, at_id, num_columns):
  """Yields (id, cells as they are, as text) of the rows that have an id."""
  for row in rows:
    cells = ["" if cell is None else str(cell).strip() for cell in row]
    cells += [""] * (num_columns - len(cells))
    if own_id := _tidy(cells[at_id]):
      yield own_id, row, cells


def of_folders(ids: Sequence[str], names: Sequence[str] = ()) -> Labels:
  """Labels that are the first folder of each id, if it has one.

  Raises:
    ValueError: no id has a folder.
  """
  by_row = {each: {each.split("/")[0]} for each in ids if "/" in each}
  if not by_row:
    raise ValueError(
      "--label_folders: no clip lies in a folder of its own in --features."
    )
  return _matched("", ids, by_row, {}, names, ())


def _open(path, ids):
  """(columns, rows) of a table; one without a header gets one."""
  columns, rows = clip_tables.read(path)
  known = (*clip_tables.ID_COLUMNS, *clip_tables.LABEL_COLUMNS)
  if (
    len(columns) == 2
    and clip_tables.find(columns, known) is None
    and _Ids(ids).find(_tidy(columns[0]))
  ):
    first = columns
    return ["id", "labels"], _chain(first, rows)
  return columns, rows


def _chain(first, rows):
  yield first
  yield from rows


def _place(path, columns, flag, name, names):
  """The place of a column: the one that is asked for, or one of some names."""
  found = clip_tables.find(columns, [name.lower()] if name else names)
  if name and found is None:
    raise ValueError(
      f"--{flag}={name} is none of the columns of {path}: "
      f"{messages.short(columns)}."
    )
  return found


def _split(cell):
  """The names in a cell."""
  parts = (
    cell
    if isinstance(cell, (list, tuple))
    else str("" if cell is None else cell).split(SEPARATOR)
  )
  return {str(part).strip() for part in parts} - {""}


def _tidy(clip_id):
  """An id with / between folders."""
  return clip_id.strip().replace("\\", "/").removeprefix("./")


class _Ids:
  """Finds the clip that an id of a table means."""

  def __init__(self, ids):
    self._ids = set(ids)
    bases = collections.Counter(map(os.path.basename, ids))
    self._by_base = {
      os.path.basename(each): each
      for each in ids
      if bases[os.path.basename(each)] == 1
    }

  def find(self, own_id):
    """The clip's id, or ""; with a file's ending, a folder, or without."""
    for text in (own_id, re.sub(r"\.[A-Za-z]\w{0,4}$", "", own_id)):
      if text in self._ids:
        return text
      if os.path.basename(text) in self._by_base:
        return self._by_base[os.path.basename(text)]
    return ""


def _matched(path, ids, by_row, groups, names, unused):
  """`Labels` of what the lines of a table say."""
  known = _Ids(ids)
  of_clip: dict[str, set[str]] = {}
  group_of, strays = {}, []
  for own_id, found in by_row.items():
    clip_id = known.find(own_id)
    if not clip_id:
      strays.append(own_id)
      continue
    of_clip.setdefault(clip_id, set()).update(found)
    if own_id in groups:
      group_of[clip_id] = groups[own_id]
  if not of_clip:
    raise ValueError(
      f"--labels={path} has labels of no clip: its ids are such as "
      f"{messages.short(strays[:_SHOWN])}, those of the clips such as "
      f"{messages.short(list(ids[:_SHOWN]))}."
    )
  counts = collections.Counter(
    name for found in of_clip.values() for name in found
  )
  if not names:
    names = sorted(counts, key=lambda name: (-counts[name], name))
  index = {name: i for i, name in enumerate(names)}
  return Labels(
    tuple(names),
    {
      clip_id: sorted(index[name] for name in found if name in index)
      for clip_id, found in of_clip.items()
    },
    group_of,
    strays,
    {name: n for name, n in counts.items() if name not in index},
    unused,
  )


def split(
  ids: Iterable[str], shares: Sequence[float], groups: Mapping[str, str]
) -> dict[str, str]:
  """{clip id: one of `PARTS`}, by a hash of its group, or of its id.

  A clip stays where it is when others come or go, but that a part which is to
  have a share gets a group if there are enough of them.

  Args:
    ids: of the clips.
    shares: of `PARTS`, >= 0, of a sum of 1.
    groups: {clip id: group}; a clip without one is alone.
  """
  of_group: dict[str, list[str]] = {}
  for clip_id in ids:
    # No group is called as a clip.
    group = f"group {groups[clip_id]}" if groups.get(clip_id) else ""
    of_group.setdefault(group or f"clip {clip_id}", []).append(clip_id)
  places = {group: position(group) for group in of_group}
  ends = [sum(shares[: i + 1]) for i in range(len(shares))]
  part_of = {
    group: next((i for i, end in enumerate(ends) if place < end), _last(shares))
    for group, place in places.items()
  }
  for i, share in enumerate(shares):
    counts = collections.Counter(part_of.values())
    if share and not counts[i]:
      spare = [group for group in part_of if counts[part_of[group]] > 1]
      middle = ends[i] - share / 2
      if spare:
        part_of[min(spare, key=lambda g: abs(places[g] - middle))] = i
  return {
    clip_id: PARTS[part_of[group]]
    for group, members in of_group.items()
    for clip_id in members
  }


def _last(shares):
  """The last part that is to have a share: sums may miss 1 by a little."""
  return max(i for i, share in enumerate(shares) if share)


def position(text: str) -> float:
  """A number in [0, 1) that depends on a text alone."""
  digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
  return int.from_bytes(digest[:8], "big") / 2**64
