"""Reads on behind a damaged record of a TFRecord file.

TensorFlow's reader drops the rest of a file at its first damaged record. A
record is framed as: length (uint64), masked CRC-32C of the length (uint32), the
bytes, their masked CRC-32C (uint32), all little-endian; so the place where the
next intact record begins can be found again. Python is fast enough for that:
only what follows a damage is read here.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import tensorflow.compat.v1 as tf

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
FRAMING_BYTES = _HEADER.size + _FOOTER.size
# Read this much at a time when looking for the next record.
_SCAN_BYTES = 1 << 24
# No record is longer: a length beyond it is damage whose checksum agrees.
_MAX_RECORD_BYTES = 1 << 31


class Damage(NamedTuple):
  """A stretch of a file that holds no intact record."""

  kind: str  # "truncated_record", "bad_checksum" or "unreadable_file".
  detail: str


def masked_crc32c(data: bytes) -> int:
  """The checksum of the TFRecord format: CRC-32C, rotated and offset."""
  crc = google_crc32c.value(data)
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def salvage_records(path: str, offset: int) -> Iterator[bytes | Damage]:
  """Yields what follows a byte offset: intact records, and damage between.

  Args:
    path: a TFRecord file.
    offset: where the first record that could not be read begins; at the file's
      end, nothing is yielded and the file is not opened.

  Yields:
    bytes of a record whose checksums agree, or a `Damage`, once for each
    stretch of damage, in the order of the file.
  """
  try:
    size = tf.io.gfile.stat(path).length
    if offset >= size:
      return
    with tf.io.gfile.GFile(path, "rb") as stream:
      while offset < size:
        record, damage = _read_record(stream, offset, size)
        if damage is None:
          yield record
          offset += len(record) + FRAMING_BYTES
          continue
        yield damage
        offset = _next_record(stream, offset + 1, size)
  except (tf.errors.OpError, OSError) as error:
    yield Damage("unreadable_file", f"at byte {offset}: {error}")


def can_open(path: bytes) -> bool:
  """Whether a file can be read from."""
  try:
    with tf.io.gfile.GFile(path, "rb") as stream:
      stream.read(1)
  except tf.errors.OpError:
    return False
  return True


def first_lengths(path: str, count: int = 16) -> list[int]:
  """Lengths of a file's first records, framing included; [] if damaged."""
  lengths, offset = [], 0
  with tf.io.gfile.GFile(path, "rb") as stream:
    while len(lengths) < count:
      stream.seek(offset)
      header = stream.read(_HEADER.size)
      if len(header) < _HEADER.size:
        break
      length, length_crc = _HEADER.unpack(header)
      if masked_crc32c(header[:8]) != length_crc:
        break
      lengths.append(length + FRAMING_BYTES)
      offset += lengths[-1]
  return lengths


def _read_record(stream, offset, size):
  """(bytes, None) of the record at an offset, or (None, Damage)."""

  def damaged(kind, detail):
    return None, Damage(kind, f"at byte {offset} of {size}: {detail}")

  stream.seek(offset)
  header = stream.read(_HEADER.size)
  if len(header) < _HEADER.size:
    return damaged("truncated_record", "the file ends in a record's length")
  length, length_crc = _HEADER.unpack(header)
  if masked_crc32c(header[:8]) != length_crc or length > _MAX_RECORD_BYTES:
    return damaged("bad_checksum", "a record's length fails its checksum")
  body = stream.read(length + _FOOTER.size)
  if len(body) < length + _FOOTER.size:
    return damaged(
      "truncated_record",
      f"a record of {length} bytes has only {len(body)} left",
    )
  record = body[:length]
  if masked_crc32c(record) != _FOOTER.unpack_from(body, length)[0]:
    return damaged(
      "bad_checksum", f"a record of {length} bytes fails its checksum"
    )
  return record, None


def _next_record(stream, offset, size):
  """Where the next header with a right checksum begins; size if nowhere.

  A length below 2^32 has four zero bytes in its upper half: only where those
  stand is a checksum worth computing.
  """
  while offset + FRAMING_BYTES <= size:
    stream.seek(offset)
    block = stream.read(_SCAN_BYTES)
    place = block.find(b"\0\0\0\0", 4)
    while place != -1:
      start = place - 4
      header = block[start : start + _HEADER.size]
      if len(header) < _HEADER.size:
        break
      _, length_crc = _HEADER.unpack(header)
      if length_crc == masked_crc32c(header[:8]):
        return offset + start
      place = block.find(b"\0\0\0\0", place + 1)
    # Blocks overlap, so that no header is cut in two.
    offset += max(1, len(block) - _HEADER.size + 1)
  return size
