"""TFRecord files as chunks of numbered records, past any damage.

TensorFlow's reader stops at the first damage of a file. How far it came shows
in the number of bytes that it gave; behind that, `record_salvage` reads on.

Axes: R records of a chunk.
"""

import itertools

import numpy as np
import tensorflow.compat.v1 as tf

import record_salvage

# Records that leave a file at once; checks by chunk then cost next to nothing.
_RECORDS = 32


class RecordChunks:
  """Reads files for one pipeline, and reports their damages."""

  def __init__(self, report):
    """Starts without an open file.

    Args:
      report: `read_report.ReadReport`.
    """
    self._report = report
    # What is behind the damage of each file that is being read.
    self._salvages = {}
    self._keys = itertools.count()

  def of_file(self, path, buffer_bytes):
    """All intact records of a file, in order.

    A chunk is never held by a dataset of its own: making one takes a
    millisecond, and then `unbatch` would copy the chunk's records instead of
    handing them on.

    Args:
      path: string scalar.
      buffer_bytes: int, read at once; 0 reads each record straight to where it
        stays.

    Returns:
      Dataset of (records string [R], number of each in the file int64 [R]),
      R >= 1.
    """
    # A file that does not open would keep `ignore_errors` trying for ever;
    # `_salvage` reports it.
    opens = tf.numpy_function(record_salvage.can_open, [path], tf.bool)
    there = tf.boolean_mask([path], tf.reshape(opens, [1]))
    intact = tf.data.TFRecordDataset(there, buffer_size=buffer_bytes)
    intact = intact.ignore_errors().batch(_RECORDS)
    # What TensorFlow could not read takes the place of empty chunks.
    empty = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string)).repeat()

    def number_records(state, records):
      number, offset, key = state

      def numbered():
        count = tf.size(records, out_type=tf.int64)
        size = tf.reduce_sum(tf.cast(tf.strings.length(records), tf.int64))
        end = offset + size + count * record_salvage.FRAMING_BYTES
        return records, number + tf.range(count), number + count, end, key

      def salvaged():
        found, numbers, end, key_after = tf.numpy_function(
          self._salvage,
          [path, number, offset, key],
          (tf.string, tf.int64, tf.int64, tf.int64),
        )
        return (
          tf.ensure_shape(found, [None]),
          tf.ensure_shape(numbers, [None]),
          tf.ensure_shape(end, []),
          offset,
          tf.ensure_shape(key_after, []),
        )

      chunk, numbers, *after = tf.cond(tf.size(records) > 0, numbered, salvaged)
      return tuple(after), (chunk, numbers)

    start = np.int64(0), np.int64(0), np.int64(-1)
    chunks = intact.concatenate(empty).scan(start, number_records)
    return chunks.take_while(lambda records, _: tf.size(records) > 0)

  def _salvage(self, path, number, offset, key):
    """The next chunk of what is behind a damage; reports the damage.

    Args:
      path: bytes, the file.
      number: int64, of the record where TensorFlow stopped, or of the one
        behind the last chunk.
      offset: int64, the byte where TensorFlow stopped.
      key: int64, what came with the last chunk of the file; -1 at first.

    Returns:
      (records [R], their numbers [R], number of the next record, key); R = 0 at
      the end of the file.
    """
    path = path.decode()
    if key < 0:
      key = next(self._keys)
      self._salvages[key] = record_salvage.salvage_records(path, int(offset))
    records, numbers = [], []
    for found in self._salvages[key]:
      if isinstance(found, record_salvage.Damage):
        self._report.add(found.kind, path, int(number), found.detail)
      else:
        records.append(found)
        numbers.append(number)
      number += 1
      if len(records) == _RECORDS:
        break
    if not records:
      del self._salvages[key]
    return (
      np.array(records, object),
      np.array(numbers, np.int64),
      np.int64(number),
      np.int64(key),
    )
