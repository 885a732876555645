"""Tests of record_diagnosis.py: which flaws a record has."""

import numpy as np
import pytest

import read_report
import record_diagnosis
from tests import records

SIZES = {"rgb": 5, "audio": 3}
RATINGS = [(0, 1, 1.0), (5, 2, 0.0)]


def frames(count):
  return records.random_frames(np.random.default_rng(0), count, SIZES)


def frame_flaws(record, **kwargs):
  return list(
    record_diagnosis.frame_flaws(
      record,
      **{
        "sizes": SIZES,
        "num_classes": 7,
        "max_frames": 9,
        "segment_labels": False,
        "require_labels": True,
        **kwargs,
      },
    )
  )


def video_flaws(record, require_labels=True):
  return list(
    record_diagnosis.video_flaws(
      record, sizes=SIZES, num_classes=7, require_labels=require_labels
    )
  )


def kinds(flaws):
  assert {kind for kind, _ in flaws} <= set(read_report.KINDS)
  return [kind for kind, _ in flaws]


@pytest.mark.parametrize("id_key", ["id", "video_id"])
def test_finds_nothing_in_a_good_record(id_key):
  good = records.frame_record(b"v", [0, 6], frames(4), id_key=id_key)
  assert frame_flaws(good) == []
  floats = {name: [0.5] * size for name, size in SIZES.items()}
  assert video_flaws(records.video_record(b"v", [6], floats, id_key)) == []


@pytest.mark.parametrize(
  "change, expected",
  [
    ({"video_id": None}, ["missing_id"]),
    ({"video_id": b""}, ["missing_id"]),
    ({"labels": None}, ["no_labels"]),
    ({"labels": [7]}, ["label_out_of_range", "no_labels"]),
    ({"labels": [-1, 3, 7]}, ["label_out_of_range"] * 2),
    ({"features": {"rgb": frames(2)["rgb"]}}, ["missing_feature"]),
    ({"features": {}}, ["missing_feature"] * 2),
    ({"features": {"rgb": [], "audio": []}}, ["no_frames"]),
    ({"features": {**frames(2), "audio": []}}, ["missing_feature"]),
    (
      {"features": {**frames(4), "audio": frames(3)["audio"]}},
      ["unequal_lengths"],
    ),
    (
      {"features": {"rgb": [b"12345", b"1234"], "audio": [b"123"] * 2}},
      ["bad_feature_size"],
    ),
    ({"video_id": None, "labels": []}, ["missing_id", "no_labels"]),
  ],
)
def test_names_every_flaw_of_a_frame_level_record(change, expected):
  good = {"video_id": b"v", "labels": [1], "features": frames(4)}
  assert kinds(frame_flaws(records.frame_record(**{**good, **change}))) == (
    expected
  )


@pytest.mark.parametrize(
  "change, expected",
  [
    ({"video_id": None}, ["missing_id"]),
    ({"labels": []}, ["no_labels"]),
    ({"features": {"rgb": [1.0] * 5}}, ["missing_feature"]),
    (
      {"features": {"rgb": [1.0] * 4, "audio": [1.0] * 3}},
      ["bad_feature_size"],
    ),
  ],
)
def test_names_every_flaw_of_a_video_level_record(change, expected):
  floats = {name: [0.5] * size for name, size in SIZES.items()}
  good = {"video_id": b"v", "labels": [1], "features": floats}
  assert kinds(video_flaws(records.video_record(**{**good, **change}))) == (
    expected
  )


def test_labels_do_not_matter_where_they_are_not_required():
  record = records.frame_record(b"v", [7, 8], frames(4))
  assert frame_flaws(record, require_labels=False) == []
  floats = {name: [0.5] * size for name, size in SIZES.items()}
  record = records.video_record(b"v", [], floats)
  assert video_flaws(record, require_labels=False) == []


@pytest.mark.parametrize(
  "ratings, max_frames, expected",
  [
    (RATINGS, 9, []),
    (RATINGS, 5, ["segment_out_of_range"]),
    ([(-5, 1, 1.0), (6, 1, 1.0)], 9, ["segment_out_of_range"] * 2),
    ([(0, 7, 1.0)], 9, ["label_out_of_range", "no_labels"]),
    (None, 9, ["no_labels"]),
  ],
)
def test_names_the_flaws_of_segments(ratings, max_frames, expected):
  record = records.frame_record(b"v", [1], frames(6), ratings=ratings)
  found = frame_flaws(record, segment_labels=True, max_frames=max_frames)
  assert kinds(found) == expected


def test_what_is_no_message_is_unparsable():
  assert kinds(frame_flaws(b"\xff\xff\xff")) == ["unparsable_record"]
  assert kinds(video_flaws(b"\xff\xff\xff")) == ["unparsable_record"]


def test_another_message_that_parses_as_an_example_is_none_of_ours():
  # A field that an Example does not know, and that a SequenceExample refuses.
  foreign = b"\x12\x03abc"
  assert kinds(video_flaws(foreign)) == [
    "missing_id",
    *["missing_feature"] * 2,
    "no_labels",
  ]
