"""Blends Kaggle submissions: the weighted mean of several models' CSVs.

  python blend.py a.csv:0.6 b.csv:0.4 --output_file=c.csv

A weight follows its file after a colon; without one it is 1. Weights are
divided by their sum. A file whose whole name ends like a weight, such as
`run:2`, is that file; say `run:2:1` to weigh it.

--method=mean averages scores. --method=rank averages ranks: a pair's score
becomes its rank among all pairs of its file, divided by their number, so the
best gets 1 and equal scores share their mean rank. No file's own order changes,
and with it neither does its GAP, but files whose scores are spread differently
then count alike.

A video that a file lacks, or a class that it does not list for a video, counts
as 0 there.

Segment CSVs hold no scores: of the n segments that the longest list of a class
has, the first gets 1, the next 1 - 1/n, and so on, whatever --method says.

In memory are 12 bytes a pair of class and score and 16 bytes a video for each
file, some 150 bytes a video once, and for the file that is read as much again:
for two files of 1.1 million videos with 20 pairs each 1.2 GB, and a minute or
two. --method=rank takes half as much more. Of segment CSVs it is about the size
of the files.
"""

from console import program  # isort: skip  (before TensorFlow)

import array
import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm
from absl import logging

import files
from console import flag_fields, messages
from predictions import segment_submission, submission

METHODS = ("mean", "rank")


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Blending"):
  """What blend.py is told."""

  output_file: str = flag_fields.path("", "The CSV to write.", required=True)
  method: str = flag_fields.choice(
    "mean",
    METHODS,
    "Average scores, or ranks within each file. Segments have ranks alone.",
  )
  top_k: int = flag_fields.integer(20, "Classes to keep of a video.", low=1)
  segment_max_pred: int = flag_fields.integer(
    100000, "Of segment CSVs: segments to list for each class.", low=1
  )


class _Table:
  """A video CSV in arrays, which take a fifth of what Python's objects take."""

  def __init__(self, path: str, index: dict[str, int], bar: tqdm.tqdm):
    """Reads a file.

    Args:
      path: str.
      index: {video id: number}; videos that are new to it are added.
      bar: progress bar, of rows.
    """
    self.path = path
    classes, scores = array.array("i"), array.array("d")
    videos, ends = array.array("q"), array.array("q")
    for video_id, row_classes, row_scores in submission.iter_rows(path):
      classes.extend(row_classes)
      scores.extend(row_scores)
      videos.append(index.setdefault(video_id, len(index)))
      ends.append(len(classes))
      bar.update()
    self.videos = np.array(videos, np.int64)
    self._ends = np.array(ends, np.int64)
    self._classes = np.array(classes, np.int32)
    self._scores = np.array(scores, np.float64)

  def rank(self) -> None:
    """Puts ranks, in (0, 1], in the place of scores."""
    if not self._scores.size:
      return
    _, inverse, counts = np.unique(
      self._scores, return_inverse=True, return_counts=True
    )
    ranks = np.cumsum(counts) - (counts - 1) / 2
    self._scores = (ranks / self._scores.size)[inverse]

  def place(self, num_videos: int) -> None:
    """Orders the rows by the videos' numbers; one that it lacks is empty."""
    starts = np.concatenate([[0], self._ends[:-1]])
    self._starts = np.zeros(num_videos, np.int64)
    self._starts[self.videos] = starts
    ends = np.zeros(num_videos, np.int64)
    ends[self.videos] = self._ends
    self._ends = ends

  def pairs(self, video: int) -> Iterator[tuple[int, float]]:
    """The classes and scores of a video, by its number."""
    row = slice(self._starts[video], self._ends[video])
    return zip(self._classes[row].tolist(), self._scores[row].tolist())


def blend(
  paths: Sequence[submission.Path],
  weights: Sequence[float],
  output_path: submission.Path,
  *,
  method: str = "mean",
  top_k: int = 20,
) -> int:
  """Writes the weighted average of video submissions.

  Args:
    paths: the files, of videos in any order.
    weights: for each file a number >= 0; divided by their sum.
    output_path: where the blend will be; none of `paths`.
    method: one of METHODS, see the module's docstring.
    top_k: int >= 1, classes to keep of a video.

  Returns:
    The number of rows written: all videos, in the order in which the files
    first have them.

  Raises:
    ValueError: the arguments are not as described, or a file is malformed
      (see `submission.iter_submission`).
  """
  if method not in METHODS or top_k < 1:
    raise ValueError(
      f"Need method in {METHODS} and top_k >= 1, got {method!r} and {top_k}."
    )
  parts = shares(paths, weights)
  _check_output(output_path, paths)
  # A bad path is known before the reading.
  output = files.ReplacedFile(output_path)
  index: dict[str, int] = {}
  tables = []
  with contextlib.closing(program.progress_bar(0, "rows read")) as bar:
    for path in paths:
      tables.append(_Table(os.fspath(path), index, bar))
      if method == "rank":
        tables[-1].rank()
  _warn_of_missing(tables, list(index))
  for table in tables:
    table.place(len(index))
  with (
    output as stream,
    contextlib.closing(program.progress_bar(len(index), "videos")) as bar,
  ):
    stream.write(submission.VIDEO_HEADER + "\n")
    for number, video_id in enumerate(index):
      sums: dict[int, float] = {}
      for table, share in zip(tables, parts):
        for label, score in table.pairs(number):
          sums[label] = sums.get(label, 0.0) + share * score
      best = _best(sums, top_k)
      scores = [sums[label] for label in best]
      stream.write(submission.format_line(video_id, best, scores))
      bar.update()
  return len(index)


def blend_segments(
  paths: Sequence[submission.Path],
  weights: Sequence[float],
  output_path: submission.Path,
  *,
  max_per_class: int = 100000,
) -> int:
  """Writes the weighted average of the ranks of segment submissions.

  Args:
    paths: the files.
    weights: as of `blend`.
    output_path: as of `blend`.
    max_per_class: int >= 1, segments to list for each class.

  Returns:
    The number of classes written, in ascending order.

  Raises:
    ValueError: as of `blend`, or max_per_class < 1.
  """
  if max_per_class < 1:
    raise ValueError(f"Need max_per_class >= 1, got {max_per_class}.")
  parts = shares(paths, weights)
  _check_output(output_path, paths)
  output = files.ReplacedFile(output_path)
  tables = [dict(segment_submission.iter_classes(path)) for path in paths]
  classes = sorted(set().union(*tables))
  for path, table in zip(paths, tables):
    if len(table) < len(classes):
      logging.warning(
        "%s lacks %d of the %d classes: their segments count as 0 there.",
        path,
        len(classes) - len(table),
        len(classes),
      )
  with (
    output as stream,
    contextlib.closing(program.progress_bar(len(classes), "classes")) as bar,
  ):
    stream.write(segment_submission.SEGMENT_HEADER + "\n")
    for label in classes:
      lists = [
        segment_submission.parse_segments(table.pop(label, b""))
        for table in tables
      ]
      length = max(map(len, lists))
      sums: dict[str, float] = {}
      for segments, share in zip(lists, parts):
        for i, segment in enumerate(segments):
          sums[segment] = sums.get(segment, 0.0) + share * (1 - i / length)
      best = " ".join(_best(sums, max_per_class))
      stream.write(f"{label},{best}\n")
      bar.update()
  return len(classes)


def _best(sums, count):
  """The keys of the largest sums, the lower key first among equals."""
  return sorted(sums, key=lambda key: (-sums[key], key))[:count]


def shares(paths, weights):
  """Weights of paths, divided by their sum; raises as `blend` says."""
  if isinstance(paths, (str, os.PathLike)):
    raise ValueError(f"Need a list of paths, got {paths!r}.")
  if not paths or len(paths) != len(weights):
    raise ValueError(
      f"Need a weight for each of at least one file, got {len(paths)} files "
      f"and {len(weights)} weights."
    )
  total = sum(weights)
  if not (0 < total < math.inf and min(weights) >= 0):
    raise ValueError(
      f"Need finite weights >= 0 that are not all 0, got {list(weights)}."
    )
  return [weight / total for weight in weights]


def _check_output(output_path, paths):
  """Refuses to write over a file that is read."""
  files.check_outputs({"--output_file": output_path}, {"the blend": paths})


def _warn_of_missing(tables, ids):
  """Names what a file lacks."""
  for table in tables:
    count = len(ids) - len(table.videos)
    if not count:
      continue
    missing = np.ones(len(ids), bool)
    missing[table.videos] = False
    some = [messages.short(ids[i]) for i in np.flatnonzero(missing)[:3]]
    logging.warning(
      "%s lacks %d of the %d videos (such as %s): they count as 0 there.",
      table.path,
      count,
      len(ids),
      ", ".join(some),
    )


def parse_source(text: str) -> tuple[str, float]:
  """(path, weight) of an argument, "PATH" or "PATH:WEIGHT".

  Raises:
    ValueError: there is no such file or directory.
  """
  text = os.path.expanduser(text)
  if tf.io.gfile.exists(text):
    return text, 1.0
  path, _, tail = text.rpartition(":")
  try:
    weight = float(tail)
  except ValueError:
    path, weight = text, 1.0
  if not path or not tf.io.gfile.exists(path):
    raise ValueError(f"There is no {path or text}.")
  return path, weight


def define_flags():
  """Defines the flags."""
  flag_fields.define(Config)


def main(arguments):
  """Blends the files that the arguments name."""
  config = flag_fields.from_flags(Config)
  if not arguments:
    raise program.UserError(
      "Name the files to blend, as in: a.csv:0.6 b.csv:0.4"
    )
  paths, weights = zip(*map(parse_source, arguments))
  kinds = {
    submission.header_of(path) == segment_submission.SEGMENT_HEADER
    for path in paths
  }
  if len(kinds) > 1:
    raise program.UserError(
      "Submissions of videos and of segments do not blend with each other."
    )
  if kinds.pop():
    count = blend_segments(
      paths, weights, config.output_file, max_per_class=config.segment_max_pred
    )
    what = "classes"
  else:
    count = blend(
      paths,
      weights,
      config.output_file,
      method=config.method,
      top_k=config.top_k,
    )
    what = "videos"
  logging.info("Wrote %d %s to %s.", count, what, config.output_file)


if __name__ == "__main__":
  define_flags()
  program.run(main, takes_arguments=True)
