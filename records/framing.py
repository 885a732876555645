"""TFRecord files as bytes: how records are framed.

A record is framed as: length (uint64), masked CRC-32C of the length (uint32),
the bytes, their masked CRC-32C (uint32), all little-endian.
"""

import contextlib
import gzip
import itertools
import os
import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import google_crc32c
import tensorflow.compat.v1 as tf

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
FRAMING_BYTES = HEADER.size + FOOTER.size
# A protocol buffer is not longer, and nor is a record.
MAX_RECORD_BYTES = 1 << 31
# What TensorFlow calls a file of gzip.
GZIP = "GZIP"


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
def stream_of(path: str, compression: str) -> Iterator[Any]:
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


def record_ends(stream: IO[bytes], size: int | None) -> Iterator[int]:
  """Yields where each record ends, from header to header.

  Args:
    stream: the file, unpacked.
    size: its bytes, or None if they are not known.

  Yields:
    An offset for each record up to the end of the file, or up to a length that
    fails its checksum or has no room. Other checksums are not looked at.
  """
  offset = 0
  while True:
    stream.seek(offset)
    length = length_of(stream.read(HEADER.size))
    if length is None or length > MAX_RECORD_BYTES:
      return
    offset += length + FRAMING_BYTES
    if size is not None and offset > size:
      return
    yield offset


def first_lengths(path: str, opened: Opened, count: int = 16) -> list[int]:
  """Lengths of a file's first records, framing included; [] if damaged."""
  size = None if opened.compression else opened.size
  with stream_of(path, opened.compression) as stream:
    ends = itertools.islice(record_ends(stream, size), count)
    return [end - start for start, end in itertools.pairwise([0, *ends])]


def num_chunks(path: str, records: int) -> int:
  """How many chunks of records TensorFlow's reader may read of a local file.

  That reader makes room for whatever length a header claims, and dies where
  there is none: it may read only what fits in the file.

  Args:
    path: not compressed.
    records: of a chunk; at the end of an intact file it may have fewer.

  Raises:
    OSError: the file can't be opened or read.
  """
  with open(path, "rb") as stream:
    size = os.fstat(stream.fileno()).st_size
    ends = [0, *record_ends(stream, size)]
  count = len(ends) - 1
  return -(-count // records) if ends[-1] == size else count // records
