"""What an evaluation says of single classes, pairs of classes and videos.

A `Tables` is filled batch by batch and written as CSV files; what it holds does
not grow with the number of videos.

Axes: B videos of a batch, C classes, K predictions kept, L labels of a batch.
"""

import csv
import heapq
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

import files

# Predictions that are shown of a video.
_SHOWN = 5
# Pairs that wait before equal ones are counted.
_MAX_PENDING = 1 << 20


class Video(NamedTuple):
  """An evaluated video that has labels; the better is the greater.

  Attributes:
    average_precision: float, of its predictions, in [0, 1].
    gain: float, minus its loss.
    video_id: str.
    labels: tuple of int.
    predictions: tuple of (int class, float score), the best first.
  """

  average_precision: float
  gain: float
  video_id: str
  labels: tuple[int, ...]
  predictions: tuple[tuple[int, float], ...]


class Confusion(NamedTuple):
  """Videos with a label that was missed for another class.

  Attributes:
    label: int, the class that the videos have.
    predicted: int, the class that they don't have.
    videos: int, how many.
  """

  label: int
  predicted: int
  videos: int


class Tables:
  """Numbers of single classes, confused pairs, the best and worst videos.

  Of a video with n labels the n best predictions count. A class among them that
  is no label is confused with each label that is not: as many predictions are
  wrong as labels are missed. With one label a video this is the confusion
  matrix, its diagonal left out.

  Attributes:
    average_precision: float64 [C], over the K best predictions of all videos;
      NaN of a class without positives, and of all until `finish`.
    positives: int64 [C], videos that have the class.
    predicted: int64 [C], videos that have the class among their K predictions.
    retrieved: int64 [C], those of them that have it as a label.
  """

  def __init__(self, num_classes: int, num_listed: int):
    """Starts empty.

    Args:
      num_classes: int >= 2, C.
      num_listed: int >= 0, confused pairs, and best and worst videos to list.
    """
    self._num_classes = num_classes
    self._num_listed = num_listed
    self.average_precision: NDArray = np.full(num_classes, np.nan)
    self.positives: NDArray = np.zeros(num_classes, np.int64)
    self.predicted = np.zeros(num_classes, np.int64)
    self.retrieved = np.zeros(num_classes, np.int64)
    self._confusions = _Counter()
    self._best: list[Video] = []  # Heaps, the first to go in front.
    self._worst: list[tuple[tuple[float, float], Video]] = []

  def fetch(self, batch):
    """Tensors of a batch that `add` needs besides its metrics: a dict."""
    if not self._num_listed:
      return {}
    labels = batch["labels"]
    if "label_weights" in batch:
      labels &= batch["label_weights"] > 0
    return {"video_ids": batch["video_ids"], "labels": tf.where(labels)}

  def add(self, metrics, video_ids=None, labels=None):
    """Adds a batch.

    Args:
      metrics: dict of arrays as of `predictor.batch_metrics`, and of `loss`,
        float [B].
      video_ids: bytes [B].
      labels: int64 [L, 2], (place in the batch, class) of each label.
    """
    classes, hits = metrics["classes"], metrics["hits"]
    is_rated = np.isfinite(metrics["scores"])  # All, but in segments.
    for counts, chosen in ((self.predicted, is_rated), (self.retrieved, hits)):
      counts += np.bincount(classes[chosen], minlength=self._num_classes)
    if video_ids is None or not len(labels):
      return
    n = metrics["num_labels"][:, np.newaxis]
    within = np.arange(classes.shape[1]) < n
    self._confusions.add(
      _confused(classes, hits, within, labels, self._num_classes)
    )
    self._add_videos(metrics, video_ids, labels)

  def _add_videos(self, metrics, video_ids, labels):
    """Keeps a batch's videos that are among the best or the worst."""
    gains = -np.asarray(metrics["loss"], np.float64)
    scores = average_precisions(metrics["hits"], metrics["num_labels"])
    labelled = np.flatnonzero(metrics["num_labels"])
    # Ascending: the worst come first.
    order = labelled[np.lexsort((gains[labelled], scores[labelled]))]

    def video(place):
      own = labels[labels[:, 0] == place, 1]
      pairs = zip(metrics["classes"][place], metrics["scores"][place])
      shown = [(int(c), float(s)) for c, s in pairs if np.isfinite(s)][:_SHOWN]
      return Video(
        float(scores[place]),
        float(gains[place]),
        video_ids[place].decode(errors="replace"),
        tuple(own.tolist()),
        tuple(shown),
      )

    for place in order[::-1][: self._num_listed]:
      key = scores[place], gains[place]
      if len(self._best) < self._num_listed:
        heapq.heappush(self._best, video(place))
      elif key > self._best[0][:2]:
        heapq.heapreplace(self._best, video(place))
      else:
        break
    for place in order[: self._num_listed]:
      key = -float(scores[place]), -float(gains[place])
      if len(self._worst) < self._num_listed:
        heapq.heappush(self._worst, (key, video(place)))
      elif key > self._worst[0][0]:
        heapq.heapreplace(self._worst, (key, video(place)))
      else:
        break

  def finish(self, average_precision: NDArray, positives: NDArray) -> None:
    """Takes what the metrics say of each class, see the attributes."""
    self.average_precision, self.positives = average_precision, positives

  def confusions(self) -> list[Confusion]:
    """The pairs that most videos confuse, at most num_listed."""
    keys, counts = self._confusions.get()
    order = np.lexsort((keys, -counts))[: self._num_listed]
    return [
      Confusion(*divmod(int(keys[i]), self._num_classes), int(counts[i]))
      for i in order
    ]

  def best_videos(self) -> list[Video]:
    """The best first, at most num_listed."""
    return sorted(self._best, reverse=True)

  def worst_videos(self) -> list[Video]:
    """The worst first, at most num_listed."""
    return sorted(video for _, video in self._worst)

  def write(
    self, directory: str, ending: str, name: Callable[[int], str]
  ) -> list[str]:
    """Writes `classes`, `confusions` and `videos`, each with the ending.

    Args:
      directory: where to.
      ending: str, what follows each file's name, such as "-100.csv".
      name: function of a class, its name.

    Returns:
      The paths.
    """
    tables = {"classes": self._class_rows(name)}
    if self._num_listed:
      tables["confusions"] = self._confusion_rows(name)
      tables["videos"] = self._video_rows(name)
    paths = []
    for table, rows in tables.items():
      paths.append(os.path.join(directory, f"{table}{ending}"))
      _write(paths[-1], rows)
    return paths

  def _class_rows(self, name):
    yield (
      "index",
      "name",
      "positives",
      "average_precision",
      "predicted",
      "retrieved",
    )
    for i, ap in enumerate(self.average_precision):
      yield (
        i,
        name(i),
        self.positives[i],
        "" if np.isnan(ap) else f"{ap:.6f}",
        self.predicted[i],
        self.retrieved[i],
      )

  def _confusion_rows(self, name):
    yield (
      "label_index",
      "label",
      "predicted_index",
      "predicted",
      "videos",
      "share_of_label",
    )
    for label, predicted, videos in self.confusions():
      share = videos / self.positives[label]
      yield (
        label,
        name(label),
        predicted,
        name(predicted),
        videos,
        f"{share:.4f}",
      )

  def _video_rows(self, name):
    yield "kind", "id", "average_precision", "loss", "labels", "predictions"
    for kind, videos in (
      ("worst", self.worst_videos()),
      ("best", self.best_videos()),
    ):
      for video in videos:
        yield (
          kind,
          video.video_id,
          f"{video.average_precision:.6f}",
          f"{-video.gain:.6g}",
          "; ".join(map(name, video.labels)),
          "; ".join(f"{name(c)} {score:.4f}" for c, score in video.predictions),
        )


class _Counter:
  """Counts equal integers of many arrays."""

  def __init__(self):
    self._values: NDArray = np.zeros(0, np.int64)
    self._counts: NDArray = np.zeros(0, np.int64)
    self._pending: list[NDArray] = []
    self._num_pending = 0

  def add(self, values: NDArray) -> None:
    """Adds int64 [any]."""
    self._pending.append(values)
    self._num_pending += values.size
    if self._num_pending > _MAX_PENDING:
      self.get()

  def get(self) -> tuple[NDArray, NDArray]:
    """The integers, ascending, and how often each came: int64 [N] each."""
    values = np.concatenate([self._values, *self._pending])
    ones = np.ones(self._num_pending, np.int64)
    weights = np.concatenate([self._counts, ones])
    self._values, places = np.unique(values, return_inverse=True)
    self._counts = np.bincount(
      places, weights, minlength=self._values.size
    ).astype(np.int64)
    self._pending, self._num_pending = [], 0
    return self._values, self._counts


def average_precisions(hits: NDArray, num_labels: NDArray) -> NDArray:
  """Average precision of each video's own predictions: float64 [B].

  Args:
    hits: bool [B, K], whether each prediction, the best first, is a label.
    num_labels: int [B]. Of more than K labels K can be found, which is then 1.
  """
  ranks = np.arange(1, hits.shape[1] + 1)
  precision = np.cumsum(hits, axis=1) / ranks
  found = np.sum(precision * hits, axis=1)
  return found / np.clip(num_labels, 1, hits.shape[1])


def _confused(
  classes: NDArray,
  hits: NDArray,
  within: NDArray,
  labels: NDArray,
  num_classes: int,
) -> NDArray:
  """label * C + class of each confused pair of each video: int64 [any].

  Args:
    classes: int [B, K].
    hits: bool [B, K].
    within: bool [B, K], the predictions that count, as many as labels.
    labels: int64 [L, 2], see `Tables.add`.
    num_classes: int, C.
  """
  rows, columns = np.nonzero(within & ~hits)
  wrong = classes[rows, columns]
  counts = np.bincount(rows, minlength=len(classes))
  starts = np.cumsum(counts) - counts  # Where a video's begin in `wrong`.
  found_rows, found = np.nonzero(within & hits)
  found = found_rows * num_classes + classes[found_rows, found]
  missed = labels[~np.isin(labels @ [num_classes, 1], found)]
  # Each missed label comes as often as its video has wrong classes.
  repeats = counts[missed[:, 0]]
  which = np.repeat(np.arange(len(missed)), repeats)
  number = np.arange(which.size) - (np.cumsum(repeats) - repeats)[which]
  videos, missed_labels = missed[which].T
  return missed_labels * num_classes + wrong[starts[videos] + number]


def _write(path: str, rows: Iterable[Any]) -> None:
  with files.ReplacedFile(path) as stream:
    csv.writer(stream, lineterminator="\n").writerows(rows)
