"""Tests of records/writer.py: what it writes is what readers read."""

import os
import struct

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import readers
from records import framing, writer
from tests import readers_test

RNG = np.random.default_rng(0)
FRAMES = {
  "rgb": RNG.integers(0, 256, (4, 5), dtype=np.uint8),
  "audio": RNG.integers(0, 256, (4, 3), dtype=np.uint8),
}


def test_frames_come_back_through_the_reader(tmp_path):
  record = writer.frame_record(b"v", FRAMES, labels=[1, 6])
  paths = writer.shard_paths(str(tmp_path / "new"), "train", 2)
  writer.write_shards(paths, [[record], []])
  assert [os.path.basename(path) for path in paths] == [
    "train-00000-of-00002.tfrecord",
    "train-00001-of-00002.tfrecord",
  ]
  reader = readers_test.frame_reader()
  (batch,) = readers_test.read(reader, paths, strict=True)
  assert batch["video_ids"].tolist() == [b"v"]
  np.testing.assert_array_equal(
    batch["features"], np.concatenate([FRAMES["rgb"], FRAMES["audio"]], axis=1)
  )
  assert np.flatnonzero(batch["labels"][0]).tolist() == [1, 6]


def test_ratings_of_segments_come_back_through_the_reader(tmp_path):
  frames = {name: np.repeat(rows, 2, axis=0) for name, rows in FRAMES.items()}
  record = writer.frame_record(
    b"v", frames, ratings=[(0, 2, 1.0), (5, 3, 0.0)], id_key="video_id"
  )
  path = str(tmp_path / "a")
  writer.write_shards([path], [[record]])
  reader = readers_test.frame_reader(segment_labels=True)
  (batch,) = readers_test.read(reader, [path], strict=True)
  assert batch["video_ids"].tolist() == [b"v:0", b"v:5"]
  assert np.argwhere(batch["label_weights"]).tolist() == [[0, 2], [1, 3]]
  assert np.argwhere(batch["labels"]).tolist() == [[0, 2]]


def test_means_come_back_through_the_reader(tmp_path):
  means = {"mean_rgb": [0.5, -1.25], "mean_audio": np.float32([2.0])}
  path = str(tmp_path / "a")
  writer.write_shards([path], [[writer.video_record(b"v", means, [3])]])
  reader = readers.YT8MAggregatedFeatureReader(
    feature_names=list(means), feature_sizes=[2, 1], num_classes=7
  )
  (batch,) = readers_test.read(reader, [path], strict=True)
  assert batch["features"].tolist() == [[0.5, -1.25, 2.0]]
  assert np.flatnonzero(batch["labels"][0]).tolist() == [3]


def test_the_format_is_youtube_8ms():
  record = writer.frame_record(b"v", FRAMES, labels=[1], ratings=[(0, 2, 1.0)])
  example = tf.train.SequenceExample.FromString(record)
  context = example.context.feature
  assert context["id"].bytes_list.value == [b"v"]
  assert context["labels"].int64_list.value == [1]
  assert context["segment_start_times"].int64_list.value == [0]
  assert context["segment_labels"].int64_list.value == [2]
  assert context["segment_scores"].float_list.value == [1.0]
  lists = example.feature_lists.feature_list
  assert sorted(lists) == ["audio", "rgb"]
  assert [step.bytes_list.value for step in lists["rgb"].feature] == [
    [row.tobytes()] for row in FRAMES["rgb"]
  ]


def test_a_file_is_records_between_lengths_and_checksums(tmp_path):
  path = tmp_path / "a"
  writer.write_shards([str(path)], [[b"abc", b""]])
  expected = b""
  for record in (b"abc", b""):
    length = struct.pack("<Q", len(record))
    for part in (length, record):
      expected += part + struct.pack("<I", framing.masked_crc32c(part))
  assert path.read_bytes() == expected


def test_quantize_rounds_to_the_nearest_byte_and_clips():
  steps = np.arange(256.0)
  values = writer.dequantize(steps)
  assert values[0] == 4 / 512 - 2
  np.testing.assert_array_equal(writer.quantize(values), steps)
  np.testing.assert_array_equal(writer.quantize(values + 1.9 / 255), steps)
  assert writer.quantize(np.array([-9.0, 9.0])).tolist() == [0, 255]


def fails():
  yield b"half"
  raise RuntimeError


def test_a_failure_leaves_the_old_files_and_nothing_else(tmp_path):
  paths = writer.shard_paths(str(tmp_path), "train", 2)
  writer.write_shards(paths, [[b"old"], [b"old"]])
  before = {path: open(path, "rb").read() for path in paths}
  with pytest.raises(RuntimeError):
    writer.write_shards(paths, [[b"new"], fails()], stale=paths[:1])
  assert sorted(os.listdir(tmp_path)) == list(map(os.path.basename, paths))
  assert {path: open(path, "rb").read() for path in paths} == before


def test_a_reader_passes_over_what_is_not_whole(tmp_path):
  paths = writer.shard_paths(str(tmp_path), "train", 2)
  writer.write_shards(paths[:1], [[b"old"]])
  found = []

  def look():
    found.extend(readers.expand_data_pattern(f"{tmp_path}/train*"))
    yield b"new"

  writer.write_shards(paths, [[b"new"], look()])
  assert found == paths[:1]


def test_stale_files_go_when_the_new_ones_come(tmp_path):
  stale = tmp_path / "train-00000-of-00001.tfrecord"
  stale.touch()
  paths = writer.shard_paths(str(tmp_path), "train", 2)
  writer.write_shards(paths, [[b"a"], [b"b"]], stale=[str(stale)])
  assert sorted(os.listdir(tmp_path)) == list(map(os.path.basename, paths))


def test_what_cannot_be_written_is_an_os_error(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(OSError):
    writer.write_shards([str(tmp_path / "file" / "a")], [[b"x"]])
  with pytest.raises(ValueError):
    writer.write_shards([str(tmp_path / "a")], [[b"x"], [b"y"]])
  assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
  "change, message",
  [
    ({"video_id": b""}, "Need an id"),
    ({"video_id": None}, "Need an id"),
    ({"labels": [3, -1]}, r"labels >= 0, got \[3, -1\]"),
    ({"features": {}}, "as many frames >= 1 of each, got {}"),
    ({"features": {"a": [], "b": []}}, "as many frames >= 1"),
    ({"features": {"a": [b"x"], "b": [b"x"] * 2}}, "{'a': 1, 'b': 2}"),
    ({"features": {"a": [b"x", b"xy"]}}, "one size of 'a'"),
    ({"features": {"a": np.zeros([2, 3])}}, "uint8 .*quantize.* got float64"),
    ({"features": {"a": np.zeros([2], np.uint8)}}, r"uint8 \[2\]"),
  ],
)
def test_refuses_frames_that_readers_would_skip_or_cut(change, message):
  good = {"video_id": b"v", "features": FRAMES, "labels": [1]}
  writer.frame_record(**good)
  with pytest.raises(ValueError, match=message):
    writer.frame_record(**(good | change))


@pytest.mark.parametrize(
  "change, message",
  [
    ({"video_id": b""}, "Need an id"),
    ({"labels": [-1]}, "labels >= 0"),
    ({"features": {"a": [0.5, np.nan]}}, "finite numbers .* of 'a'"),
    ({"features": {"a": [[0.5]]}}, r"\[D\] of 'a'"),
  ],
)
def test_refuses_numbers_that_readers_would_skip(change, message):
  good = {"video_id": b"v", "features": {"a": [0.5]}, "labels": [1]}
  writer.video_record(**good)
  with pytest.raises(ValueError, match=message):
    writer.video_record(**(good | change))
