"""The videos of shards: is one there twice, is one of the data missing?"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

import readers
from console import messages, program
from predictions import ids as ids_lib
from records import pipeline, report, tensors

_BATCH = 1024
_READERS = 8


def check_unique(
  paths: Sequence[str], ids_of: Callable[[str], Iterator[list[bytes]]]
) -> tuple[ids_lib.Ids, list[int]]:
  """All ids of files, and how many each file has.

  Raises:
    ValueError: one comes twice; it is named with its files.
  """
  found, counts = ids_lib.Ids(), []
  for path in paths:
    counts.append(0)
    for batch in ids_of(path):
      counts[-1] += len(batch)
      new = found.add(batch)
      if not new.all():
        repeat = batch[int(np.argmin(new))]
        first = next(p for p in paths if any(repeat in b for b in ids_of(p)))
        raise ValueError(
          f"Video {messages.short(repeat.decode())} is in {first} and in "
          f"{path}: the data have it twice, or shards of two jobs are mixed."
        )
  return found, counts


def missing(paths: Sequence[str], known: ids_lib.Ids) -> list[str]:
  """Ids of files' records that are not known, each as often as it comes."""
  found = []
  with contextlib.closing(
    program.progress_bar(readers.estimate_num_records(list(paths)), "videos")
  ) as bar:
    for ids in _ids_of(paths):
      found += [
        ids[i].decode(errors="replace") for i in np.flatnonzero(~known.has(ids))
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
