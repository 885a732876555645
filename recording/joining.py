"""Joins the folders that make_records.py --shard made into one data set."""

import csv
import os
import shutil

import files
from console import program
from recording import clip_labels, maker, report, resuming
from records import features_file, vocabulary, writer
from sharding import shard as shard_lib


def join(output_dir: str) -> int | None:
  """Makes the set; returns the exit status.

  Records are hard links where the file system has them, and copies else.

  Args:
    output_dir: a new folder; the shards' are beside it.

  Raises:
    ValueError: a shard is missing, not whole, or not of the same command as the
      others; or there is something in output_dir.
  """
  found = shard_lib.find(output_dir)
  shard_lib.check_complete(found, output_dir)
  if os.path.exists(output_dir) and os.listdir(output_dir):
    raise ValueError(
      f"--output_dir={output_dir} holds something: move it, or delete it."
    )
  parts = [resuming.load(found[shard]) for shard in sorted(found, key=_index)]
  for part in parts:
    _check(part, parts[0])
  with files.temporary_directory(output_dir) as temporary:
    whole = os.path.join(temporary, "whole")
    os.mkdir(whole)
    facts = _fill(whole, parts, output_dir)
    if os.path.isdir(output_dir):
      os.rmdir(output_dir)
    os.rename(whole, output_dir)
  print("\n" + report.commands(facts), end="")
  return program.INCOMPLETE if facts.skipped else None


def _index(shard):
  return shard.index


def _check(part, first):
  """Refuses a shard that does not belong to the first."""
  if not part.facts.get("whole"):
    raise ValueError(
      f"{part.directory} is not whole: run --shard={part.settings['shard']} "
      "again."
    )
  other = [
    f"another {name}"
    for name in {**part.settings, **first.settings}
    if name != "shard" and part.settings.get(name) != first.settings.get(name)
  ]
  described = features_file.load(first.directory)
  if features_file.load(part.directory) != described:
    other.append(f"another {features_file.FILE_NAME}")
  if _names(part.directory) != _names(first.directory):
    other.append(f"another {vocabulary.FILE_NAME}")
  if other:
    raise ValueError(
      f"{part.directory} was made with {', '.join(other)} than "
      f"{first.directory}."
    )


def _names(directory):
  """The classes' names; () without a vocabulary."""
  path = vocabulary.find(directory)
  return vocabulary.load(path).names if path else ()


def _fill(whole, parts, output_dir):
  """Writes all files of the set; returns the facts of its report."""
  first = parts[0].directory
  described = features_file.load(first)
  if not described:
    raise ValueError(f"{first} has lost its {features_file.FILE_NAME}.")
  for name in [features_file.FILE_NAME, *(f.pca for f in described.features)]:
    if name:
      shutil.copyfile(os.path.join(first, name), os.path.join(whole, name))
  shards = {}
  for kind in clip_labels.PARTS:
    own = [
      (part, name)
      for part in parts
      for name in sorted(part.shards)
      if name.startswith(f"{kind}-")
    ]
    for (part, name), path in zip(own, writer.shard_paths("", kind, len(own))):
      _link(os.path.join(part.directory, name), os.path.join(whole, path))
      shards[path] = part.shards[name]
  names, skipped = _names(first), _skipped(parts)
  has_labels = any(shard["labels"] for shard in shards.values())
  facts = report.Facts(
    output_dir=output_dir,
    features=parts[0].settings["features"],
    description=described,
    notes=parts[0].facts["notes"],
    # What its table lacks is in each shard's own report.
    labels=clip_labels.Labels(names, {}, {}, (), {}, ())
    if has_labels
    else None,
    names=names,
    strays=(),
    num_unlisted=0,
    num_cut=sum(part.facts["num_cut"] for part in parts),
    skipped=skipped,
    parts=report.totals(shards),
    example="",
  )
  if names:
    counts = report.counts(facts, "train")
    vocabulary.save(os.path.join(whole, vocabulary.FILE_NAME), names, counts)
  maker.write_skipped(os.path.join(whole, maker.SKIPPED), skipped)
  text = report.text(facts)
  files.write_text(
    os.path.join(whole, report.FILE_NAME), text + report.table(facts)
  )
  print(text, end="")
  return facts


def _link(source, path):
  try:
    os.link(source, path)
  except OSError:  # Another disk, or one without links.
    shutil.copyfile(source, path)


def _skipped(parts):
  """(file, why) of all shards, each once."""
  found = {}
  for part in parts:
    path = os.path.join(part.directory, maker.SKIPPED)
    if os.path.exists(path):
      with open(path, encoding="utf-8", newline="") as stream:
        found |= {tuple(row): None for row in list(csv.reader(stream))[1:]}
  return list(found)
