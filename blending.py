"""The weighted average of Kaggle CSV files of videos; see submission.py."""

import array
import os
from collections.abc import Iterator, Sequence

import files
import messages
import submission

_Path = str | os.PathLike


def blend(
  paths: Sequence[_Path],
  weights: Sequence[float],
  output_path: _Path,
  top_k: int = 20,
) -> int:
  """Writes the weighted average of submissions.

  A class that a file does not list for a video counts there as score 0. The
  files are held in memory at 12 bytes a pair and some 100 a video.

  Args:
    paths: the files, all of the same videos in any order.
    weights: for each file a number >= 0; divided by their sum.
    output_path: where the blend will be; may be one of `paths`.
    top_k: int >= 1, classes to keep of a video.

  Returns:
    The number of rows written, in the order of the first file.

  Raises:
    ValueError: the arguments are not as described, a file is malformed (see
      `submission.iter_submission`), or the files' videos differ.
  """
  if isinstance(paths, (str, os.PathLike)):
    raise ValueError(f"Need a list of paths, got {paths!r}.")
  if not paths or len(paths) != len(weights):
    raise ValueError(
      f"Need a weight for each of at least one file, got {len(paths)} files "
      f"and {len(weights)} weights."
    )
  total = sum(weights)
  if not (0 < total < float("inf") and min(weights) >= 0):
    raise ValueError(
      f"Need finite weights >= 0 that are not all 0, got {list(weights)}."
    )
  if top_k < 1:
    raise ValueError(f"Need top_k >= 1, got {top_k}.")
  # A bad path is known before the reading.
  output = files.ReplacedFile(output_path)
  tables = [_Table(path) for path in paths]
  for table in tables:
    _check_same_videos(tables[0], table)
  with output as file:
    file.write(submission.VIDEO_HEADER + "\n")
    for video_id in tables[0].rows:
      sums = {}
      for table, weight in zip(tables, weights):
        for label, score in table.pairs(video_id):
          sums[label] = sums.get(label, 0.0) + weight / total * score
      best = sorted(sums, key=lambda label: (-sums[label], label))[:top_k]
      scores = [sums[label] for label in best]
      file.write(submission.format_line(video_id, best, scores))
  return len(tables[0].rows)


class _Table:
  """A submission in arrays, which take a fifth of what Python's objects take.

  Attributes:
    path: str.
    rows: dict of video id to where its pairs begin and end.
  """

  def __init__(self, path: _Path):
    self.path = os.fspath(path)
    self.rows = {}
    self._classes, self._scores = array.array("i"), array.array("d")
    for video_id, classes, scores in submission.iter_submission(path):
      start = len(self._classes)
      self._classes.extend(classes.tolist())
      self._scores.extend(scores.tolist())
      self.rows[video_id] = (start, len(self._classes))

  def pairs(self, video_id: str) -> Iterator[tuple[int, float]]:
    """The classes and scores of a video."""
    row = slice(*self.rows[video_id])
    return zip(self._classes[row], self._scores[row])


def _check_same_videos(first: _Table, other: _Table) -> None:
  """Raises ValueError unless two files have the same videos."""
  if first.rows.keys() != other.rows.keys():
    missing = [x for x in first.rows if x not in other.rows]
    extra = [x for x in other.rows if x not in first.rows]
    raise ValueError(
      f"Blending needs the same videos in every file, but {len(missing)} of "
      f"{first.path} are not in {other.path}{_examples(missing)} and "
      f"{len(extra)} the other way round{_examples(extra)}."
    )


def _examples(ids: Sequence[str]) -> str:
  """Returns " (such as …)" with up to three ids, or nothing for none."""
  return f" (such as {', '.join(map(messages.short, ids[:3]))})" if ids else ""
