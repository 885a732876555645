"""The videos of shards: is one there twice, is one of the data missing?"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

import readers
from console import messages, program
from records import pipeline, report, tensors

_BATCH = 1024
_READERS = 8


def hashes(ids: Iterable[bytes]) -> NDArray[np.uint64]:
  """64 bits of each id.

  Two of a million ids share them once in 37 million sets.
  """
  found = [hashlib.blake2b(each, digest_size=8).digest() for each in ids]
  return np.frombuffer(b"".join(found), np.uint64)


class Ids:
  """A set of ids, of which 8 bytes each are kept."""

  def __init__(self):
    """Starts empty."""
    self._batches: list[NDArray[np.uint64]] = []
    self._all: NDArray[np.uint64] | None = None

  def add(self, ids: Sequence[bytes]) -> int:
    """Adds some ids: their number."""
    self._batches.append(hashes(ids))
    self._all = None
    return len(ids)

  def _sorted(self) -> NDArray[np.uint64]:
    if self._all is None:
      self._all = np.sort(
        np.concatenate([np.zeros(0, np.uint64), *self._batches])
      )
      self._batches = [self._all]
    return self._all

  def _repeats(self):
    found = self._sorted()
    return set(found[1:][found[1:] == found[:-1]].tolist())

  def has_repeats(self) -> bool:
    """Whether an id was added twice, or shares its 8 bytes with another."""
    return bool(self._repeats())

  def tell_repeat(
    self,
    paths: Sequence[str],
    ids_of: Callable[[str], Iterator[list[bytes]]],
  ) -> str:
    """Names the first id that comes twice in files, and where it is."""
    repeats, seen = self._repeats(), {}
    for path in paths:
      for batch in ids_of(path):
        for each, own in zip(batch, hashes(batch).tolist()):
          if own in repeats:
            if each in seen:
              return (
                f"Video {messages.short(each.decode())} is in {seen[each]} and "
                f"in {path}: the data have it twice, or shards of two jobs are "
                "mixed."
              )
            seen[each] = path
    return (
      f"Two ids of {len(seen)} have the same 64-bit hash: {list(seen)[:2]}."
    )

  def lacks(self, ids: Sequence[bytes]) -> NDArray[np.bool_]:
    """Which ids were not added."""
    known, wanted = self._sorted(), hashes(ids)
    places = np.searchsorted(known, wanted)
    if not known.size:
      return np.ones(len(ids), bool)
    return known[np.minimum(places, known.size - 1)] != wanted


def missing(paths: Sequence[str], known: Ids) -> list[str]:
  """Ids of files' records that are not known, each as often as it comes."""
  found = []
  with contextlib.closing(
    program.progress_bar(readers.estimate_num_records(list(paths)), "videos")
  ) as bar:
    for ids in _ids_of(paths):
      found += [
        ids[i].decode(errors="replace")
        for i in np.flatnonzero(known.lacks(ids))
      ]
      bar.update(len(ids))
  return found


def _ids_of(paths: Sequence[str]) -> Iterator[list[bytes]]:
  """Yields the ids of the records of files that can be read, in batches."""

  def parse(records):
    # A SequenceExample's context is an Example's features, to the byte.
    return tensors.first_id(tf.io.parse_example(records, tensors.ID_FEATURES))

  options = pipeline.Options(
    batch_size=_BATCH, num_readers=_READERS, deterministic=False
  )
  with tf.Graph().as_default(), tf.Session() as session:
    data = pipeline.record_batches(
      list(paths), options, report.ReadReport(), parse_ids=parse
    ).map(lambda records, *_: tensors.parse_good(records, parse)[0])
    iterator = tf.data.make_initializable_iterator(data.prefetch(2))
    session.run(iterator.initializer)
    batch = iterator.get_next()
    with contextlib.suppress(tf.errors.OutOfRangeError):
      while True:
        yield [each for each in session.run(batch).tolist() if each]
