"""Tests of readers.py, records/report.py and records/salvage.py."""

import re
import struct

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import readers
from records import framing
from records import report as read_report
from tests import record_data as records

SIZES = {"rgb": 5, "audio": 3}
NUM_CLASSES = 7


def frame_reader(**kwargs):
  return readers.YT8MFrameFeatureReader(
    **{
      "feature_names": list(SIZES),
      "feature_sizes": list(SIZES.values()),
      "num_classes": NUM_CLASSES,
      **kwargs,
    }
  )


def read(reader, files, **kwargs):
  """All batches of a reader, as dicts of arrays."""
  batches = []
  with tf.Graph().as_default(), tf.Session() as session:
    data = reader.batches(files, **{"batch_size": 4, **kwargs})
    iterator = tf.data.make_initializable_iterator(data)
    element = iterator.get_next()
    session.run(iterator.initializer)
    while True:
      try:
        batches.append(session.run(element))
      except tf.errors.OutOfRangeError:
        return batches


def ids(batches):
  return [video_id for batch in batches for video_id in batch["video_ids"]]


def make_videos(count, seed=0, max_frames=6):
  """[(id, labels, features)] of random videos of 1 to max_frames frames."""
  rng = np.random.default_rng(seed)
  return [
    (
      b"v%d_%03d" % (seed, i),
      [int(label) for label in rng.choice(NUM_CLASSES, 2, replace=False)],
      records.random_frames(rng, int(rng.integers(1, max_frames)), SIZES),
    )
    for i in range(count)
  ]


def write_videos(path, videos):
  return records.write(path, [records.frame_record(*video) for video in videos])


def check_contents(batches, videos):
  """Every video that came is, frame for frame, the one that was written."""
  by_id = {video_id: (labels, frames) for video_id, labels, frames in videos}
  for batch in batches:
    start = 0
    assert batch["features"].dtype == np.uint8
    for row, video_id in enumerate(batch["video_ids"]):
      labels, frames = by_id[video_id]
      expected = np.concatenate([frames[name] for name in SIZES], axis=1)
      count = batch["num_frames"][row]
      np.testing.assert_array_equal(
        batch["features"][start : start + count], expected
      )
      assert sorted(np.flatnonzero(batch["labels"][row])) == sorted(labels)
      start += count
    assert start == len(batch["features"])


class TestFrames:
  @pytest.mark.slow
  def test_shuffles_by_seed_and_by_epoch(self, tmp_path):
    files = [
      write_videos(tmp_path / str(i), make_videos(9, seed=i)) for i in range(3)
    ]

    def order(seed, **kwargs):
      return ids(
        read(
          frame_reader(),
          files,
          shuffle_buffer=20,
          seed=seed,
          batch_size=27,
          **kwargs,
        )
      )

    first = order(1)
    assert first == order(1)
    assert first != order(2)
    assert sorted(first) == sorted(order(2))
    assert first != order(1, first_epoch=1, num_epochs=2)

  def test_numbers_epochs_and_starts_at_the_first(self, tmp_path):
    path = write_videos(tmp_path / "a", make_videos(4))
    batches = read(frame_reader(), [path], num_epochs=3, first_epoch=1)
    assert [batch["epoch"] for batch in batches] == [1, 2]
    assert read(frame_reader(), [path], num_epochs=3, first_epoch=3) == []

  def test_empty_file_is_no_damage(self, tmp_path):
    empty = records.write(tmp_path / "a", [])
    videos = make_videos(3)
    full = write_videos(tmp_path / "b", videos)
    reader = frame_reader()
    assert len(ids(read(reader, [empty, full]))) == 3
    assert reader.report.counts() == {}


class TestEndlessReading:
  def test_of_nothing_fails(self, tmp_path):
    empty = records.write(tmp_path / "a", [])
    reader = frame_reader()
    with pytest.raises(tf.errors.OpError):
      read(reader, [empty], num_epochs=None)
    assert "no record" in str(reader.report.error)

  def test_of_something_goes_on(self, tmp_path):
    path = write_videos(tmp_path / "a", make_videos(3))
    empty = records.write(tmp_path / "b", [])
    with tf.Graph().as_default(), tf.Session() as session:
      data = frame_reader().batches(
        [path, empty], batch_size=2, num_epochs=None
      )
      iterator = tf.data.make_initializable_iterator(data)
      batch = iterator.get_next()
      session.run(iterator.initializer)
      counts = [len(session.run(batch)["video_ids"]) for _ in range(9)]
    assert counts == [2] * 9


@pytest.mark.slow
class TestHoldout:
  def test_sides_are_disjoint_complete_and_of_the_asked_size(self, tmp_path):
    path = write_videos(tmp_path / "a", make_videos(400, max_frames=2))
    kwargs = {"holdout_fraction": 0.25, "batch_size": 64}
    kept = ids(read(frame_reader(), [path], **kwargs))
    held = ids(read(frame_reader(), [path], holdout=True, **kwargs))
    assert not set(kept) & set(held)
    assert len(kept) + len(held) == 400
    assert 70 <= len(held) <= 130  # 100 +- 3.5 standard deviations.

  def test_does_not_depend_on_files_or_on_other_videos(self, tmp_path):
    videos = make_videos(60)
    whole = write_videos(tmp_path / "a", videos)
    half = write_videos(tmp_path / "b", videos[::2])
    kwargs = {"holdout_fraction": 0.3, "holdout": True}
    held = ids(read(frame_reader(), [whole], **kwargs))
    held_of_half = ids(read(frame_reader(), [half], **kwargs))
    assert set(held_of_half) == set(held) & {video[0] for video in videos[::2]}

  @pytest.mark.parametrize("fraction, holdout", [(-0.1, 0), (1.0, 0), (0, 1)])
  def test_refuses_a_fraction_that_makes_no_sense(self, fraction, holdout):
    with pytest.raises(ValueError, match="holdout_fraction"):
      frame_reader().batches(
        ["x"], batch_size=1, holdout_fraction=fraction, holdout=bool(holdout)
      )


def damaged_record(kind):
  """A record with one problem, and what is left of it: None or frames."""
  rng = np.random.default_rng(5)
  frames = records.random_frames(rng, 4, SIZES)
  good = {"video_id": b"damaged", "labels": [1], "features": frames}
  kept = None
  if kind == "unparsable_record":
    return b"\xff\xff\xff not a protocol buffer", None
  if kind == "missing_id":
    good["video_id"] = None
  elif kind == "missing_feature":
    good["features"] = {"rgb": frames["rgb"]}
  elif kind == "bad_feature_size":
    rows = [bytes(row) for row in frames["rgb"]]
    rows[2] = rows[2][:-1]
    good["features"] = {**frames, "rgb": rows}
  elif kind == "no_frames":
    good["features"] = {name: [] for name in SIZES}
  elif kind == "unequal_lengths":
    good["features"] = {**frames, "audio": frames["audio"][:3]}
    kept = {name: rows[:3] for name, rows in frames.items()}
  elif kind == "label_out_of_range":
    good["labels"] = [NUM_CLASSES, 1]
    kept = frames
  elif kind == "no_labels":
    good["labels"] = []
  return records.frame_record(**good), kept


RECORD_KINDS = (
  "unparsable_record",
  "missing_id",
  "missing_feature",
  "bad_feature_size",
  "no_frames",
  "unequal_lengths",
  "label_out_of_range",
  "no_labels",
)


class TestDamagedRecords:
  def test_are_named_and_counted_and_cost_no_other_video(self, tmp_path):
    written, expected, kinds = [], [], {}
    for video, kind in zip(make_videos(len(RECORD_KINDS)), RECORD_KINDS):
      written.append(records.frame_record(*video))
      expected.append(video)
      kinds[len(written)] = kind
      damaged, kept = damaged_record(kind)
      written.append(damaged)
      if kept is not None:
        expected.append((b"damaged", [1], kept))
    reader = frame_reader()
    path = records.write(tmp_path / "a", written)
    found = ids(read(reader, [path], skip_unlabelled=True))
    assert found == [video[0] for video in expected]
    assert reader.report.counts() == dict.fromkeys(RECORD_KINDS, 1)
    for number, kind in kinds.items():
      place = f"{path}, record {number}: {kind.replace('_', ' ')}"
      assert any(text.startswith(place) for text in reader.report.problems())

  @pytest.mark.parametrize(
    "kind", ["unparsable_record", "bad_feature_size", "no_labels"]
  )
  def test_are_errors_when_strict(self, tmp_path, kind):
    damaged, _ = damaged_record(kind)
    good = records.frame_record(*make_videos(1)[0])
    path = records.write(tmp_path / "a", [good, good, damaged])
    reader = frame_reader()
    with pytest.raises(tf.errors.OpError):
      read(reader, [path], strict=True, skip_unlabelled=True)
    text = str(reader.report.error)
    assert f"{path}, record 2" in text
    assert kind.replace("_", " ") in text

  def test_a_batch_of_nothing_usable_is_passed_over(self, tmp_path):
    videos = make_videos(4)
    damaged = [damaged_record(kind)[0] for kind in RECORD_KINDS[:5]]
    written = damaged[:4] + [records.frame_record(*video) for video in videos]
    reader = frame_reader()
    batches = read(reader, [records.write(tmp_path / "a", written)])
    assert ids(batches) == [video[0] for video in videos]
    assert reader.report.counts() == dict.fromkeys(RECORD_KINDS[:4], 1)

  def test_inference_keeps_videos_without_labels_or_frames(self, tmp_path):
    written = [
      damaged_record(kind)[0]
      for kind in ("no_labels", "no_frames", "label_out_of_range")
    ]
    reader = frame_reader()
    path = records.write(tmp_path / "a", written)
    (batch,) = read(reader, [path], use_labels=False, skip_frameless=False)
    np.testing.assert_array_equal(batch["num_frames"], [4, 0, 4])
    assert reader.report.counts() == {"no_frames": 1}

  @pytest.mark.parametrize("segment_labels", [False, True])
  def test_labels_of_any_kind_cost_inference_no_video(
    self, tmp_path, caplog, segment_labels
  ):
    example = tf.train.SequenceExample.FromString(
      records.frame_record(b"v", None, make_videos(1)[0][2])
    )
    for key in ("labels", "segment_labels"):
      example.context.feature[key].bytes_list.value.append(b"cat")
    path = records.write(tmp_path / "a", [example.SerializeToString()] * 120)
    reader = frame_reader(segment_labels=segment_labels)
    batches = read(reader, [path], use_labels=False)
    assert len(ids(batches)) == 120
    assert reader.report.summary() == "no damaged record"
    assert not caplog.records

  def test_what_costs_inference_a_video_is_one_text_a_record(self, tmp_path):
    reader = frame_reader()
    path = records.write(tmp_path / "a", [b"", b""])
    read(reader, [path], use_labels=False)
    first, _ = reader.report.unread()
    assert first.startswith(f"{path}, record 0: missing id: its context has []")
    assert "; missing feature: no 'rgb'" in first

  def test_says_which_features_a_record_has(self, tmp_path):
    path = write_videos(tmp_path / "a", make_videos(1))
    reader = frame_reader(feature_names=["rbg", "audio"])
    assert read(reader, [path]) == []
    assert "no 'rbg' in ['audio', 'rgb']" in reader.report.problems()[0]

  def test_gives_up_on_a_unusable_data_set(self, tmp_path, monkeypatch):
    monkeypatch.setattr(read_report, "_MAX_UNUSABLE_RECORDS", 6)
    damaged = [damaged_record("no_labels")[0]] * 9
    reader = frame_reader()
    path = records.write(tmp_path / "a", damaged)
    with pytest.raises(tf.errors.OpError):
      read(reader, [path], skip_unlabelled=True)
    # They are counted by eight at a time, in no certain order.
    assert re.search(
      "None of the first [89] records is usable", str(reader.report.error)
    )

  def test_does_not_give_up_on_cut_records(self, tmp_path, monkeypatch):
    monkeypatch.setattr(read_report, "_MAX_UNUSABLE_RECORDS", 6)
    damaged = [damaged_record("label_out_of_range")[0]] * 9
    reader = frame_reader()
    assert len(ids(read(reader, [records.write(tmp_path / "a", damaged)]))) == 9
    assert reader.report.counts() == {"label_out_of_range": 9}


class TestUnlabelled:
  def written(self, tmp_path):
    """A file of videos with labels, without, and with only foreign ones."""
    frames = make_videos(1)[0][2]
    return records.write(
      tmp_path / "a",
      [
        records.frame_record(video_id, labels, frames)
        for video_id, labels in [
          (b"a", [1]),
          (b"b", []),
          (b"c", None),
          (b"d", [NUM_CLASSES]),
        ]
      ],
    )

  def test_are_kept_and_counted_once(self, tmp_path):
    reader = frame_reader()
    batches = read(reader, [self.written(tmp_path)], num_epochs=3)
    assert ids(batches) == [b"a", b"b", b"c", b"d"] * 3
    assert not np.any(batches[0]["labels"][1:])
    assert reader.report.counts() == {"label_out_of_range": 1}
    assert reader.report.num_unlabelled() == 3
    assert "3 videos without labels" in reader.report.summary()

  def test_are_no_problem_when_strict(self, tmp_path):
    path = write_videos(tmp_path / "a", [(b"a", [], make_videos(1)[0][2])])
    assert ids(read(frame_reader(), [path], strict=True)) == [b"a"]

  def test_are_skipped_and_counted_on_demand(self, tmp_path):
    reader = frame_reader()
    batches = read(reader, [self.written(tmp_path)], skip_unlabelled=True)
    assert ids(batches) == [b"a"]
    assert reader.report.counts() == {"label_out_of_range": 1, "no_labels": 3}
    assert reader.report.num_unlabelled() == 0

  @pytest.mark.parametrize("skip_frameless", [False, True])
  def test_are_apart_from_those_without_frames(self, tmp_path, skip_frameless):
    path = records.write(tmp_path / "a", [damaged_record("no_frames")[0]])
    reader = frame_reader()
    batches = read(reader, [path], skip_frameless=skip_frameless)
    assert ids(batches) == ([] if skip_frameless else [b"damaged"])
    assert reader.report.counts() == {"no_frames": 1}


class TestWarnings:
  def read(self, tmp_path, caplog, kinds, count):
    frames = {name: rows for name, rows in make_videos(1)[0][2].items()}
    good = records.frame_record(b"v", [1, 2, 3, 4], frames)
    written = [damaged_record(kind)[0] for kind in kinds]
    written += [good] * (count - len(kinds))
    reader = frame_reader()
    read(reader, [records.write(tmp_path / "a", written)], num_epochs=2)
    early = [r.message for r in caplog.records if "ATTENTION" in r.message]
    caplog.clear()
    reader.report.log_warnings()
    late = [r.message for r in caplog.records if "ATTENTION" in r.message]
    return early, late

  def test_tell_of_many_labels_outside_the_classes(self, tmp_path, caplog):
    # 50 of 2 * 50 + 4 * 70 labels.
    early, late = self.read(
      tmp_path, caplog, ["label_out_of_range"] * 50, count=120
    )
    assert len(early) == len(late) == 1
    assert "50 of 380 labels are outside --num_classes" in late[0]

  def test_do_not_tell_of_few(self, tmp_path, caplog):
    kinds = ["label_out_of_range"] * 30 + ["bad_feature_size"] * 9
    assert self.read(tmp_path, caplog, kinds, count=120) == ([], [])

  def test_tell_of_most_records_being_damaged(self, tmp_path, caplog):
    early, late = self.read(
      tmp_path, caplog, ["bad_feature_size"] * 90, count=110
    )
    assert len(early) == len(late) == 1
    assert "90 of 110 records are skipped or cut" in late[0]
    assert "--feature_dtype those of the data?" in late[0]

  def test_wait_for_the_end_where_there_are_few_records(self, tmp_path, caplog):
    early, late = self.read(tmp_path, caplog, ["unparsable_record"] * 9, 10)
    assert early == []
    assert "9 of 10 records are skipped or cut" in late[0]

  def test_tell_of_lost_files(self, tmp_path, caplog):
    path = tmp_path / "a"
    path.write_bytes(b"<html>" * 99)
    reader = frame_reader()
    read(reader, [write_videos(tmp_path / "b", make_videos(2)), str(path)])
    reader.report.log_warnings()
    assert "bytes of the files are lost" in caplog.text


def frame_offsets(written):
  """Where each record begins in its file, and where the last one ends."""
  sizes = [len(record) + framing.FRAMING_BYTES for record in written]
  return np.concatenate([[0], np.cumsum(sizes)]).tolist()


class TestDamagedFiles:
  @pytest.fixture
  def shard(self, tmp_path):
    videos = make_videos(40)
    written = [records.frame_record(*video) for video in videos]
    path = records.write(tmp_path / "a", written)
    return path, videos, frame_offsets(written)

  def test_a_bad_checksum_costs_one_record(self, shard):
    path, videos, offsets = shard
    with open(path, "r+b") as stream:
      stream.seek(offsets[35] + 30)
      stream.write(bytes(9))
    reader = frame_reader()
    batches = read(reader, [path])
    check_contents(batches, videos)
    expected = [video[0] for i, video in enumerate(videos) if i != 35]
    assert ids(batches) == expected
    assert reader.report.counts() == {"bad_checksum": 1}
    assert (
      f"{path}, record 35: bad checksum: at byte {offsets[35]}"
      in (reader.report.problems()[0])
    )

  def test_is_an_error_when_strict(self, shard):
    path, _, offsets = shard
    with open(path, "r+b") as stream:
      stream.truncate(offsets[37] + 40)
    reader = frame_reader()
    with pytest.raises(tf.errors.OpError):
      read(reader, [path], strict=True)
    text = str(reader.report.error)
    assert f"{path}, record 37: truncated record" in text

  def test_masked_checksum_is_that_of_the_format(self, shard):
    path, _, offsets = shard
    with open(path, "rb") as stream:
      header = stream.read(12)
      body = stream.read(offsets[1] - 16)
      crc = struct.unpack("<I", stream.read(4))[0]
    assert framing.masked_crc32c(body) == crc
    assert (
      framing.masked_crc32c(header[:8]) == struct.unpack("<I", header[8:])[0]
    )


class TestArguments:
  @pytest.mark.parametrize(
    "change",
    [
      {"feature_names": []},
      {"feature_names": ["rgb"]},
      {"feature_names": ["rgb", "rgb"]},
      {"feature_sizes": [5, 0]},
      {"num_classes": 0},
      {"max_frames": 0},
    ],
  )
  def test_refuses(self, change):
    with pytest.raises(ValueError, match="--"):
      frame_reader(**change)


class TestParseSerialized:
  def test_equals_the_pipeline(self, tmp_path):
    videos = make_videos(3)
    path = write_videos(tmp_path / "a", videos)
    (expected,) = read(frame_reader(), [path])
    with tf.Graph().as_default(), tf.Session() as session:
      serialized = tf.constant([records.frame_record(*v) for v in videos])
      found = session.run(frame_reader().parse_serialized(serialized))
    for name, values in found.items():
      np.testing.assert_array_equal(values, expected[name])

  def test_refuses_a_damaged_record(self):
    damaged, _ = damaged_record("bad_feature_size")
    with tf.Graph().as_default(), tf.Session() as session:
      found = frame_reader().parse_serialized(tf.constant([damaged]))
      with pytest.raises(tf.errors.InvalidArgumentError):
        session.run(found)
