"""What make_records.py has done: a file in its output_dir, to go on from.

The directory is its own: what it did not begin it does not touch.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from typing import Any

import files

FILE_NAME = "make_records.json"
# A folder of a table's rows as numbers, while it works.
ROWS = "rows"
_VERSION = 1


@dataclasses.dataclass
class Progress:
  """How far a run has come.

  Attributes:
    directory: str, the output_dir.
    settings: dict of what must be the same to go on.
    skipped: {clip id: why}.
    facts: dict of what passes over the clips found out, by name.
    shards: {file name: dict of counts} of those that are whole.
  """

  directory: str
  settings: dict[str, Any]
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)
  shards: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

  def save(self) -> None:
    """Writes the file."""
    values = dataclasses.asdict(self)
    del values["directory"]
    text = json.dumps({"version": _VERSION, **values}, indent=1) + "\n"
    files.write_text(os.path.join(self.directory, FILE_NAME), text)


def load(directory: str) -> Progress:
  """What is known of a directory.

  Raises:
    ValueError: its file is not one of this module.
    FileNotFoundError: it has none.
  """
  path = os.path.join(directory, FILE_NAME)
  try:
    with open(path, encoding="utf-8") as stream:
      values = json.load(stream)
    if values.pop("version") == _VERSION:
      return Progress(directory, **values)
  except (AttributeError, KeyError, TypeError, ValueError):
    pass
  raise ValueError(f"{path} is not make_records.py's: give another folder.")


def begin(directory: str, settings: dict[str, Any]) -> Progress:
  """Begins, or goes on with what an earlier run of the same settings began.

  Args:
    directory: str, made if need be.
    settings: for JSON.

  Raises:
    ValueError: the directory holds something else.
  """
  path = os.path.join(directory, FILE_NAME)
  settings = json.loads(json.dumps(settings))
  if os.path.exists(path):
    found = load(directory)
    changed = [
      name for name in settings if found.settings.get(name) != settings[name]
    ]
    if changed and (found.facts or found.shards):
      raise ValueError(
        f"--output_dir={directory} holds records that were made with another "
        f"{', '.join(changed)}: give another folder, or delete this one."
      )
    if not changed:
      return found
    # Nothing came of it: a mistake was told, and is mended now.
    shutil.rmtree(os.path.join(directory, ROWS), ignore_errors=True)
    progress = Progress(directory, settings)
    progress.save()
    return progress
  # Of a run that was killed as it began.
  files.remove_abandoned(directory, re.escape(FILE_NAME))
  if os.path.exists(directory) and (
    not os.path.isdir(directory) or os.listdir(directory)
  ):
    raise ValueError(
      f"--output_dir={directory} holds something that make_records.py did not "
      "write: give an empty folder, or one that is not there yet."
    )
  files.require_writable(directory, "Give another --output_dir.")
  progress = Progress(directory, settings)
  progress.save()
  return progress


def stamp(path: str) -> str:
  """Differs if a file, or what is in a folder, is not what it was."""
  if not path:
    return ""
  paths = [path]
  if os.path.isdir(path):
    paths = [
      os.path.join(parent, name)
      for parent, _, names in os.walk(path)
      for name in names
    ]
  digest = hashlib.sha256()
  for each in sorted(paths):
    fact = os.stat(each)
    known = os.path.relpath(each, path), fact.st_size, fact.st_mtime_ns
    digest.update(repr(known).encode("utf-8", "surrogatepass"))
  return digest.hexdigest()[:16]
