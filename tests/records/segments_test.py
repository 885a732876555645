"""Tests of five-second segments, from records to the segment CSV."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import readers
from predictions import segment_submission
from records import segments
from tests import readers_test
from tests import record_data as records

NUM_CLASSES = 7
SIZES = readers_test.SIZES


def run(fetch):
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(fetch())


def test_windows_cover_every_frame_once():
  counts = [7, 0, 5, 1, 11]
  videos, starts = run(lambda: segments.windows(tf.constant(counts)))
  expected = [
    (video, start)
    for video, count in enumerate(counts)
    for start in range(0, count, 5)
  ]
  assert list(zip(videos, starts)) == expected


def test_cut_takes_the_frames_of_each_segment():
  counts = [7, 0, 5, 11]
  frames = np.arange(2 * sum(counts)).reshape([-1, 2]).astype(np.uint8)
  wanted = [(3, 10), (0, 0), (0, 5), (3, 3), (2, 4)]
  found, lengths = run(
    lambda: segments.cut(
      tf.constant(frames),
      tf.constant(counts),
      tf.constant([video for video, _ in wanted], tf.int64),
      tf.constant([start for _, start in wanted], tf.int64),
    )
  )
  expected = []
  for video, start in wanted:
    own = frames[sum(counts[:video]) : sum(counts[: video + 1])]
    expected.append(own[start : start + 5])
  assert lengths.tolist() == [len(piece) for piece in expected]
  np.testing.assert_array_equal(found, np.concatenate(expected))


def test_distinct_names_each_segment_once():
  videos, starts, index = run(
    lambda: segments.distinct(
      tf.constant([2, 0, 2, 2], tf.int64), tf.constant([5, 5, 0, 5], tf.int64)
    )
  )
  assert list(zip(videos, starts)) == [(2, 5), (0, 5), (2, 0)]
  assert index.tolist() == [0, 1, 2, 0]


def reader(**kwargs):
  return readers_test.frame_reader(segment_labels=True, **kwargs)


def make_record(video_id, count, ratings, seed=0):
  frames = records.random_frames(np.random.default_rng(seed), count, SIZES)
  record = records.frame_record(video_id, [1], frames, ratings=ratings)
  return record, np.concatenate([frames[name] for name in SIZES], axis=1)


class TestReader:
  def test_gives_rated_segments_with_weights(self, tmp_path):
    first, frames = make_record(
      b"a", 12, [(5, 3, 1.0), (0, 2, 0.0), (5, 4, 0.49)]
    )
    # Half is a yes.
    second, other = make_record(b"b", 8, [(5, 6, 0.5)], seed=1)
    path = records.write(tmp_path / "x", [first, second])
    (batch,) = readers_test.read(reader(), [path])
    assert batch["video_ids"].tolist() == [b"a:5", b"a:0", b"b:5"]
    assert batch["num_frames"].tolist() == [5, 5, 3]
    np.testing.assert_array_equal(
      batch["features"],
      np.concatenate([frames[5:10], frames[:5], other[5:8]]),
    )
    labels = np.zeros([3, NUM_CLASSES], bool)
    labels[0, 3] = labels[2, 6] = True
    np.testing.assert_array_equal(batch["labels"], labels)
    weights = np.zeros([3, NUM_CLASSES])
    weights[0, 3] = weights[0, 4] = weights[1, 2] = weights[2, 6] = 1.0
    np.testing.assert_array_equal(batch["label_weights"], weights)

  def test_gives_every_segment_where_labels_do_not_matter(self, tmp_path):
    record, frames = make_record(b"a", 12, None)
    path = records.write(tmp_path / "x", [record])
    (batch,) = readers_test.read(
      reader(), [path], use_labels=False, skip_frameless=False
    )
    assert batch["video_ids"].tolist() == [b"a:0", b"a:5", b"a:10"]
    assert batch["num_frames"].tolist() == [5, 5, 2]
    np.testing.assert_array_equal(batch["features"], frames)

  @pytest.mark.parametrize(
    "kind, ratings, kept",
    [
      ("segment_out_of_range", [(5, 3, 1.0), (8, 2, 1.0)], [b"x:5"]),
      ("label_out_of_range", [(5, 3, 1.0), (0, NUM_CLASSES, 1.0)], [b"x:5"]),
      ("no_labels", None, []),
    ],
  )
  def test_counts_what_is_wrong(self, tmp_path, kind, ratings, kept):
    flawed, _ = make_record(b"x", 8, ratings)
    good, _ = make_record(b"y", 8, [(0, 1, 1.0)])
    path = records.write(tmp_path / "x", [flawed, good])
    own = reader()
    batches = readers_test.read(own, [path])
    assert readers_test.ids(batches) == [*kept, b"y:0"]
    assert own.report.counts() == {kind: 1}

  def test_a_record_without_scores_is_skipped_and_counted(self, tmp_path):
    record, _ = make_record(b"x", 8, [(0, 1, 1.0)])
    example = tf.train.SequenceExample.FromString(record)
    del example.context.feature["segment_scores"]
    good, _ = make_record(b"y", 8, [(5, 1, 1.0), (0, 2, 0.0)])
    path = records.write(
      tmp_path / "x", [good, example.SerializeToString(), good]
    )
    own = reader()
    batches = readers_test.read(own, [path])
    assert readers_test.ids(batches) == [b"y:5", b"y:0"] * 2
    assert own.report.counts() == {"bad_segments": 1}

  def test_a_score_that_is_not_finite_is_skipped_and_counted(self, tmp_path):
    bad, _ = make_record(b"x", 8, [(0, 1, float("nan")), (5, 1, 1.0)])
    good, _ = make_record(b"y", 8, [(5, 1, 1.0)])
    own = reader()
    path = records.write(tmp_path / "x", [bad, good])
    batches = readers_test.read(own, [path])
    assert readers_test.ids(batches) == [b"y:5"]
    assert own.report.counts() == {"not_finite": 1}

  def test_ratings_do_not_matter_where_labels_do_not(self, tmp_path):
    record, _ = make_record(b"x", 8, [(0, 1, float("nan"))])
    example = tf.train.SequenceExample.FromString(record)
    del example.context.feature["segment_start_times"]
    own = reader()
    path = records.write(tmp_path / "x", [example.SerializeToString()])
    batches = readers_test.read(
      own, [path], use_labels=False, skip_frameless=False
    )
    assert readers_test.ids(batches) == [b"x:0", b"x:5"]
    assert own.report.counts() == {}

  def test_needs_frames(self):
    import model_flags

    values = {
      "feature_names": "rgb",
      "feature_sizes": "5",
      "num_classes": 7,
      "max_frames": 300,
      "holdout_fraction": 0.0,
      "frame_features": False,
      "segment_labels": True,
      "feature_dtype": "uint8",
      "feature_ranges": "",
      "feature_fingerprints": "",
    }
    with pytest.raises(ValueError, match="--segment_labels needs --frame"):
      model_flags.build_reader(values)


class TestSegmentWriter:
  def test_ranks_segments_for_each_class(self, tmp_path, monkeypatch):
    monkeypatch.setattr(
      segment_submission, "_MIN_PENDING", 3
    )  # Compacts on the way.
    rng = np.random.default_rng(0)
    count, kept = 23, 4
    ids = [f"v{i // 3}:{5 * (i % 3)}" for i in range(count)]
    classes = np.stack([rng.permutation(5)[:3] for _ in range(count)])
    # Few different scores, so that there are ties.
    scores = -np.sort(-rng.integers(0, 4, (count, 3)) / 4, axis=1)
    path = tmp_path / "out.csv"
    with segment_submission.SegmentWriter(path, kept) as writer:
      for start in range(0, count, 6):
        piece = slice(start, start + 6)
        writer.write(ids[piece], classes[piece], scores[piece])
      writer.write(ids[:2], classes[:2], scores[:2])
    assert writer.num_rows == count
    assert writer.num_duplicates == 2
    by_class = {}
    for segment, row, values in zip(ids, classes, scores):
      for label, score in zip(row, values):
        by_class.setdefault(label, []).append((-score, segment))
    lines = ["Class,Segments"]
    for label in sorted(by_class):
      best = sorted(by_class[label], key=lambda pair: pair[0])[:kept]
      lines.append(f"{label},{' '.join(segment for _, segment in best)}")
    assert path.read_text().splitlines() == lines

  def test_passes_over_negative_scores(self, tmp_path):
    path = tmp_path / "out.csv"
    with segment_submission.SegmentWriter(path, 3) as writer:
      writer.write(["a:0"], np.array([[2, 4]]), np.array([[0.5, -1.0]]))
    assert path.read_text() == "Class,Segments\n2,a:0\n"

  def test_an_exception_leaves_the_old_file(self, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    with (
      pytest.raises(RuntimeError),
      segment_submission.SegmentWriter(path, 3) as writer,
    ):
      writer.write(["a:0"], np.array([[2]]), np.array([[0.5]]))
      raise RuntimeError
    assert path.read_text() == "old"

  @pytest.mark.parametrize(
    ("segment", "fits"),
    [
      (b"a:0", True),
      (b"a:b:10", True),
      (b"a b:0", False),
      (b"a\tb:0", False),
      (b" a:0", False),
      ("a\u2003b:0".encode(), False),
      (b"a,b:0", False),
      (b"\xff:0", False),
      (b"a:", False),
      (b"a", False),
      (b":5", False),
      (b"a:x", False),
      (b"a:-5", False),
      ("a:²".encode(), False),
    ],
  )
  def test_knows_which_segments_fit_the_csv(self, tmp_path, segment, fits):
    assert segment_submission.SegmentWriter.fits(segment) == fits
    with segment_submission.SegmentWriter(tmp_path / "x", 3) as writer:
      if fits:
        writer.write([segment], np.array([[2]]), np.array([[0.5]]))
      else:
        with pytest.raises(ValueError):
          writer.write([segment], np.array([[2]]), np.array([[0.5]]))

  def test_refuses_a_limit_below_one(self, tmp_path):
    with pytest.raises(ValueError, match="max_per_class"):
      segment_submission.SegmentWriter(tmp_path / "x", 0)


def test_the_windows_of_a_reader_are_those_of_serving(tmp_path):
  record, _ = make_record(b"a", 7, None)
  path = records.write(tmp_path / "x", [record])
  (batch,) = readers_test.read(
    reader(), [path], use_labels=False, skip_frameless=False
  )
  found = run(lambda: reader().parse_serialized(tf.constant([record])))
  for name, values in found.items():
    np.testing.assert_array_equal(values, batch[name])
  assert isinstance(reader(), readers.YT8MFrameFeatureReader)
