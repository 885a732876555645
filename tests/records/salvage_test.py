"""Tests of records/salvage.py: what is found after a damage, at what work."""

import io
import re
import struct

import google_crc32c
import numpy as np
import pytest

from records import framing
from records import salvage as record_salvage
from tests import record_data as records
from tests.records import framing_test as record_files_test

forged = record_files_test.forged


def salvage(path, offset=0):
  """([records], [damages]) of what follows an offset."""
  found = list(record_salvage.salvage_records(str(path), offset))
  return (
    [each for each in found if isinstance(each, bytes)],
    [each for each in found if not isinstance(each, bytes)],
  )


def framed(record):
  crc = struct.pack("<I", framing.masked_crc32c(record))
  return forged(len(record)) + record + crc


@pytest.mark.parametrize("scan_bytes", [23, 64, 1 << 16])
def test_finds_the_headers_that_a_loop_finds(monkeypatch, scan_bytes):
  monkeypatch.setattr(record_salvage, "_MIN_SCAN_BYTES", scan_bytes)
  rng = np.random.default_rng(0)
  parts = [bytes(40), forged(7), rng.bytes(50), forged(0), bytes(11)]
  parts += [forged(300), rng.bytes(5), forged(1 << 33), forged(70000)]
  parts += [bytes([1, 0, 0, 0, 0, 0, 0, 0]) * 4, forged(255), bytes(30)]
  block = b"".join(parts)
  for size in (len(block), 400, 80000):
    expected = []
    for place in range(1, len(block) - 11):
      length = framing.length_of(block[place : place + 12])
      if length is not None and place + 16 + length <= size:
        expected.append(place)
    found, place = [], 0
    while place < size:
      stream = io.BytesIO(block)
      place = record_salvage._next_record(stream, place, None, size)
      found.append(place)
    assert found == [*expected, size]
  assert len(expected) == 5


@pytest.fixture
def checksums(monkeypatch):
  """Counts the checksums that Python asks for one by one."""
  record_salvage._crc_tables()  # These are made once.
  count = []
  of_bytes = google_crc32c.value

  def value(data):
    count.append(len(data))
    return of_bytes(data)

  monkeypatch.setattr(google_crc32c, "value", value)
  return count


def test_a_stretch_of_zeros_costs_no_checksum_a_byte(tmp_path, checksums):
  path = tmp_path / "a"
  path.write_bytes(framed(b"before") + bytes(1 << 20) + framed(b"after"))
  found, damages = salvage(path)
  assert found == [b"before", b"after"]
  (damage,) = damages
  assert damage.lost == 1 << 20
  assert "1048576 bytes (100.00% of the file) are lost" in damage.detail
  assert len(checksums) < 20


def test_an_array_of_numbers_costs_no_checksum_a_number(tmp_path, checksums):
  path = tmp_path / "a"
  np.arange(1 << 17).tofile(path)  # int64: each begins like a length.
  found, (damage,) = salvage(path)
  assert found == []
  assert damage.kind == "not_a_tfrecord"
  assert len(checksums) < 20


def test_forged_headers_of_the_rest_of_the_file_are_given_up(
  tmp_path, checksums
):
  count = 3000
  headers = [forged(12 * (count - i) - 28) for i in range(count - 3)]
  path = tmp_path / "a"
  path.write_bytes(framed(b"before") + b"".join(headers) + bytes(36))
  found, damages = salvage(path)
  assert found == [b"before"]
  assert len(damages) < 10
  assert "too many before it: the rest is left out" in damages[-1].detail
  assert sum(checksums) < 10 * path.stat().st_size
  assert sum(damage.lost for damage in damages) == 12 * (count - 3) + 36


def test_a_chain_of_records_that_fail_is_given_up(tmp_path, monkeypatch):
  monkeypatch.setattr(record_salvage, "_MAX_DAMAGES", 7)
  path = tmp_path / "a"
  path.write_bytes((forged(3) + b"abcdefg") * 50)
  found, damages = salvage(path)
  assert found == []
  assert len(damages) == 7
  assert damages[-1].lost == 44 * 19


def test_reads_on_after_a_length_that_does_not_fit(tmp_path):
  path = tmp_path / "a"
  for length in (*record_files_test.HUGE, 100):
    path.write_bytes(framed(b"a") + forged(length) + bytes(9) + framed(b"b"))
    found, damages = salvage(path)
    assert found == [b"a", b"b"]
    (damage,) = damages
    assert damage.kind == "truncated_record"
    assert damage.lost == 21
    assert f"a record of {length} bytes has only" in damage.detail


def test_a_record_inside_a_damaged_one_is_not_taken_for_one(tmp_path):
  outer = bytearray(framed(b"x" * 9 + framed(b"inner") + b"y" * 9))
  outer[14] ^= 1
  path = tmp_path / "a"
  path.write_bytes(bytes(outer) + framed(b"next"))
  found, damages = salvage(path)
  assert found == [b"next"]
  assert len(damages) == 1


def test_a_file_of_something_else_is_named_as_a_whole(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"<html>Error 403</html>" * 20)
  found, (damage,) = salvage(path)
  assert found == []
  assert damage.kind == "not_a_tfrecord"
  assert "HTML page" in damage.detail
  assert damage.lost == path.stat().st_size


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
  assert re.search(words, record_salvage._describe(str(path)))


@pytest.mark.parametrize("place", ["middle", "cut", "checksum"])
def test_what_precedes_a_damage_of_gzip_is_kept(tmp_path, place):
  contents = record_files_test.random_records(400)
  path = records.write(tmp_path / "a", contents)
  packed = record_files_test.pack(path, tmp_path / "b")
  with open(packed, "rb") as stream:
    data = bytearray(stream.read())
  if place == "middle":
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
  elif place == "cut":
    del data[len(data) // 2 :]
  else:
    data[-6] ^= 1
  with open(packed, "wb") as stream:
    stream.write(data)
  found = list(record_salvage.salvage_records(packed, 0, framing.GZIP))
  *good, damage = found
  assert good == contents[: len(good)]
  assert len(good) > 100
  expected = "truncated_record" if place == "cut" else "bad_checksum"
  assert damage.kind == expected
