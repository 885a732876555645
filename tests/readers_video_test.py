"""Tests of the reader of video-level records."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import readers
from records import report as read_report
from tests import record_data as records
from tests.readers_test import (
  NUM_CLASSES,
  frame_reader,
  ids,
  make_videos,
  read,
  write_videos,
)


def video_reader():
  return readers.YT8MAggregatedFeatureReader(
    feature_names=["mean_rgb", "mean_audio"],
    feature_sizes=[5, 3],
    num_classes=NUM_CLASSES,
  )


def make_features(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "mean_rgb": rng.normal(size=5).astype(np.float32),
    "mean_audio": rng.normal(size=3).astype(np.float32),
  }


def test_labels_of_any_kind_cost_inference_no_video(tmp_path):
  record = records.video_record(b"v", None, make_features())
  example = tf.train.Example.FromString(record)
  example.features.feature["labels"].float_list.value.append(1.0)
  path = records.write(tmp_path / "a", [example.SerializeToString()])
  reader = video_reader()
  assert ids(read(reader, [path], use_labels=False)) == [b"v"]
  assert ids(read(reader, [path])) == []
  assert reader.report.counts() == {"wrong_type": 1}


def test_gives_every_video_as_written(tmp_path):
  written = [
    records.video_record(b"v%d" % i, [i], make_features(i)) for i in range(6)
  ]
  path = records.write(tmp_path / "a", written)
  batches = read(video_reader(), [path])
  assert ids(batches) == [b"v%d" % i for i in range(6)]
  for i, row in enumerate(np.concatenate([b["features"] for b in batches])):
    np.testing.assert_array_equal(
      row, np.concatenate(list(make_features(i).values()))
    )
  np.testing.assert_array_equal(batches[0]["num_frames"], [1, 1, 1, 1])


@pytest.mark.parametrize(
  "kind, change",
  [
    ("missing_id", {"video_id": None}),
    ("no_labels", {"labels": []}),
    ("missing_feature", {"features": {"mean_rgb": [1.0] * 5}}),
    (
      "bad_feature_size",
      {"features": {"mean_rgb": [1.0] * 4, "mean_audio": [1.0] * 3}},
    ),
  ],
)
def test_a_damaged_record_costs_no_other(tmp_path, kind, change):
  good = [
    records.video_record(b"v%d" % i, [i], make_features(i)) for i in range(5)
  ]
  damaged = {"video_id": b"x", "labels": [1], "features": make_features()}
  good.insert(2, records.video_record(**{**damaged, **change}))
  reader = video_reader()
  path = records.write(tmp_path / "a", good)
  found = ids(read(reader, [path], skip_unlabelled=True))
  assert found == [b"v%d" % i for i in range(5)]
  assert reader.report.counts() == {kind: 1}


@pytest.mark.parametrize("use_labels", [False, True])
def test_numbers_that_are_not_finite_cost_no_other_video(tmp_path, use_labels):
  written = []
  for i in range(7):
    features = make_features(i)
    if i in (2, 3, 5):
      features["mean_audio"][1] = {2: np.nan, 3: np.inf, 5: -np.inf}[i]
    written.append(records.video_record(b"v%d" % i, [i], features))
  path = records.write(tmp_path / "a", written)
  reader = video_reader()
  batches = read(reader, [path], use_labels=use_labels, num_epochs=2)
  assert ids(batches) == [b"v0", b"v1", b"v4", b"v6"] * 2
  for batch in batches:
    assert np.all(np.isfinite(batch["features"]))
  assert reader.report.counts() == {"not_finite": 3}
  assert len(reader.report.unread()) == 3


def test_a_foreign_record_costs_no_other(tmp_path):
  good = records.video_record(b"v", [1], make_features())
  path = records.write(tmp_path / "a", [good, b"\x12\x03abc", good])
  reader = video_reader()
  assert ids(read(reader, [path])) == [b"v"] * 2
  assert reader.report.counts() == {"missing_id": 1, "missing_feature": 1}


def test_gives_up_where_no_record_is_of_the_size(tmp_path, monkeypatch):
  monkeypatch.setattr(read_report, "_MAX_UNUSABLE_RECORDS", 6)
  features = {"mean_rgb": [1.0] * 7, "mean_audio": [1.0] * 3}
  damaged = [records.video_record(b"v", [1], features)] * 9
  reader = video_reader()
  with pytest.raises(tf.errors.OpError):
    read(reader, [records.write(tmp_path / "a", damaged)])
  assert "7 floats, where --feature_sizes says 5" in str(reader.report.error)


def test_what_inference_lacks_is_told_once(tmp_path):
  unlabelled = records.video_record(b"v", [], {"mean_audio": [1.0] * 3})
  path = records.write(tmp_path / "a", [unlabelled])
  reader = video_reader()
  assert read(reader, [path], use_labels=False, skip_frameless=False) == []
  assert reader.report.counts() == {"missing_feature": 1}


def test_hints_at_the_other_level(tmp_path):
  frames = write_videos(tmp_path / "a", make_videos(1))
  reader = video_reader()
  assert read(reader, [frames]) == []
  assert "--frame_features=True" in reader.report.problems()[0]
  video = records.write(
    tmp_path / "b", [records.video_record(b"v", [1], make_features())]
  )
  reader = frame_reader()
  assert read(reader, [video]) == []
  assert "leave --frame_features out" in reader.report.problems()[0]
