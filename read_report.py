"""Counts what a reader could not use as it stood, and says where it was."""

import collections
import threading

import numpy as np
from absl import logging

# What is counted, and what becomes of the record (training and evaluation).
KINDS = {
  "truncated_record": "the file ends in the middle of it; skipped",
  "bad_checksum": "its checksum is wrong; skipped",
  "unreadable_file": "the file can't be opened or read; skipped",
  "unparsable_record": "not of the expected protocol buffer; skipped",
  "missing_id": "no `id` and no `video_id`; skipped",
  "missing_feature": "a feature of --feature_names is not there; skipped",
  "bad_feature_size": "not the bytes or floats of --feature_sizes; skipped",
  "no_frames": "every feature is there and empty; skipped",
  "unequal_lengths": "features of different lengths; cut to the shortest",
  "label_out_of_range": "a label outside [0, num_classes); label left out",
  "bad_segments": "segments without their labels or scores; skipped",
  "segment_out_of_range": "a segment behind the last frame; left out",
  "no_labels": "no label within [0, num_classes); skipped",
}

# What inference can do without: it predicts for the video all the same.
_HARMLESS_AT_INFERENCE = frozenset({"no_frames", "unequal_lengths"})

# Reads as much as a few shards before it calls a data set unusable.
_HOPELESS = 10000
_LOGGED_EACH = 5
# A bounded list: an endless training run meets a flaw once an epoch.
_KEPT = 1000000


class StrictRecordError(Exception):
  """A record that --strict_records does not accept, or no record at all."""


class ReadReport:
  """Thread-safe counts by kind, with the first problems spelt out.

  A reader's pipeline writes to it from its own threads; programs read it.
  """

  def __init__(self, *, strict: bool = False):
    """Starts at zero.

    Args:
      strict: raise at the first problem instead of counting it.
    """
    self._strict = strict
    self._lock = threading.Lock()
    self._counts = collections.Counter()
    self._problems = []
    self._kept = self._dropped = 0
    self.error = None

  def add(self, kind: str, path: str, record: int, detail: str):
    """Counts a problem.

    Args:
      kind: a key of `KINDS`.
      path: the file.
      record: number of the record in its file, from 0.
      detail: what exactly is wrong.

    Raises:
      StrictRecordError: if strict; kept in `error`, as TensorFlow reports it in
        its own words.
    """
    text = f"{path}, record {record}: {kind.replace('_', ' ')}: {detail}"
    with self._lock:
      self._counts[kind] += 1
      if len(self._problems) < _KEPT:
        self._problems.append((kind, text))
      if self._counts[kind] <= _LOGGED_EACH:
        logging.warning("%s (%s)", text, KINDS[kind].rsplit("; ")[-1])
      if self._strict:
        self.error = self.error or StrictRecordError(
          f"{text} (--strict_records)"
        )
      if self.error:
        raise self.error

  def fail(self, text: str):
    """Ends the reading; see `add` for why the error is kept.

    Raises:
      StrictRecordError: always.
    """
    with self._lock:
      self.error = self.error or StrictRecordError(text)
    raise self.error

  def note(self, kept: int, dropped: int) -> np.int64:
    """Counts the records of a batch.

    Raises:
      StrictRecordError: thousands of records came and none was of use; see
        `add` for why it is kept in `error`.
    """
    with self._lock:
      self._kept += int(kept)
      self._dropped += int(dropped)
      hopeless = not self._kept and self._dropped >= _HOPELESS
      if hopeless:
        first = self._problems[0][1] if self._problems else "none is told"
        text = (
          f"None of the first {self._dropped} records is usable: "
          f"{self._summary()}. The first: {first}"
        )
    if hopeless:
      self.fail(text)
    return np.int64(0)

  def counts(self) -> dict[str, int]:
    """Problems by kind; only kinds that occurred."""
    with self._lock:
      return {kind: self._counts[kind] for kind in KINDS if self._counts[kind]}

  def problems(self) -> list[str]:
    """The first million problems, in the order in which they were met."""
    with self._lock:
      return [text for _, text in self._problems]

  def unread(self) -> list[str]:
    """The problems that cost inference a video."""
    with self._lock:
      return [
        text
        for kind, text in self._problems
        if kind not in _HARMLESS_AT_INFERENCE
      ]

  def summary(self) -> str:
    """One line: kinds and counts."""
    with self._lock:
      return self._summary()

  def _summary(self):
    counts = [
      f"{self._counts[kind]} {kind}" for kind in KINDS if self._counts[kind]
    ]
    return ", ".join(counts) or "no damaged record"
