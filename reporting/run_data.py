"""What is read of a run for its page."""

import csv
import dataclasses
import io
import json
import os
import re
from typing import Any

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tb_logging

import files
import model_flags
from checkpoints import evaluations, events

# Scalars of training and evaluation, in this order, see `events.common`.
TAGS = ("GAP", "MAP", "Hit@1", "PERR", "loss", "learning_rate")
# Points of a curve that are kept.
_POINTS = 1000


@dataclasses.dataclass
class Run:
  """A run.

  Attributes:
    name: str.
    directory: str.
    flags: dict of the model flags.
    command: str, what started it; "" if unknown.
    curves: {tag: {"train" or "eval": [(step, value)]}}.
    evaluations: list of dicts, see `evaluation.evaluate`, by step.
    best: dict, the one of them of the best GAP; None without any.
    tables: {"classes", "confusions" or "videos": list of dicts}, of the best
      step, or of the last that has them.
    seen: dict of `examples` and `usage`, likewise, see `pictures.write`.
    tables_step, seen_step: int, or None.
  """

  name: str
  directory: str
  flags: dict[str, Any]
  command: str = ""
  curves: dict[str, dict[str, list[tuple[int, float]]]] = dataclasses.field(
    default_factory=dict
  )
  evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  best: dict[str, Any] | None = None
  tables: dict[str, list[dict[str, str]]] = dataclasses.field(
    default_factory=dict
  )
  seen: dict[str, Any] = dataclasses.field(default_factory=dict)
  tables_step: int | None = None
  seen_step: int | None = None


def is_run(directory: str) -> bool:
  """Whether a directory is a train_dir."""
  if not os.path.isdir(directory):
    return False
  names = os.listdir(directory)
  return model_flags.FILE_NAME in names or any(
    re.fullmatch(events.FILES, name) for name in names
  )


def names(directories: list[str]) -> list[str]:
  """A name for each run: as much of its path's end as tells it from others."""
  paths = [os.path.abspath(path).split(os.sep) for path in directories]
  while len(paths) > 1 and len({path[-1] for path in paths}) == 1:
    paths = [path[:-1] for path in paths]
  for length in range(1, max(map(len, paths)) + 1):
    found = ["/".join(path[-length:]) for path in paths]
    if len({*found}) == len(found):
      break
  return found


def read(directory: str, name: str) -> Run:
  """Reads what training and evaluation left."""
  run = Run(name, directory, {})
  path = os.path.join(directory, model_flags.FILE_NAME)
  if os.path.exists(path):
    run.flags = json.loads(files.read_text(path))
  own = os.path.join(directory, evaluations.DIRECTORY)
  for kind, place in (("train", directory), ("eval", own)):
    if not os.path.isdir(place):
      continue
    scalars, command = _events(place)
    run.command = command or run.command
    for tag, points in scalars.items():
      run.curves.setdefault(tag, {})[kind] = points
  if os.path.isdir(own):
    _read_evaluations(run, own)
  return run


def _events(directory):
  """({tag: [(step, value)]}, the command or "") of TensorBoard's files."""
  tb_logging.get_logger().setLevel("WARNING")  # It tells of every file.
  found = event_accumulator.EventAccumulator(
    directory, size_guidance={"scalars": _POINTS, "images": 1, "tensors": 1}
  )
  found.Reload()
  tags = found.Tags()
  scalars = {
    tag: [(event.step, event.value) for event in found.Scalars(tag)]
    for tag in TAGS
    if tag in tags["scalars"]
  }
  command = ""
  if "command" in tags["tensors"]:
    (text,) = found.Tensors("command")[-1].tensor_proto.string_val
    command = text.decode()
  return scalars, command


def _read_evaluations(run, directory):
  """Reads the results of the data that were evaluated first, and the tables."""
  for kind in ("", "-segments"):
    run.evaluations = evaluations.of_kind(directory, kind)
    if run.evaluations:
      break
  else:
    return
  names = os.listdir(directory)
  run.best = max(run.evaluations, key=lambda results: results["gap"])
  best = run.best["step"]
  if tables := _steps(names, "classes", f"{kind}.csv"):
    run.tables_step = best if best in tables else tables[-1]
    for table in ("classes", "confusions", "videos"):
      path = os.path.join(directory, f"{table}-{run.tables_step}{kind}.csv")
      if os.path.exists(path):
        text = io.StringIO(files.read_text(path), newline="")
        run.tables[table] = list(csv.DictReader(text))
  if seen := _steps(names, "examples", f"{kind}.json"):
    run.seen_step = best if best in seen else seen[-1]
    path = os.path.join(directory, f"examples-{run.seen_step}{kind}.json")
    run.seen = json.loads(files.read_text(path))


def _steps(names, start, end):
  """Steps of the files that have one between a start and an end, ascending."""
  matches = [
    re.fullmatch(rf"{start}-(\d+){re.escape(end)}", name) for name in names
  ]
  return sorted(int(match[1]) for match in matches if match)
