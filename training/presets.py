"""Presets of train.py: files of flags in recipes/, whose comments tell of them.

A file has the form of absl's --flagfile. Its flags stand before those of the
command line, which win.
"""

import pathlib
import re

from console import flag_fields

_DIRECTORY = pathlib.Path(__file__).resolve().parents[1] / "recipes"


def names() -> list[str]:
  """All presets."""
  return sorted(path.stem for path in _DIRECTORY.glob("*.flags"))


def _path(name):
  return _DIRECTORY / f"{name}.flags"


def describe(name: str) -> flag_fields.Description:
  """What --help=PRESET shows: the file's comments, and its flags."""
  lines = _path(name).read_text().splitlines()
  text = [line[2:] for line in lines if line.startswith("# ")]
  given = [line.lstrip("-").split("=", 1) for line in lines if line[:1] == "-"]
  return flag_fields.Description(
    "\n".join(text), {name: "".join(value) or "true" for name, *value in given}
  )


def expand(argv: list[str]) -> list[str]:
  """A command line whose --preset is put in as its --flagfile.

  A preset that does not exist is left to the flag, which names those that do.
  """
  chosen = None
  for i, word in enumerate(argv):
    if word == "--":
      break
    if match := re.fullmatch(r"--?preset(?:=(.*))?", word):
      chosen = (
        match[1] if match[1] is not None else "".join(argv[i + 1 : i + 2])
      )
  if chosen not in names():
    return argv
  return [argv[0], f"--flagfile={_path(chosen)}", *argv[1:]]
