"""Reads on after a damaged record of a TFRecord file.

TensorFlow's reader drops the rest of a file at its first damaged record. The
place where the next intact record begins can be found again by the checksums
of lengths (see `framing`).

The work is bounded, whatever a file holds: it is given up when `_MAX_DAMAGES`
records fail, or when reading records that fail has taken `_MAX_FAILED` times
the file.
"""

import functools
import gzip
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import numpy as np
import tensorflow.compat.v1 as tf

from records import framing
from records.framing import FOOTER, FRAMING_BYTES, HEADER

# Read this much when looking for the next record: first, and at most.
_MIN_SCAN_BYTES = 1 << 16
_MAX_SCAN_BYTES = 1 << 22
_MAX_DAMAGES = 10000
_MAX_FAILED = 4
# Enough to tell what a file is.
_HEAD_BYTES = 256
# Of what else a file may be, its first bytes.
_SIGNATURES = (
  (b"PK\x03\x04", "a zip archive: unpack it first"),
  (b"BZh", "bzip2: unpack it first, or use gzip"),
  (b"\xfd7zXZ", "xz: unpack it first, or use gzip"),
  (b"\x28\xb5\x2f\xfd", "zstd: unpack it first, or use gzip"),
  (b"x\x01", "zlib: unpack it first, or use gzip"),
  (b"x\x9c", "zlib: unpack it first, or use gzip"),
  (b"x\xda", "zlib: unpack it first, or use gzip"),
  (b"\x93NUMPY", "a numpy array: scripts/make_records.py makes records of it"),
  (b"\x89HDF", "HDF5: scripts/make_records.py makes records of .npy files"),
  (b"PAR1", "Parquet: scripts/make_records.py makes records of it"),
  (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
)


class Damage(NamedTuple):
  """A stretch of a file that holds no intact record."""

  kind: str  # A kind of `report.KINDS` that is of files.
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
      offset = _next_record(stream, start, length, size)
    else:
      detail += "; so did too many before it: the rest is left out"
    lost = offset - start
    if length is None and start == 0 and offset == size:
      kind = "not_a_tfrecord"
      detail = f"{_describe(path)} ({size} bytes)"
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


def _next_record(stream, start, length, size):
  """Where the record after a damaged one begins, the file's size if nowhere.

  Args:
    stream: the file.
    start: int, where the damaged one begins.
    length: int or None, what its header says: where it would end is looked at
      first.
    size: int, bytes of the file.
  """
  if length is not None:
    end = start + length + FRAMING_BYTES
    stream.seek(end)
    header = stream.read(HEADER.size)
    if end == size or framing.length_of(header) is not None:
      return end
  offset, count = start + 1, _MIN_SCAN_BYTES
  while offset + FRAMING_BYTES <= size:
    stream.seek(offset)
    block = stream.read(count)
    if len(block) < HEADER.size:  # It was cut while being read.
      break
    places = _headers_in(block, size - offset)
    if places.size:
      return offset + int(places[0])
    # Blocks overlap, so that no header is cut in two.
    offset += len(block) - HEADER.size + 1
    count = min(2 * count, _MAX_SCAN_BYTES)
  return size


def _headers_in(block, size):
  """Where headers of records that end within size stand: int64, ascending.

  The upper half of a length is zeros, as no record has 2^32 bytes. Of an array
  of int64, say, half the places pass for one: their checksums are computed
  together, fifteen times as fast as one by one.
  """
  count = len(block) - HEADER.size + 1
  # The number that begins at each byte.
  words = np.ndarray([len(block) - 3], "<u4", block, strides=[1])
  lengths, crcs = words[:count], words[8:]
  # Stretches of zeros are the most of it, and no header.
  places = np.flatnonzero(
    (words[4 : 4 + count] == 0) & ((lengths != 0) | (crcs != 0))
  )
  lengths, crcs = lengths[places], crcs[places]
  ends = places + lengths.astype(np.int64) + FRAMING_BYTES
  return places[(ends <= size) & (crcs == _masked_crcs(lengths))]


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


def _describe(path):
  """What a file is that holds no TFRecord, for a message."""
  with tf.io.gfile.GFile(path, "rb") as stream:
    head = stream.read(_HEAD_BYTES)
  for signature, meaning in _SIGNATURES:
    if head.startswith(signature):
      return f"it looks like {meaning}"
  if not head.strip(b"\0"):
    return "it begins with zeros: was its download or copy broken off?"
  start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
  if start.startswith((b"<!doctype html", b"<html", b"<head")):
    return (
      "it is an HTML page, maybe an error that was downloaded in the place of "
      f"the file: {_first_text(head)}"
    )
  if not re.search(rb"[^\t\r\n\x20-\x7e\x80-\xff]", head):
    return f"it looks like text: {_first_text(head)}"
  return f"it begins with {head[:16].hex(' ')}"


def _first_text(head):
  """The beginning of a text, on one line."""
  return repr(" ".join(head.decode(errors="replace").split())[:80])
