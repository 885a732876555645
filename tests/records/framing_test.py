"""Tests of records/framing.py: what a file is, and which lengths fit in it."""

import gzip
import re
import struct

import numpy as np
import pytest

import readers
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


@pytest.mark.parametrize(
  ("head", "words"),
  [
    (b"<!DOCTYPE html>\n<p>404 Not Found", "HTML page.*404 Not Found"),
    (b"\n <HTML>", "HTML page"),
    (b"id,label\nx,1\n", "text: 'id,label x,1'"),
    (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    (b"PK\x03\x04" + bytes(9), "zip"),
    (b"\x28\xb5\x2f\xfd" + bytes(9), "zstd"),
    (bytes(99), "zeros"),
    (b"\x01\x02\x03", "01 02 03"),
  ],
)
def test_says_what_holds_no_record(tmp_path, head, words):
  path = tmp_path / "a"
  path.write_bytes(head)
  assert re.search(words, framing.describe(str(path)))


@pytest.mark.parametrize("length", HUGE)
@pytest.mark.parametrize("count", [0, 5])
def test_estimates_without_lengths_that_do_not_fit(tmp_path, length, count):
  contents = [b"12345678"] * count
  path = records.write(tmp_path / "a", contents)
  with open(path, "ab") as stream:
    stream.write(forged(length) + bytes(36 - 12))
  # The file is as long as so many records, and one and a half more.
  expected = round(count + 1.5) if count else 0
  assert readers.estimate_num_records([path]) == expected


def test_estimates_the_records_of_gzip(tmp_path):
  path = records.write(tmp_path / "a", [b"12345678"] * 500)
  assert readers.estimate_num_records([pack(path, tmp_path / "b")]) == 500


class TestHeaderWalk:
  def chunks(self, path):
    return framing.HeaderWalk(path).chunks(4)

  @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 41])
  @pytest.mark.parametrize("size", [90, 40000])
  def test_permits_every_chunk_of_an_intact_file(self, tmp_path, count, size):
    path = records.write(tmp_path / "a", random_records(count, size))
    assert self.chunks(path) == -(-count // 4)

  @pytest.mark.parametrize("block", [8, 33, 100])
  def test_finds_headers_across_blocks(self, tmp_path, monkeypatch, block):
    monkeypatch.setattr(framing, "_BLOCK_BYTES", block)
    path = records.write(tmp_path / "a", random_records(41))
    assert self.chunks(path) == 11

  @pytest.mark.parametrize("length", [*HUGE, 29, 1000])
  @pytest.mark.parametrize("count", [0, 4, 9])
  def test_ends_at_a_length_that_does_not_fit(self, tmp_path, length, count):
    path = records.write(tmp_path / "a", random_records(count))
    with open(path, "ab") as stream:
      stream.write(forged(length) + bytes(32))
    assert self.chunks(path) == count // 4
