"""TFRecord files as bytes: how records are framed, what a file is instead.

A record is framed as: length (uint64), masked CRC-32C of the length (uint32),
the bytes, their masked CRC-32C (uint32), all little-endian.
"""

import contextlib
import gzip
import os
import re
import struct
from typing import NamedTuple

import google_crc32c
import tensorflow.compat.v1 as tf

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
FRAMING_BYTES = HEADER.size + FOOTER.size
# A protocol buffer is not longer, and nor is a record.
MAX_RECORD_BYTES = 1 << 31
# What TensorFlow calls a file of gzip.
GZIP = "GZIP"
# Enough to tell what a file is.
_HEAD_BYTES = 256
# Read at once where records are short, if that is below the second number.
_BLOCK_BYTES = 1 << 16
_SHORT_BYTES = 1 << 14
# Of what else a file may be, its first bytes.
_SIGNATURES = (
  (b"PK\x03\x04", "a zip archive: unpack it first"),
  (b"BZh", "bzip2: unpack it first, or use gzip"),
  (b"\xfd7zXZ", "xz: unpack it first, or use gzip"),
  (b"\x28\xb5\x2f\xfd", "zstd: unpack it first, or use gzip"),
  (b"x\x01", "zlib: unpack it first, or use gzip"),
  (b"x\x9c", "zlib: unpack it first, or use gzip"),
  (b"x\xda", "zlib: unpack it first, or use gzip"),
  (b"\x93NUMPY", "a numpy array: see scripts/make_dataset.py for the formats"),
  (b"\x89HDF", "HDF5: see scripts/make_dataset.py for the formats"),
  (b"PAR1", "Parquet: see scripts/make_dataset.py for the formats"),
  (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
)


class Opened(NamedTuple):
  """A file as it was found."""

  size: int  # Bytes.
  compression: str  # "" or `GZIP`.


def masked_crc32c(data: bytes) -> int:
  """The checksum of the TFRecord format: CRC-32C, rotated and offset."""
  crc = google_crc32c.value(data)
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def length_of(header: bytes) -> int | None:
  """The length that a header says; None if it is no header."""
  if len(header) < HEADER.size:
    return None
  length, crc = HEADER.unpack_from(header)
  return length if masked_crc32c(header[:8]) == crc else None


def is_local(path: str) -> bool:
  """Whether a read costs no request over a network that we know of."""
  return "://" not in path


def look(path: str) -> Opened | None:
  """Opens a file; None if that fails, which whoever reads it reports."""
  try:
    size = tf.io.gfile.stat(path).length
    with tf.io.gfile.GFile(path, "rb") as stream:
      head = stream.read(HEADER.size)
  except tf.errors.OpError:
    return None
  # A record of the right length begins like gzip, but for its checksum.
  is_gzip = head.startswith(b"\x1f\x8b\x08") and length_of(head) is None
  return Opened(size, GZIP if is_gzip else "")


@contextlib.contextmanager
def stream_of(path: str, compression: str):
  """A file's bytes, unpacked, to read and to seek in."""
  with tf.io.gfile.GFile(path, "rb") as stream:
    if not compression:
      yield stream
      return
    with gzip.GzipFile(fileobj=stream) as unpacked:
      yield unpacked


def unpacked_size(path: str, opened: Opened) -> int:
  """Bytes of a file unpacked; of gzip what its end says, modulo 2^32."""
  if not opened.compression:
    return opened.size
  with tf.io.gfile.GFile(path, "rb") as stream:
    stream.seek(max(0, opened.size - FOOTER.size))
    end = stream.read(FOOTER.size)
  return FOOTER.unpack(end)[0] if len(end) == FOOTER.size else 0


def first_lengths(path: str, opened: Opened, count: int = 16) -> list[int]:
  """Lengths of a file's first records, framing included; [] if damaged."""
  lengths, offset = [], 0
  with stream_of(path, opened.compression) as stream:
    while len(lengths) < count:
      stream.seek(offset)
      length = length_of(stream.read(HEADER.size))
      if length is None or length > MAX_RECORD_BYTES:
        break
      end = offset + length + FRAMING_BYTES
      if not opened.compression and end > opened.size:
        break
      lengths.append(end - offset)
      offset = end
  return lengths


def describe(path: str) -> str:
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


class HeaderWalk:
  """Goes ahead of TensorFlow's reader from header to header.

  That reader makes room for whatever length a header claims, and dies where
  there is none: it may read only what fits in the file. Checksums are left to
  it: a length that fails its own is not believed there either.
  """

  def __init__(self, path: str):
    """Opens a local file; it is closed when it is collected.

    Raises:
      OSError: it can't be opened.
    """
    self._file = open(path, "rb", buffering=0)
    self._offset = 0
    self._is_short = True

  def chunks(self, records: int) -> int:
    """How many chunks may be read, of so many records each; the last of fewer.

    They end where the file ends, can't be read, or where a length stands that
    does not fit.
    """
    count = 0
    try:
      size = os.fstat(self._file.fileno()).st_size
      while self._pass(records, size):
        count += 1
    except OSError:  # Whoever reads it for good reports it.
      pass
    return count

  def _pass(self, records, size):
    """Passes the records of a chunk; False if there is none, or one too long.

    Where records are short, many headers are read at once: a system call takes
    as long as copying some kilobytes.
    """
    number, offset, block, place = self._file.fileno(), self._offset, b"", 0
    for done in range(records):
      if offset == size:
        self._offset = offset
        return done > 0
      if place + 8 > len(block):
        count = _BLOCK_BYTES if self._is_short else 8
        block, place = os.pread(number, count, offset), 0
        if len(block) < 8:
          return False
      length = int.from_bytes(block[place : place + 8], "little")
      step = length + FRAMING_BYTES
      if offset + step > size:
        return False
      self._is_short = step < _SHORT_BYTES
      offset += step
      place += step
    self._offset = offset
    return True
