"""Videos and sounds for make_records.py: extract.py makes their features."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from console import program
from sharding import shard as shard_lib

_PROGRAM = os.path.join(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "extract.py"
)
# Encoders that need no file.
_BUILT_IN = ("efficientnet-lite0", "logmel")


def paths_of(directory: str) -> dict[str, str]:
  """{clip id: path} of a folder's videos and sounds; {} if it has none.

  Raises:
    ValueError: two of them have one id.
  """
  from extraction import clips

  try:
    return {clip.id: clip.path for clip in clips.find(directory)}
  except clips.NoClipError:
    return {}


def extract(
  directory: str, output_dir: str, options: Mapping[str, Any]
) -> list[tuple[str, str]]:
  """Makes the features of a folder's videos and sounds that are not there yet.

  In a process of its own: those that it starts need no TensorFlow.

  Args:
    directory: the folder.
    output_dir: where to write an .npz a clip.
    options: flags of extract.py, by name; empty ones are left out.

  Returns:
    list of (file, why) of what could not be used.

  Raises:
    KeyboardInterrupt: extract.py was stopped.
    program.UserError: it failed, and has said why.
  """
  from extraction import clips

  given = {"input": directory, "output_dir": output_dir, **options}
  flags = [f"--{name}={value}" for name, value in given.items() if value]
  status = subprocess.run([sys.executable, _PROGRAM, *flags]).returncode
  if status in (program.STOPPED, -signal.SIGINT):
    raise KeyboardInterrupt
  if status not in (0, program.INCOMPLETE):
    raise program.UserError(
      f"extract.py, which makes the features of {directory}, failed."
    )
  shard = shard_lib.parse(options.get("shard", ""))
  path = os.path.join(output_dir, clips.SKIPPED)
  path = shard.path(path) if shard else path
  if not os.path.exists(path):
    return []
  with open(path, encoding="utf-8", newline="") as stream:
    return [(row[0], row[1]) for row in list(csv.reader(stream))[1:]]


def options_of(
  extractors: Sequence[Mapping[str, Any] | None],
) -> dict[str, Any]:
  """Flags of extract.py that make features as declarations say.

  Raises:
    ValueError: an encoder that is a file, or no declaration.
  """
  encoders, found = [], {}
  for declaration in filter(None, extractors):
    for name, encoder in declaration.get("encoders", {}).items():
      if encoder.get("kind") not in _BUILT_IN:
        raise ValueError(
          f"--like: {name!r} was made by a network of its own: give --encoder, "
          "--fps and --max_frames as then."
        )
      encoders.append(f"{name}={encoder['kind']}")
      found = {
        "fps": declaration.get("fps"),
        "max_frames": declaration.get("max_frames"),
      }
  if not encoders:
    raise ValueError(
      "--like does not say what made its features: give --encoder."
    )
  return {"encoder": ",".join(encoders), **found}
