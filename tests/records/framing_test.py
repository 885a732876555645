"""Tests of records/framing.py: what a file is, and which lengths fit in it."""

import gzip
import struct

import numpy as np
import pytest

from records import framing
from tests import record_data as records

# Lengths that no file has room for; TensorFlow dies of them.
HUGE = (1 << 38, (1 << 63) - 1, (1 << 64) - 1)


def forged(length):
  """A header with a right checksum, whatever it claims."""
  number = struct.pack("<Q", length)
  return number + struct.pack("<I", framing.masked_crc32c(number))


def pack(path, compressed):
  compressed = str(compressed)
  with open(path, "rb") as plain, gzip.open(compressed, "wb") as stream:
    stream.write(plain.read())
  return compressed


def random_records(count, size=90):
  rng = np.random.default_rng(count)
  return [rng.bytes(int(rng.integers(0, size))) for _ in range(count)]


def test_gzip_is_told_from_a_record_whose_length_begins_like_it(tmp_path):
  # 0x...088b1f is a length whose bytes are gzip's first.
  path = records.write(tmp_path / "a", [bytes(0x088B1F)])
  assert framing.look(path).compression == ""
  packed = pack(path, tmp_path / "b")
  assert framing.look(packed).compression == framing.GZIP
  assert framing.look(str(tmp_path / "gone")) is None


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 41])
@pytest.mark.parametrize("size", [90, 40000])
def test_every_chunk_of_an_intact_file_may_be_read(tmp_path, count, size):
  path = records.write(tmp_path / "a", random_records(count, size))
  assert framing.num_chunks(path, 4) == -(-count // 4)


@pytest.mark.parametrize("length", [*HUGE, 29, 1000])
@pytest.mark.parametrize("count", [0, 4, 9])
def test_no_chunk_may_be_read_with_a_length_that_does_not_fit(
  tmp_path, length, count
):
  path = records.write(tmp_path / "a", random_records(count))
  with open(path, "ab") as stream:
    stream.write(forged(length) + bytes(32))
  assert framing.num_chunks(path, 4) == count // 4
