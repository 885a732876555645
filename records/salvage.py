"""Reads on after a damaged record of a TFRecord file.

TensorFlow's reader drops the rest of a file at its first damaged record. The
place where the next intact record begins can be found again by the checksums
of lengths (see `record_files`).

The work is bounded, whatever a file holds: it is searched once, by numpy, and
is given up when `_MAX_DAMAGES` records fail, or when reading records that fail
has taken `_MAX_FAILED` times the file.
"""

import functools
import gzip
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import numpy as np
import tensorflow.compat.v1 as tf

from records import framing
from records.framing import FOOTER, FRAMING_BYTES, HEADER

# Read this much at a time when looking for the next record.
_SCAN_BYTES = 1 << 22
_MAX_DAMAGES = 10000
_MAX_FAILED = 4


class Damage(NamedTuple):
  """A stretch of a file that holds no intact record."""

  kind: str  # A kind of `read_report.KINDS` that is of files.
  detail: str
  lost: int = 0  # Bytes.


def salvage_records(
  path: str, offset: int, compression: str = ""
) -> Iterator[bytes | Damage]:
  """Yields what follows a byte offset: intact records, and damage between.

  What follows the first damage of a compressed file is lost.

  Args:
    path: a TFRecord file.
    offset: where the first record that could not be read begins, in the file
      as it is unpacked; at the file's end, nothing is yielded.
    compression: "" or `framing.GZIP`.

  Yields:
    bytes of a record whose checksums agree, or a `Damage`, once for each
    stretch of damage, in the order of the file.
  """
  try:
    size = tf.io.gfile.stat(path).length
    with framing.stream_of(path, compression) as stream:
      if compression:
        yield from _salvage_unpacked(stream, offset)
      elif offset < size:
        yield from _salvage(path, stream, offset, size)
  except (tf.errors.OpError, OSError) as error:
    yield Damage("unreadable_file", f"at byte {offset}: {_line(error)}")


def _salvage(path, stream, offset, size):
  """`salvage_records` of a file that is not compressed."""
  headers = _Headers(stream, size)
  damages, failed = 0, 0
  while offset < size:
    record, length, kind, detail = _read_record(stream, offset, size)
    if record is not None:
      yield record
      offset += len(record) + FRAMING_BYTES
      continue
    start, offset = offset, size
    damages += 1
    failed += length or 0
    if damages < _MAX_DAMAGES and failed <= _MAX_FAILED * size:
      offset = headers.next_after(start, length)
    else:
      detail += "; so did too many before it: the rest is left out"
    lost = offset - start
    if length is None and start == 0 and offset == size:
      kind = "not_a_tfrecord"
      detail = f"{framing.describe(path)} ({size} bytes)"
    else:
      detail = (
        f"at byte {start} of {size}: {detail}; {lost} bytes "
        f"({lost / size:.2%} of the file) are lost"
      )
    yield Damage(kind, detail, lost)


def _salvage_unpacked(stream, offset):
  """`salvage_records` of what a file was compressed from."""
  try:
    stream.seek(offset)
    while stream.peek(1):
      record, _, kind, detail = _read_record(stream, offset, None)
      if record is None:
        break
      yield record
      offset += len(record) + FRAMING_BYTES
    else:
      return
  except EOFError:
    kind, detail = "truncated_record", "the compressed file is cut off"
  except (gzip.BadGzipFile, zlib.error) as error:
    kind, detail = "bad_checksum", f"gzip is damaged: {_line(error)}"
  yield Damage(
    kind, f"at byte {offset} of what is unpacked: {detail}; the rest is lost"
  )


def _line(error):
  """The first line of an error: TensorFlow's may have more."""
  return (str(error).splitlines() or [type(error).__name__])[0]


def _read_record(stream, offset, size):
  """Reads the record at an offset.

  Args:
    stream: the file.
    offset: int.
    size: int, bytes of the file, or None if that is not known.

  Returns:
    (bytes, its length, "", "") of an intact one; else (None, the length that
    its header says or None, kind, detail).
  """
  stream.seek(offset)
  header = stream.read(HEADER.size)
  if len(header) < HEADER.size:
    return None, None, "truncated_record", "the file ends in a record's length"
  length = framing.length_of(header)
  if length is None:
    detail = "a record's length fails its checksum"
    return None, None, "bad_checksum", detail
  left = None if size is None else size - offset - HEADER.size
  if length > framing.MAX_RECORD_BYTES or (
    left is not None and left < length + FOOTER.size
  ):
    detail = f"a record of {length} bytes has only {left} left"
    if left is None:
      detail = f"a record claims {length} bytes, more than any has"
    return None, None, "truncated_record", detail
  body = stream.read(length + FOOTER.size)
  if len(body) < length + FOOTER.size:
    detail = f"a record of {length} bytes has only {len(body)} left"
    return None, length, "truncated_record", detail
  record = body[:length]
  if framing.masked_crc32c(record) != FOOTER.unpack_from(body, length)[0]:
    detail = f"a record of {length} bytes fails its checksum"
    return None, length, "bad_checksum", detail
  return record, length, "", ""


class _Headers:
  """Places of a file where a length stands, with its checksum, that fits."""

  def __init__(self, stream, size):
    self._stream = stream
    self._size = size
    # Of the bytes up to `_end` that were searched last.
    self._places = np.zeros([0], np.int64)
    self._end = 0

  def next_after(self, offset, length):
    """Where the next one stands, the file's size if nowhere.

    Args:
      offset: int, of a damaged record; never less than at the last call.
      length: int or None, what its header says: where the record would end is
        looked at first.
    """
    if length is not None:
      end = offset + length + FRAMING_BYTES
      self._stream.seek(end)
      header = self._stream.read(HEADER.size)
      if end == self._size or framing.length_of(header) is not None:
        return end
    offset += 1
    while True:
      index = np.searchsorted(self._places, offset)
      if index < len(self._places):
        return int(self._places[index])
      start = max(offset, self._end)
      if start + FRAMING_BYTES > self._size:
        return self._size
      self._stream.seek(start)
      block = self._stream.read(_SCAN_BYTES)
      if len(block) < HEADER.size:  # It was cut while being read.
        return self._size
      self._places = start + _headers_in(block, self._size - start)
      # Blocks overlap, so that no header is cut in two.
      self._end = start + len(block) - HEADER.size + 1


def _headers_in(block, size):
  """Where headers of records that end within size stand: int64, ascending.

  The upper half of a length is zeros, as no record has 2^32 bytes.
  """
  count = len(block) - HEADER.size + 1
  # The number that begins at each byte.
  words = np.empty([len(block) - 3], np.uint32)
  for shift in range(4):
    aligned = np.frombuffer(
      block, "<u4", offset=shift, count=(len(block) - shift) // 4
    )
    words[shift::4] = aligned
  lengths, crcs = words[:count], words[8:]
  # Stretches of zeros are the most of it, and no header.
  places = np.flatnonzero(
    (words[4 : 4 + count] == 0) & ((lengths != 0) | (crcs != 0))
  )
  lengths, crcs = lengths[places], crcs[places]
  ends = places + lengths.astype(np.int64) + FRAMING_BYTES
  good = (ends <= size) & (crcs == _masked_crcs(lengths))
  return places[good]


def _masked_crcs(lengths):
  """The checksum of each length, uint32 [N]: those of its bytes, xored."""
  tables, crc = _crc_tables()
  crcs = np.full(lengths.shape, crc, np.uint32)
  for byte, table in enumerate(tables):
    crcs ^= table[(lengths >> np.uint32(8 * byte)) & np.uint32(255)]
  return ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(
    0xA282EAD8
  )


@functools.cache
def _crc_tables():
  """(uint32 [4, 256], how a byte of a length changes the CRC; the CRC of 0)."""
  zero = google_crc32c.value(bytes(8))
  tables = [
    [
      google_crc32c.value((n << 8 * byte).to_bytes(8, "little")) ^ zero
      for n in range(256)
    ]
    for byte in range(4)
  ]
  return np.array(tables, np.uint32), zero
