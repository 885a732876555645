"""Tests of merge.py: shards of each format are one file again, or told."""

import functools

import numpy as np
import pytest

import merge
from console import program
from predictions import (
  parquet_predictions,
  segment_submission,
  stored_predictions,
  submission,
)
from records import vocabulary, writer
from sharding import manifest, shard

NUM_CLASSES, K, NUM_SHARDS = 6, 3, 3


def _batch(rng, names):
  """(ids, classes, scores) as inference has them."""
  scores = rng.random((len(names), NUM_CLASSES), np.float32)
  classes = np.argsort(-scores, axis=1)[:, :K]
  return (
    np.array([name.encode() for name in names], object),
    classes,
    np.take_along_axis(scores, classes, axis=1),
  )


_WRITERS = {
  "csv": submission.SubmissionWriter,
  "npz": functools.partial(
    stored_predictions.PredictionsWriter, num_classes=NUM_CLASSES
  ),
  "parquet": functools.partial(
    parquet_predictions.ParquetWriter, vocabulary=vocabulary.Vocabulary(("a",))
  ),
  "segments": functools.partial(
    segment_submission.SegmentWriter, max_per_class=4, is_part=True
  ),
}
# The last shard is empty.
_NAMES = [[f"v{i}:{5 * i}" for i in range(5)], ["w0:0", "w1:5"], []]


def _write(path, kind, names=_NAMES, **changes):
  """Writes shards, and what they say of themselves."""
  rng = np.random.default_rng(0)
  for i, own in enumerate(names):
    part = shard.Shard(i, NUM_SHARDS)
    made_by = {
      "model": "m",
      "segments": kind == "segments",
      "--output_format": "csv" if kind == "segments" else kind,
      "--segment_max_pred": 4,
    }
    if i == 1:
      made_by |= changes
    task = manifest.Task(part, ["x", "y"], part.path(str(path)), made_by)
    with _WRITERS[kind](task.output) as output:
      if own:
        output.write(*_batch(rng, own))
    task.finish(len(own), 0)


def _join(path, **more):
  return merge.join(merge.Config(output_file=str(path), **more))


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet", "segments"])
def test_shards_are_what_one_run_would_have_written(tmp_path, kind):
  if kind == "parquet":
    pytest.importorskip("pyarrow")
  path, whole = tmp_path / f"out.{kind}", tmp_path / "whole"
  _write(path, kind)
  assert _join(path) is None
  make = _WRITERS[kind]
  if kind == "segments":
    make = functools.partial(segment_submission.SegmentWriter, max_per_class=4)
  rng = np.random.default_rng(0)
  with make(whole) as output:
    for own in _NAMES[:2]:
      output.write(*_batch(rng, own))
  if kind == "parquet":
    from pyarrow import parquet

    assert parquet.read_table(path).equals(parquet.read_table(whole))
  elif kind == "npz":
    with np.load(path) as found, np.load(whole) as expected:
      assert found.files == expected.files
      for name in expected.files:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])
    found = stored_predictions.StoredPredictions(path, NUM_CLASSES)
    assert found.num_videos == 7 and len(found.of(b"w1:5")[0]) == K
  else:
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet", "segments"])
def test_shards_without_a_row_are_an_empty_file(tmp_path, kind):
  if kind == "parquet":
    pytest.importorskip("pyarrow")
  path = tmp_path / "out"
  _write(path, kind, [[], [], []])
  assert _join(path) is None and path.exists()


def _double(path):
  _write(path, "csv", [["a", "b"], ["c"], ["b"]])


def _lose(path):
  _write(path, "csv")
  (path.parent / "out-00001-of-00003.csv").unlink()


def _cut(path):
  _write(path, "csv")
  part = path.parent / "out-00001-of-00003.csv"
  part.write_bytes(part.read_bytes()[:-9])


def _rename(path):
  _write(path, "csv")
  for name in ("out-0000{}-of-00003.csv", "out-0000{}-of-00003.csv.json"):
    first, second = (path.parent / name.format(i) for i in (0, 1))
    first.rename(path.parent / "aside")
    second.rename(first)
    (path.parent / "aside").rename(second)


def _other_model(path):
  _write(path, "csv", model="another")


def _double_segment(path):
  names = [f"a:{i}" for i in range(9)]
  _write(path, "segments", [names, names, []])


@pytest.mark.parametrize(
  ("spoil", "told"),
  [
    (_double, "Video 'b' is in .*00000-of-00003.csv and in .*00002-of"),
    (_lose, "1 of 3 shards .* are missing: run them with --shard=1/3"),
    (_cut, "00001-of-00003.csv is not whole: run --shard=1/3 again"),
    (_rename, "00000-of-00003.csv is shard 1/3, renamed"),
    (_other_model, "00001-.* made with another model than .*out-00000"),
    (_double_segment, "A segment of class . is in more than one"),
  ],
)
def test_what_is_amiss_is_told_and_nothing_is_written(tmp_path, spoil, told):
  path = tmp_path / "out.csv"
  spoil(path)
  with pytest.raises(ValueError, match=told):
    _join(path)
  assert not path.exists()


def test_videos_of_the_data_without_a_row_are_told(tmp_path):
  names = ["v0", "v1", "v2", "v3"]
  frames = {"rgb": np.ones([2, 4], np.uint8)}
  records = [writer.frame_record(n.encode(), frames, [1]) for n in names[:2]]
  records += [
    writer.video_record(n.encode(), {"rgb": [1.0]}, [1]) for n in names[2:]
  ]
  data = str(tmp_path / "data.tfrecord")
  writer.write_shards([data], [records])
  path = tmp_path / "out.csv"
  part = shard.Shard(0, 1)
  made_by = {"segments": False, "--output_format": "csv"}
  task = manifest.Task(part, [data], part.path(str(path)), made_by)
  for count, num_unread, told in ((4, 0, ""), (3, 1, ""), (2, 1, "'v2', 'v3'")):
    with submission.SubmissionWriter(task.output) as output:
      output.write(*_batch(np.random.default_rng(0), names[:count]))
    (tmp_path / "out-00000-of-00001.csv.unread.txt").write_text("v3: bad\n")
    task.finish(count, num_unread)
    if told:
      with pytest.raises(ValueError, match=r"2 videos .* such as v2, v3"):
        _join(path, input_data_pattern=data)
    else:
      status = _join(path, input_data_pattern=data)
      assert status == (program.INCOMPLETE if num_unread else None)
      assert (tmp_path / "out.csv.unread.txt").exists() == bool(num_unread)
  writer.write_shards([data], [records[:1]])
  with pytest.raises(ValueError, match="are not those that the shards were"):
    _join(path, input_data_pattern=data)
