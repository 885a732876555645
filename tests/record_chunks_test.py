"""Tests of record_chunks.py: records by number, past damage."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import read_report
import record_chunks
from tests import records


def make_file(path, count):
  """(path, contents) of a file of random records, some of them empty."""
  rng = np.random.default_rng(count)
  contents = [rng.bytes(int(rng.integers(0, 90))) for _ in range(count)]
  return records.write(path, contents), contents


def damage(path, contents, number):
  """Changes a byte of the checksum of a record."""
  size = len(contents[number])
  start = sum(16 + len(content) for content in contents[:number])
  with open(path, "r+b") as stream:
    stream.seek(start + 12 + size)
    checksum = stream.read(1)[0]
    stream.seek(start + 12 + size)
    stream.write(bytes([checksum ^ 0x5A]))


def read(chunks, paths, buffer_bytes=0):
  """[(records, numbers)] of all chunks of files that are read together."""
  found = []
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.data.Dataset.from_tensor_slices(paths).interleave(
      lambda path: chunks.of_file(path, buffer_bytes),
      cycle_length=len(paths),
      num_parallel_calls=len(paths),
    )
    element = tf.data.make_one_shot_iterator(data).get_next()
    while True:
      try:
        found.append(session.run(element))
      except tf.errors.OutOfRangeError:
        return found


def pairs(chunks):
  return [
    (int(number), content)
    for contents, numbers in chunks
    for number, content in zip(numbers, contents, strict=True)
  ]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 70])
@pytest.mark.parametrize("buffer_bytes", [0, 1 << 20])
def test_numbers_the_records_of_a_file(tmp_path, count, buffer_bytes):
  path, contents = make_file(tmp_path / "a", count)
  report = read_report.ReadReport()
  found = read(record_chunks.RecordChunks(report), [path], buffer_bytes)
  assert pairs(found) == list(enumerate(contents))
  assert [len(numbers) for _, numbers in found] == [
    min(32, count - start) for start in range(0, count, 32)
  ]
  assert report.counts() == {}


@pytest.mark.parametrize(
  "bad", [[0], [99], [31], [32], [3, 4, 50], [0, 35, 67, 99]]
)
def test_reads_on_behind_damage_for_many_chunks(tmp_path, bad):
  path, contents = make_file(tmp_path / "a", 100)
  for number in bad:
    damage(path, contents, number)
  report = read_report.ReadReport()
  found = read(record_chunks.RecordChunks(report), [path])
  assert pairs(found) == [
    (number, content)
    for number, content in enumerate(contents)
    if number not in bad
  ]
  assert all(len(numbers) for _, numbers in found)
  assert report.counts() == {"bad_checksum": len(bad)}
  for number, problem in zip(bad, report.problems(), strict=True):
    assert f"record {number}: bad checksum" in problem


def test_damaged_files_that_are_read_together_stay_apart(tmp_path):
  paths, expected = [], []
  for count in (90, 140, 75):
    path, contents = make_file(tmp_path / str(count), count)
    damage(path, contents, 2)
    paths.append(path)
    expected += [pair for pair in enumerate(contents) if pair[0] != 2]
  report = read_report.ReadReport()
  found = read(record_chunks.RecordChunks(report), paths)
  assert sorted(pairs(found)) == sorted(expected)
  assert report.counts() == {"bad_checksum": 3}


def test_reads_again_what_was_damaged(tmp_path):
  path, contents = make_file(tmp_path / "a", 80)
  damage(path, contents, 40)
  report = read_report.ReadReport()
  chunks = record_chunks.RecordChunks(report)
  first = pairs(read(chunks, [path]))
  assert len(first) == 79
  assert pairs(read(chunks, [path])) == first
  assert report.counts() == {"bad_checksum": 1}  # It is the same damage.


def test_a_file_that_is_not_there_is_reported(tmp_path):
  report = read_report.ReadReport()
  chunks = record_chunks.RecordChunks(report)
  assert read(chunks, [str(tmp_path / "gone")]) == []
  assert report.counts() == {"unreadable_file": 1}


def test_a_strict_report_ends_the_reading(tmp_path):
  path, contents = make_file(tmp_path / "a", 50)
  damage(path, contents, 33)
  report = read_report.ReadReport(strict=True)
  with pytest.raises(tf.errors.OpError):
    read(record_chunks.RecordChunks(report), [path])
  assert "record 33: bad checksum" in str(report.error)
