"""Tests of records/chunks.py: records by number, past damage."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from records import chunks as record_chunks
from records import report as read_report
from tests import record_data as records
from tests.records import framing_test as record_files_test


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


def read(chunks, paths):
  """[(records, numbers)] of all chunks of files that are read together."""
  found = []
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.data.Dataset.from_tensor_slices(paths).interleave(
      chunks.of_file,
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
def test_numbers_the_records_of_a_file(tmp_path, count):
  path, contents = make_file(tmp_path / "a", count)
  report = read_report.ReadReport()
  found = read(record_chunks.RecordChunks(report), [path])
  assert pairs(found) == list(enumerate(contents))
  assert [len(numbers) for _, numbers in found] == [
    min(32, count - start) for start in range(0, count, 32)
  ]
  assert report.counts() == {}


@pytest.mark.parametrize(
  "bad", [[0], [99], [31], [32], [3, 4, 50], [0, 35, 67, 99]]
)
def test_reads_on_after_damage_for_many_chunks(tmp_path, bad):
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


def damage_randomly(rng, framed):
  """(bytes, numbers of the records that no longer are whole).

  Args:
    rng: numpy generator.
    framed: list of bytes, a record each with its length and checksums.
  """
  pieces, lost = list(framed), set()
  for number in rng.choice(len(pieces), 4, replace=False):
    piece = bytearray(pieces[number])
    kind = rng.choice(["flip", "insert", "prepend", "zeros"])
    if kind == "flip":
      piece[rng.integers(len(piece))] ^= int(rng.integers(1, 256))
    elif kind == "insert":
      place = int(rng.integers(1, len(piece)))
      piece[place:place] = rng.bytes(int(rng.integers(1, 40)))
    elif kind == "prepend":  # A length with its checksum, and no record.
      length = int(rng.choice([0, 1, 5000, 1 << 38]))
      piece[:0] = record_files_test.forged(length) + bytes(30)
    else:
      piece[:] = bytes(len(piece))
    pieces[number] = bytes(piece)
    lost |= {number} if kind != "prepend" else set()
  first, last = sorted(rng.choice(len(pieces) - 1, 2, replace=False))
  end = len(pieces) - 1
  if rng.random() < 0.5:  # A stretch is missing.
    pieces[first], pieces[last] = pieces[first][:9], pieces[last][-9:]
    pieces[first + 1 : last] = []
    lost |= set(range(first, last + 1))
  if rng.random() < 0.5:
    pieces[-1] = pieces[-1][: rng.integers(1, len(pieces[-1]))]
    lost.add(end)
  return b"".join(pieces), lost


def test_every_whole_record_comes_past_any_damage(tmp_path):
  rng = np.random.default_rng(0)
  paths, expected = [], {}
  for shard in range(24):
    name = b"%03d" % shard
    contents = [
      name + rng.bytes(int(rng.integers(0, 90)))
      for _ in range(rng.integers(8, 120))
    ]
    path = records.write(tmp_path / str(shard), contents)
    with open(path, "rb") as stream:
      framed = [stream.read(16 + len(content)) for content in contents]
    data, lost = damage_randomly(rng, framed)
    with open(path, "wb") as stream:
      stream.write(data)
    paths.append(path)
    expected[name] = [c for i, c in enumerate(contents) if i not in lost]
  report = read_report.ReadReport()
  found = {name: [] for name in expected}
  for _, content in pairs(read(record_chunks.RecordChunks(report), paths)):
    found[content[:3]].append(content)
  assert found == expected
  assert set(report.counts()) == {"bad_checksum", "truncated_record"}
  told = "".join(report.problems())
  assert all(f"{path}, record" in told for path in paths)


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


def sizes_of(contents):
  return sum(16 + len(content) for content in contents)


@pytest.mark.parametrize("length", [*record_files_test.HUGE, 5000])
@pytest.mark.parametrize("count", [0, 40])
def test_a_length_that_does_not_fit_costs_its_record(tmp_path, length, count):
  path, contents = make_file(tmp_path / "a", count)
  after, more = make_file(tmp_path / "b", 3)
  with open(path, "ab") as stream, open(after, "rb") as rest:
    stream.write(record_files_test.forged(length) + b"!" * 9 + rest.read())
  report = read_report.ReadReport()
  found = read(record_chunks.RecordChunks(report), [path])
  expected = [*contents, None, *more]
  assert pairs(found) == [
    pair for pair in enumerate(expected) if pair[1] is not None
  ]
  assert report.counts() == {"truncated_record": 1}


def test_reads_gzip(tmp_path):
  path, contents = make_file(tmp_path / "a", 100)
  packed = record_files_test.pack(path, tmp_path / "b.gz")
  twice = tmp_path / "twice.gz"
  with open(packed, "rb") as stream:
    twice.write_bytes(2 * stream.read())
  report = read_report.ReadReport()
  chunks = record_chunks.RecordChunks(report)
  assert pairs(read(chunks, [packed])) == list(enumerate(contents))
  assert pairs(read(chunks, [str(twice)])) == list(enumerate(2 * contents))
  assert report.counts() == {}


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_that_vanishes_before_it_is_opened_is_reported(
  tmp_path, monkeypatch, compress
):
  path, _ = make_file(tmp_path / "a", 5000)
  if compress:
    path = record_files_test.pack(path, tmp_path / "b")
  open_it = record_chunks.RecordChunks._open

  def open_and_remove(self, path):
    found = open_it(self, path)
    os.remove(path)
    return found

  monkeypatch.setattr(record_chunks.RecordChunks, "_open", open_and_remove)
  report = read_report.ReadReport()
  assert read(record_chunks.RecordChunks(report), [path]) == []
  assert report.counts() == {"unreadable_file": 1}


@pytest.mark.parametrize("left", [0, 2000, 2100, 2999.5])
def test_a_file_that_is_cut_while_being_read_is_reported(
  tmp_path, monkeypatch, left
):
  path, contents = make_file(tmp_path / "a", 3000)
  size = sizes_of(contents[: int(left)]) + (5 if left % 1 else 0)
  permits = record_chunks._Reading.permits
  calls = []

  def cut_and_permit(self):
    calls.append(self)
    if len(calls) == 2:
      os.truncate(self.path, size)
    return permits(self)

  monkeypatch.setattr(record_chunks._Reading, "permits", cut_and_permit)
  # Nothing is read before it is asked for.
  monkeypatch.setattr(record_chunks, "_BUFFER_BYTES", 0)
  report = read_report.ReadReport()
  found = pairs(read(record_chunks.RecordChunks(report), [path]))
  kept = max(1024, int(left))
  assert found == list(enumerate(contents))[:kept]
  assert set(report.counts()) == {"truncated_record"}
  last = report.problems()[-1]
  assert f"cut from {sizes_of(contents)} to {size} bytes" in last


def test_a_file_that_is_replaced_or_removed_while_being_read_is_whole(
  tmp_path, monkeypatch
):
  path, contents = make_file(tmp_path / "a", 3000)
  permits = record_chunks._Reading.permits
  calls = []

  def permit_and_remove(self):
    calls.append(self)
    if len(calls) == 3:
      os.remove(self.path)
    return permits(self)

  monkeypatch.setattr(record_chunks._Reading, "permits", permit_and_remove)
  monkeypatch.setattr(record_chunks, "_BUFFER_BYTES", 0)
  report = read_report.ReadReport()
  found = pairs(read(record_chunks.RecordChunks(report), [path]))
  assert found == list(enumerate(contents))
  assert report.counts() == {}


def test_an_empty_file_is_told_and_is_no_damage(tmp_path, caplog):
  path = str(tmp_path / "a")
  open(path, "wb").close()
  report = read_report.ReadReport(strict=True)
  assert read(record_chunks.RecordChunks(report), [path]) == []
  assert report.counts() == {}
  assert "1 empty files" in report.summary()
  assert f"{path} is empty" in caplog.text


def test_a_lost_file_is_said_to_be_one(tmp_path):
  path = tmp_path / "a"
  path.write_bytes(b"<html>404</html>" * 9)
  report = read_report.ReadReport()
  assert read(record_chunks.RecordChunks(report), [str(path)]) == []
  assert report.counts() == {"not_a_tfrecord": 1}
  assert report.problems()[0].startswith(f"{path}: not a tfrecord: it is an")
  assert "144 of 144 bytes lost" in report.summary()


@pytest.mark.parametrize("kept", [3, 40])
def test_a_gzip_file_that_gives_no_record_is_damaged(tmp_path, kept):
  # A download that was broken off, and the zeros that were to be replaced.
  path, _ = make_file(tmp_path / "a", 100)
  packed = record_files_test.pack(path, tmp_path / "b.gz")
  with open(packed, "r+b") as stream:
    stream.truncate(kept)
    if kept == 40:
      stream.truncate(4000)
  report = read_report.ReadReport()
  assert pairs(read(record_chunks.RecordChunks(report), [packed])) == []
  assert sum(report.counts().values()) == 1
