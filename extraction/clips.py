"""Features of many files: a folder of .npz, one a clip.

Files are decoded in processes of their own, several at a time, while this one
runs the encoders; see `decoding`.
"""

from console import program  # isort: skip  (before TensorFlow)

import collections
import contextlib
import csv
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

import files
from console import messages
from extraction import decoding, extractor, media
from records import features_file

SKIPPED = "skipped.csv"
# What of a folder's files is taken for media.
SUFFIXES = frozenset(
  "3g2 3gp aac ac3 aif aiff amr asf au avi caf dv f4v flac flv gif m2ts m2v "
  "m4a m4v mka mkv mov mp2 mp3 mp4 mpe mpeg mpg mts mxf oga ogg ogv opus rm "
  "rmvb ts vob wav webm wma wmv y4m".split()
)
_FILE_COLUMNS = ("file", "path", "filename", "video", "audio")


class NoClipError(ValueError):
  """A folder without a video or a sound."""


class Clip(NamedTuple):
  """A file and the name of what is made of it: `id`.npz, maybe in folders."""

  id: str
  path: str


class Report(NamedTuple):
  """What `extract_all` did.

  Attributes:
    made: int, clips extracted.
    kept: int, those that were there already.
    skipped: list of (path, reason).
  """

  made: int
  kept: int
  skipped: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Job:
  """How to extract.

  Attributes:
    declaration: see `extractor`.
    search: directories of encoders' files.
    output_dir: str.
    jobs: int, processes that decode; 0 for as many as there are cores.
    timeout: float, seconds that decoding one file may take.
    skipped: str, name of the list of files that gave nothing.
  """

  declaration: Mapping[str, Any]
  search: Sequence[str]
  output_dir: str
  jobs: int = 0
  timeout: float = 300.0
  skipped: str = SKIPPED

  def path(self, clip: Clip) -> str:
    """Where a clip's features are."""
    return os.path.join(self.output_dir, f"{clip.id}.npz")


def find(source: str) -> list[Clip]:
  """The clips of a folder, of a CSV or of one file.

  Args:
    source: a folder, searched with those in it for the suffixes of media; a
      CSV with a column `file` (paths from the CSV's folder), and maybe `id`; or
      any other file.

  Raises:
    NoClipError: a folder has none.
    ValueError: there is no such file, the CSV is malformed, or two clips have
      one id.
    OSError: it can't be read.
  """
  if os.path.isdir(source):
    found = sorted(
      os.path.relpath(os.path.join(folder, name), source)
      for folder, _, names in os.walk(source)
      for name in names
      if os.path.splitext(name)[1][1:].lower() in SUFFIXES
      and not name.startswith(".")  # macOS leaves such beside each file.
    )
    if not found:
      raise NoClipError(f"{source} holds no video or sound, by their suffixes.")
    pairs = [(_stem(path), os.path.join(source, path)) for path in found]
  elif source.lower().endswith(".csv"):
    pairs = _from_csv(source)
  elif os.path.exists(source):
    pairs = [(_stem(os.path.basename(source)), source)]
  else:
    raise ValueError(f"There is no {source}.")
  # Of files that differ in their suffix alone, it stays in the name.
  counts = collections.Counter(name for name, _ in pairs)
  clips = [
    Clip(name if counts[name] == 1 else name + os.path.splitext(path)[1], path)
    for name, path in pairs
  ]
  twice = [
    c for c, n in collections.Counter(c.id for c in clips).items() if n > 1
  ]
  if twice:
    raise ValueError(
      f"{source} names {messages.short(twice[0])} more than once: give "
      "each clip an id of its own."
    )
  return clips


def _stem(path):
  return os.path.splitext(path)[0]


def _from_csv(source):
  """(id, path) of each row."""
  with open(source, encoding="utf-8-sig", newline="") as stream:
    reader = csv.DictReader(stream)
    names = {
      (name or "").strip().lower(): name for name in reader.fieldnames or []
    }
    column = next((names[n] for n in _FILE_COLUMNS if n in names), None)
    if column is None:
      raise ValueError(
        f"{source} needs a header with a column file, got "
        f"{messages.short(list(names))}."
      )
    pairs = []
    for row in reader:
      path = (row[column] or "").strip()
      name = (row[names["id"]] or "").strip() if "id" in names else _stem(path)
      inside = os.path.normpath(name)
      if not path or not name or inside.split(os.sep)[0] in ("", ".", ".."):
        if "id" in names or not path:
          raise ValueError(
            f"{source}, line {reader.line_num}: need a file and, for an id, a "
            f"path of no other folder, got {messages.short(row)}."
          )
        inside = os.path.basename(inside)
      pairs.append((inside, os.path.join(os.path.dirname(source), path)))
  if not pairs:
    raise ValueError(f"{source} names no file.")
  return pairs


def extract_all(clips: Sequence[Clip], job: Job) -> Report:
  """Extracts what is not there yet.

  Writes into `job.output_dir` an .npz for each clip, with an array float32
  [T, D] for each feature; `features.json`; and `job.skipped`, the files that
  gave nothing and why.

  Raises:
    ValueError: the directory holds features that were made otherwise, or the
      encoders can't be built.
  """
  decoding.require()
  files.require_writable(job.output_dir, "Choose another --output_dir.")
  stored = features_file.load(job.output_dir)
  if stored:
    _check_same(stored, job)
  todo = [clip for clip in clips if not os.path.exists(job.path(clip))]
  skipped: list[tuple[str, str]] = []
  made = 0
  if todo or not stored:
    network = extractor.Extractor(job.declaration, job.search)
    if not stored:
      features_file.save(job.output_dir, _describe(network))
    try:
      made = _extract(todo, job, network, skipped)
    finally:
      _write_skipped(job, skipped)
  return Report(made, len(clips) - len(todo), skipped)


def _describe(network):
  """The `features_file.Description` of what an extractor makes."""
  parts = extractor.split(network.declaration)
  return features_file.Description(
    tuple(
      features_file.StoredFeature(
        name, size, dtype="float32", extractor=parts[name]
      )
      for name, size in network.sizes.items()
    )
  )


def _check_same(stored, job):
  """Refuses to mix features that are made in two ways."""
  wanted = extractor.split(extractor.checked(job.declaration))
  found = {feature.name: feature.extractor for feature in stored.features}
  for name in dict.fromkeys([*found, *wanted]):
    if name not in wanted:
      told = f"{name}, which --encoder does not name"
    elif name not in found:
      told = f"without {name}, which --encoder names"
    elif found[name] != wanted[name]:
      told = f"{name} of {found[name]}, not of {wanted[name]}"
    else:
      continue
    raise ValueError(
      f"--output_dir={job.output_dir} holds features {told}: give the same "
      "flags, or another directory."
    )


def _extract(todo, job, network, skipped):
  """Decodes, encodes and writes; appends to `skipped`; the number made."""
  made = 0
  with (
    contextlib.closing(program.progress_bar(len(todo), "clips")) as bar,
    contextlib.closing(_decoded(todo, job, network)) as decoded,
  ):
    for clip, result in decoded:
      try:
        _write(job.path(clip), network.encode(result()))
        made += 1
      except media.MediaError as error:
        skipped.append((clip.path, str(error)))
      bar.update()
  return made


def _decoded(todo, job, network):
  """Yields (clip, function that returns its arrays or raises MediaError)."""
  jobs = max(1, min(job.jobs or decoding.num_cores(), len(todo)))
  decoders = decoding.Decoders(network, jobs, job.timeout)
  with contextlib.closing(decoders):
    waiting: collections.deque = collections.deque()
    clips = iter(todo)
    while True:
      # As many as keep the processes busy: pictures take memory.
      while len(waiting) < 2 * jobs and (clip := next(clips, None)):
        waiting.append((clip, decoders.start(clip.path)))
      if not waiting:
        return
      yield waiting.popleft()


def _write(path, arrays):
  with files.ReplacedFile(path, binary=True) as stream:
    np.savez(stream, **arrays)


def _write_skipped(job, skipped):
  path = os.path.join(job.output_dir, job.skipped)
  with files.ReplacedFile(path) as stream:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "reason"])
    writer.writerows((p, messages.cut(r, 500)) for p, r in skipped)
  for name, reason in list(skipped)[:5]:
    logging.warning("Skipped %s: %s.", name, messages.cut(reason, 500))
