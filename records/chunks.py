"""TFRecord files as chunks of numbered records, past any damage.

TensorFlow's reader stops at the first damage of a file. How far it came shows
in the number of bytes that it gave; from there `salvage` reads on.

That reader can't be trusted with every file: a length that is too large kills
the process, and a file that does not open is tried for ever by `ignore_errors`.
So `framing.num_chunks` says beforehand how many chunks it may read; and each
try to read one uses up a permit, of which there is an end.

Axes: R records of a chunk.
"""

import functools
import itertools

import numpy as np
import tensorflow.compat.v1 as tf

from records import framing, salvage

# Records that leave a file at once; checks by chunk then cost next to nothing.
_RECORDS = 32
# Permits that are given at a time.
_CHUNKS_AHEAD = 32
# Read from a file at once.
_BUFFER_BYTES = 1 << 20


class _Reading:
  """A file that is being read."""

  def __init__(self, path):
    self.path = path
    self.opened = framing.look(path)
    self.salvage = None
    # Chunks that may be read, None for all. Unpacking makes no room in advance;
    # of a remote file a look at a header is a request.
    self.limit = None
    if self.opened and not self.opened.compression and framing.is_local(path):
      try:
        self.limit = framing.num_chunks(path, _RECORDS)
      except OSError:
        self.limit = 0
    self._left = self.limit

  def permits(self):
    """How many more chunks to try to read; 0 for none, ever."""
    if not self.opened:
      return 0
    if self._left is None:
      return _CHUNKS_AHEAD if framing.look(self.path) else 0
    some = min(self._left, _CHUNKS_AHEAD)
    self._left -= some
    return some

  def rest(self, offset):
    """Yields what TensorFlow did not read, see `salvage`.

    Args:
      offset: int, bytes that it did read, unpacked.
    """
    opened = self.opened or framing.Opened(-1, "")
    try:
      # That size is a damaged or foreign file's word: zeros at its end say 0.
      if (offset or not opened.compression) and (
        offset == framing.unpacked_size(self.path, opened)
      ):
        return
      now = tf.io.gfile.stat(self.path).length
    except (tf.errors.OpError, OSError):
      now = opened.size  # Reading on will say what is wrong.
    yield from salvage.salvage_records(self.path, offset, opened.compression)
    if now < opened.size:
      yield salvage.Damage(
        "truncated_record",
        f"the file was cut from {opened.size} to {now} bytes while being read",
        opened.size - max(now, offset),
      )


class RecordChunks:
  """Reads files for one pipeline, and reports their damages."""

  def __init__(self, report):
    """Starts without an open file.

    Args:
      report: `report.ReadReport`.
    """
    self._report = report
    # The files that are being read.
    self._readings = {}
    self._keys = itertools.count()

  def of_file(self, path):
    """All intact records of a file, in order.

    A chunk is never held by a dataset of its own: making one takes a
    millisecond, and then `unbatch` would copy the chunk's records instead of
    handing them on.

    Args:
      path: string scalar.

    Returns:
      Dataset of (records string [R], number of each in the file int64 [R]),
      R >= 1.
    """
    key, compression, limit = tf.numpy_function(
      self._open, [path], (tf.int64, tf.string, tf.int64)
    )
    limit = tf.ensure_shape(limit, [])
    permits = tf.data.Dataset.from_tensors(key).repeat().map(self._permits)
    permits = permits.take_while(lambda some: tf.size(some) > 0).unbatch()
    intact = tf.data.TFRecordDataset(
      [path],
      compression_type=tf.ensure_shape(compression, []),
      buffer_size=_BUFFER_BYTES,
    ).batch(_RECORDS)
    # An error uses up a permit; when these end, zip reads once more.
    intact = tf.data.Dataset.zip((permits, intact.take(limit)))
    intact = intact.ignore_errors().map(lambda _, records: records)
    # What TensorFlow could not read takes the place of empty chunks.
    empty = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string)).repeat()
    start = np.int64(0), np.int64(0)
    chunks = intact.concatenate(empty).scan(
      start, functools.partial(self._number_chunk, key)
    )
    return chunks.take_while(lambda records, _: tf.size(records) > 0)

  def _number_chunk(self, key, state, records):
    """A step of `tf.data.Dataset.scan`.

    Args:
      key: int64, of the file.
      state: (int64 number of the next record, int64 byte where it begins).
      records: string [R], [0] where TensorFlow came to its end.

    Returns:
      (the next state, (string [R], int64 [R] numbers)).
    """
    number, offset = state

    def numbered():
      count = tf.size(records, out_type=tf.int64)
      size = tf.reduce_sum(tf.cast(tf.strings.length(records), tf.int64))
      end = offset + size + count * framing.FRAMING_BYTES
      return records, number + tf.range(count), number + count, end

    def salvaged():
      found, numbers, after = tf.numpy_function(
        self._salvage, [key, number, offset], (tf.string, tf.int64, tf.int64)
      )
      return (
        tf.ensure_shape(found, [None]),
        tf.ensure_shape(numbers, [None]),
        tf.ensure_shape(after, []),
        offset,
      )

    chunk, numbers, *after = tf.cond(tf.size(records) > 0, numbered, salvaged)
    return tuple(after), (chunk, numbers)

  def _open(self, path):
    """(key by which the others know the file, its compression, its limit)."""
    reading = _Reading(path.decode())
    key = next(self._keys)
    self._readings[key] = reading
    if not reading.opened:
      return np.int64(key), b"", np.int64(0)
    self._report.opened(reading.path, reading.opened.size)
    limit = -1 if reading.limit is None else reading.limit  # -1 takes all.
    return np.int64(key), reading.opened.compression.encode(), np.int64(limit)

  def _permits(self, key):
    """The next permits: int64 [their number]; [0] if there is none."""

    def permits(key):
      return np.zeros([self._readings[int(key)].permits()], np.int64)

    return tf.ensure_shape(tf.numpy_function(permits, [key], tf.int64), [None])

  def _salvage(self, key, number, offset):
    """The next chunk of what follows a damage; reports the damage.

    Args:
      key: int64, of the file.
      number: int64, of the record where TensorFlow stopped, or of the one after
        the last chunk.
      offset: int64, the byte where TensorFlow stopped.

    Returns:
      (records [R], their numbers [R], number of the next record); R = 0 at the
      end of the file.
    """
    reading = self._readings[int(key)]
    if reading.salvage is None:
      reading.salvage = reading.rest(int(offset))
    records, numbers = [], []
    for found in reading.salvage:
      if isinstance(found, salvage.Damage):
        self._report.add(
          found.kind, reading.path, int(number), found.detail, found.lost
        )
      else:
        records.append(found)
        numbers.append(number)
      number += 1
      if len(records) == _RECORDS:
        break
    if not records:
      del self._readings[int(key)]
    return (
      np.array(records, object),
      np.array(numbers, np.int64),
      np.int64(number),
    )
