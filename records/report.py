"""Counts what a reader could not use as it stood, and says where it was."""

import collections
import threading
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from absl import logging

# What is counted, and what becomes of the record (training and evaluation).
KINDS = {
  "truncated_record": "the file ends in the middle of it; skipped",
  "bad_checksum": "its checksum is wrong; skipped",
  "not_a_tfrecord": "the whole file holds no record; skipped",
  "unreadable_file": "the file can't be opened or read; skipped",
  "unparsable_record": "not of the expected protocol buffer; skipped",
  "missing_id": "no `id` and no `video_id`; skipped",
  "missing_feature": "a feature of --feature_names is not there; skipped",
  "wrong_type": "strings, integers or floats in each other's place; skipped",
  "bad_feature_size": "not the bytes or floats of --feature_sizes; skipped",
  "not_finite": "NaN or infinity among its numbers; skipped",
  "no_frames": "every feature is there and empty; training skips it",
  "unequal_lengths": "features of different lengths; cut to the shortest",
  "label_out_of_range": "a label outside [0, num_classes); label left out",
  "bad_segments": "segments without their labels or scores; skipped",
  "segment_out_of_range": "a segment after the last frame; left out",
  "no_labels": "no label within [0, num_classes); skipped",
}

# What inference can do without: it predicts for the video all the same.
_HARMLESS_AT_INFERENCE = frozenset({"no_frames", "unequal_lengths"})
# Of a file, not of one of its records.
_OF_FILES = frozenset({"not_a_tfrecord", "unreadable_file"})
_OTHER_FORMAT = (
  "are --frame_features, --feature_names, --feature_sizes and --feature_dtype "
  "those of the data?"
)
# What to do where most records have a problem of a kind.
_WAYS_OUT = {
  "unparsable_record": _OTHER_FORMAT,
  "missing_id": "is it a data set in this format?",
  "missing_feature": _OTHER_FORMAT,
  "wrong_type": _OTHER_FORMAT,
  "bad_feature_size": _OTHER_FORMAT,
  "unequal_lengths": _OTHER_FORMAT,
  "no_labels": "leave --skip_unlabelled out, or --segment_labels",
  "label_out_of_range": "is --num_classes that of the data?",
}

# Reads as much as a few shards before it calls a data set unusable.
_MAX_UNUSABLE_RECORDS = 10000
_LOGGED_EACH = 5
# A bounded list of texts.
_KEPT = 1000000
# Records to have seen before a share of them is worth a warning; in the end,
# however few.
_ENOUGH = 100
_MANY_STRAYS = 0.1
_MOST = 0.5


class StrictRecordError(ValueError):
  """A record that --strict_records does not accept, or no record at all."""


class FirstEpoch(NamedTuple):
  """Numbers of what was read, of the first epoch alone."""

  records: int = 0
  imperfect: int = 0  # Records with a problem, skipped or not.
  unlabelled: int = 0  # Videos without labels that were used.
  labels: int = 0
  strays: int = 0  # Labels outside the classes.


class ReadReport:
  """Thread-safe counts by kind, with the first problems spelt out.

  A reader's pipeline writes to it from its own threads; programs read it. A
  problem counts once, however many epochs meet it.
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
    # A bit for each record of a file: small, whatever is wrong with the data.
    self._met = collections.defaultdict(bytearray)
    self._kept = self._dropped = 0
    self._first = FirstEpoch()
    self._sizes = {}
    self._lost = 0
    self._warned = set()
    self.error: StrictRecordError | None = None

  def opened(self, path: str, size: int) -> None:
    """Notes a file and its bytes; an empty one is told, as it is no damage."""
    with self._lock:
      if path in self._sizes:
        return
      self._sizes[path] = size
      num_empty = self._num_empty()
    if not size and num_empty <= _LOGGED_EACH:
      logging.warning(
        "%s is empty (0 bytes): a download or copy that failed?", path
      )

  def add(
    self, kind: str, path: str, record: int, detail: str, lost: int = 0
  ) -> None:
    """Counts a problem.

    Args:
      kind: a key of `KINDS`.
      path: the file.
      record: number of the record in its file, from 0.
      detail: what exactly is wrong.
      lost: bytes of the file that can't be read.

    Raises:
      StrictRecordError: if strict; kept in `error`, as TensorFlow reports it in
        its own words.
    """
    place = path if kind in _OF_FILES else f"{path}, record {record}"
    what = f"{kind.replace('_', ' ')}: {detail}"
    text = f"{place}: {what}"
    with self._lock:
      if self._is_new(kind, path, record):
        self._counts[kind] += 1
        self._lost += lost
        if len(self._problems) < _KEPT:
          self._problems.append((kind, place, what))
        if self._counts[kind] <= _LOGGED_EACH:
          logging.warning("%s (%s)", text, KINDS[kind].rsplit("; ")[-1])
      if self._strict:
        self.error = self.error or StrictRecordError(
          f"{text} (--strict_records)"
        )
      if self.error:
        raise self.error

  def _is_new(self, kind, path, record):
    bits = self._met[kind, path]
    place, bit = divmod(record, 8)
    bits.extend(bytes(max(0, place + 1 - len(bits))))
    is_new = not bits[place] >> bit & 1
    bits[place] |= 1 << bit
    return is_new

  def fail(self, text: str) -> NoReturn:
    """Ends the reading; see `add` for why the error is kept.

    Raises:
      StrictRecordError: always.
    """
    with self._lock:
      self.error = self.error or StrictRecordError(text)
    raise self.error

  def note(self, kept: int, dropped: int, first: Sequence[int]) -> np.int64:
    """Counts the records of a batch.

    Args:
      kept: records that were used.
      dropped: records that were not.
      first: what to add to `FirstEpoch`'s numbers.

    Raises:
      StrictRecordError: thousands of records came and none was of use; see
        `add` for why it is kept in `error`.
    """
    with self._lock:
      self._kept += int(kept)
      self._dropped += int(dropped)
      self._first = FirstEpoch(
        *(a + int(b) for a, b in zip(self._first, first))
      )
      is_unusable = not self._kept and self._dropped >= _MAX_UNUSABLE_RECORDS
      if is_unusable:
        cause = "none is told"
        if self._problems:
          cause = ": ".join(self._problems[0][1:])
        text = (
          f"None of the first {self._dropped} records is usable: "
          f"{self._summary()}. The first: {cause}"
        )
      fresh = []
      if self._first.records >= _ENOUGH:
        warnings = self._warnings()
        fresh = [warnings[key] for key in warnings if key not in self._warned]
        self._warned |= set(warnings)
    for warning in fresh:
      logging.warning("ATTENTION: %s", warning)
    if is_unusable:
      self.fail(text)
    return np.int64(0)

  def counts(self) -> dict[str, int]:
    """Problems by kind; only kinds that occurred."""
    with self._lock:
      return {kind: self._counts[kind] for kind in KINDS if self._counts[kind]}

  def num_unlabelled(self) -> int:
    """Videos without labels that were used, each once."""
    with self._lock:
      return self._first.unlabelled

  def problems(self) -> list[str]:
    """The first million problems, in the order in which they were met."""
    with self._lock:
      return [f"{place}: {text}" for _, place, text in self._problems]

  def unread(self) -> list[str]:
    """What cost inference a video: a text a record, or a file."""
    found = {}
    with self._lock:
      for kind, place, text in self._problems:
        if kind not in _HARMLESS_AT_INFERENCE:
          found.setdefault(place, []).append(text)
    return [f"{place}: {'; '.join(texts)}" for place, texts in found.items()]

  def summary(self) -> str:
    """One line: kinds and counts, and what else is to be known."""
    with self._lock:
      return self._summary()

  def log_warnings(self) -> None:
    """Says again what is wrong with the data as a whole."""
    with self._lock:
      warnings = list(self._warnings().values())
    for warning in warnings:
      logging.warning("ATTENTION: %s", warning)

  def _num_empty(self):
    return sum(not size for size in self._sizes.values())

  def _summary(self):
    counts = [
      f"{self._counts[kind]} {kind}" for kind in KINDS if self._counts[kind]
    ]
    parts = [", ".join(counts) or "no damaged record"]
    if self._lost:
      total = sum(self._sizes.values())
      parts.append(f"{self._lost} of {total} bytes lost")
    if self._num_empty():
      parts.append(f"{self._num_empty()} empty files")
    if self._first.unlabelled:
      parts.append(f"{self._first.unlabelled} videos without labels")
    return ", ".join(parts)

  def _warnings(self):
    """{what it is about: text} of what is wrong with the data as a whole."""
    found, first = {}, self._first
    if first.strays > _MANY_STRAYS * first.labels:
      found["labels"] = (
        f"{first.strays} of {first.labels} labels are outside --num_classes "
        "and left out: is --num_classes that of the data?"
      )
    if first.imperfect > _MOST * first.records:
      kinds = {kind: n for kind, n in self._counts.items() if kind in _WAYS_OUT}
      worst = max(kinds, key=lambda kind: kinds[kind], default="")
      found["records"] = (
        f"{first.imperfect} of {first.records} records are skipped or cut "
        f"({self._summary()}): {_WAYS_OUT.get(worst, 'see the first above')}"
      )
    total = sum(self._sizes.values())
    if self._lost > _MOST * total:
      found["bytes"] = (
        f"{self._lost} of {total} bytes of the files are lost "
        f"({self._summary()}): are they whole, and TFRecords?"
      )
    return found
