"""Tests of records/diagnosis.py: what is wrong with a record."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from records import diagnosis
from records import report as read_report
from tests import record_data as records

SIZES = {"rgb": 5, "audio": 3}
RATINGS = [(0, 1, 1.0), (5, 2, 0.0)]


def frames(count):
  return records.random_frames(np.random.default_rng(0), count, SIZES)


def frame_problems(record, **kwargs):
  return list(
    diagnosis.frame_problems(
      record,
      **{
        "sizes": SIZES,
        "num_classes": 7,
        "max_frames": 9,
        "segment_labels": False,
        "use_labels": True,
        "skip_unlabelled": True,
        **kwargs,
      },
    )
  )


def video_problems(record, **kwargs):
  return list(
    diagnosis.video_problems(
      record,
      **{
        "sizes": SIZES,
        "num_classes": 7,
        "use_labels": True,
        "skip_unlabelled": True,
        **kwargs,
      },
    )
  )


def kinds(problems):
  assert {kind for kind, _ in problems} <= set(read_report.KINDS)
  return [kind for kind, _ in problems]


@pytest.mark.parametrize("id_key", ["id", "video_id"])
def test_finds_nothing_in_a_good_record(id_key):
  good = records.frame_record(b"v", [0, 6], frames(4), id_key=id_key)
  assert frame_problems(good) == []
  floats = {name: [0.5] * size for name, size in SIZES.items()}
  assert video_problems(records.video_record(b"v", [6], floats, id_key)) == []


@pytest.mark.parametrize(
  "change, expected",
  [
    ({"video_id": None}, ["missing_id"]),
    ({"video_id": b""}, ["missing_id"]),
    ({"labels": None}, ["no_labels"]),
    ({"labels": [7]}, ["label_out_of_range", "no_labels"]),
    ({"labels": [-1, 3, 7]}, ["label_out_of_range"]),
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
  assert kinds(frame_problems(records.frame_record(**{**good, **change}))) == (
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
  assert kinds(video_problems(records.video_record(**{**good, **change}))) == (
    expected
  )


def test_labels_do_not_matter_where_they_are_not_used():
  record = records.frame_record(b"v", [7, 8], frames(4))
  assert frame_problems(record, use_labels=False) == []
  floats = {name: [0.5] * size for name, size in SIZES.items()}
  record = records.video_record(b"v", [], floats)
  assert video_problems(record, use_labels=False) == []


@pytest.mark.parametrize("labels", [None, [], [7]])
def test_having_no_labels_is_no_flaw_where_that_is_allowed(labels):
  record = records.frame_record(b"v", labels, frames(4))
  found = kinds(frame_problems(record, skip_unlabelled=False))
  assert found == (["label_out_of_range"] if labels else [])


def retyped(record, message, **values):
  """The record with features of other types; values: name to the new one."""
  example = message.FromString(record)
  is_frames = message is tf.train.SequenceExample
  features = (example.context if is_frames else example.features).feature
  for name, value in values.items():
    features[name].CopyFrom(value)
  return example.SerializeToString()


def strings(*values):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def floats_of(*values):
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def integers(*values):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("labels", strings(b"cat", b"dog"), "'labels' is 2 strings (the first: b'"),
    ("labels", floats_of(1.0), "'labels' is 1 floats"),
    ("id", integers(12), "'id' is 1 integers (the first: 12), where strings"),
    ("id", strings(b"a", b"b"), "'id' is 2 strings, where one is wanted"),
  ],
)
def test_names_values_of_another_type_at_both_levels(key, value, words):
  video = {name: [0.5] * size for name, size in SIZES.items()}
  for find, message, record in (
    (
      frame_problems,
      tf.train.SequenceExample,
      records.frame_record(b"v", [1], frames(2)),
    ),
    (video_problems, tf.train.Example, records.video_record(b"v", [1], video)),
  ):
    (flaw,) = find(retyped(record, message, **{key: value}))
    assert flaw[0] == "wrong_type"
    assert words in flaw[1]


def test_names_strings_where_floats_are_wanted():
  record = records.video_record(b"v", [1], {"audio": [0.5] * 3})
  record = retyped(record, tf.train.Example, rgb=strings(bytes(20)))
  (flaw,) = video_problems(record)
  assert flaw[0] == "wrong_type"
  assert "one of 20 bytes; write the numbers themselves" in flaw[1]


def test_names_frames_of_floats():
  record = records.frame_record(b"v", [1], frames(2))
  example = tf.train.SequenceExample.FromString(record)
  rgb = example.feature_lists.feature_list["rgb"]
  rgb.feature[0].CopyFrom(floats_of(*[0.5] * 5))
  (flaw,) = frame_problems(example.SerializeToString())
  assert flaw[0] == "wrong_type"
  assert "frame 0 of 'rgb' is 5 floats" in flaw[1]
  assert "quantise to uint8" in flaw[1]


@pytest.mark.parametrize(
  ("times", "words"),
  [(2, "float16 numbers?"), (4, "float32 numbers?"), (3, None)],
)
def test_suspects_frames_that_are_arrays_of_wider_numbers(times, words):
  rows = {name: [bytes(times * size)] for name, size in SIZES.items()}
  problems = frame_problems(records.frame_record(b"v", [1], rows))
  assert kinds(problems) == ["bad_feature_size"] * 2
  for _, detail in problems:
    assert (words or "quantise") in detail or words is None
    assert ("quantise" in detail) == (words is not None)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_names_numbers_that_are_not_finite(number):
  video = {"rgb": [0.5, number, 1.0, 2.0, number], "audio": [0.5] * 3}
  (flaw,) = video_problems(records.video_record(b"v", [1], video))
  assert flaw[0] == "not_finite"
  assert (
    f"2 of the 5 numbers of 'rgb' are not finite, the first {number}"
    in (flaw[1])
  )
  ratings = [(0, 1, 1.0), (5, 2, number)]
  record = records.frame_record(b"v", [1], frames(6), ratings=ratings)
  found = frame_problems(record, segment_labels=True)
  assert kinds(found) == ["not_finite"]


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
  found = frame_problems(record, segment_labels=True, max_frames=max_frames)
  assert kinds(found) == expected


def test_what_is_no_message_is_unparsable():
  assert kinds(frame_problems(b"\xff\xff\xff")) == ["unparsable_record"]
  assert kinds(video_problems(b"\xff\xff\xff")) == ["unparsable_record"]


def test_another_message_that_parses_as_an_example_is_none_of_ours():
  # A field that an Example does not know, and that a SequenceExample refuses.
  foreign = b"\x12\x03abc"
  assert kinds(video_problems(foreign)) == [
    "missing_id",
    *["missing_feature"] * 2,
    "no_labels",
  ]
