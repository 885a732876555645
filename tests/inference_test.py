"""Tests of inference.py, which must agree with eval.py on a checkpoint."""

import pathlib
import shutil
import sys

import numpy as np
import pytest

import inference
import model_flags
import readers
from checkpoints import restore
from console import program
from predictions import parquet_predictions, submission, writing
from records import vocabulary
from tests import goldens_test, runs
from tests import record_data as records
from tests.eval_test import (
  NUM_VIDEOS,
  assert_warns_of_ignored_flags,
  model,
  pattern,
  published_flags,
  shared,
)

__all__ = ["model", "pattern", "shared"]  # Fixtures.
pytestmark = pytest.mark.slow


@pytest.mark.rewritten
def test_the_published_command_line_and_its_archive(model, pattern, tmp_path):
  csv, archive = tmp_path / "out" / "test.csv", tmp_path / "model.tgz"
  stderr = runs.run_ok(
    "inference.py",
    f"--output_file={csv}",
    f"--input_data_pattern={pattern}",
    *published_flags(model),
    "--top_k=50",
    f"--output_model_tgz={archive}",
  )
  assert_warns_of_ignored_flags(stderr)
  labels = runs.labels_of(pattern)
  lines = csv.read_text().splitlines()
  assert lines[0] == "VideoId,LabelConfidencePairs"
  assert len(lines) == 1 + NUM_VIDEOS
  rows = submission.read_submission(csv)
  assert sorted(rows) == sorted(labels)
  for classes, scores in rows.values():
    # 50 are asked for, and there are 6.
    assert sorted(classes) == list(range(runs.NUM_CLASSES))
    assert sorted(scores, reverse=True) == list(scores)

  # The archive alone, in another process: the same bytes.
  again = tmp_path / "again.csv"
  runs.run_ok(
    "inference.py",
    f"--input_model_tgz={archive}",
    f"--output_file={again}",
    f"--input_data_pattern={pattern}",
    "--top_k=50",
  )
  assert again.read_bytes() == csv.read_bytes()


def test_has_the_gap_of_the_evaluation(shared, pattern, tmp_path):
  csv = tmp_path / "out.csv"
  count, unread = runs.run_infer(shared[0], pattern, csv, top_k=2)
  assert (count, unread) == (NUM_VIDEOS, [])
  results = runs.run_eval(shared[0], pattern, top_k=2)
  # %g keeps six digits.
  assert runs.gap_of_csv(csv, runs.labels_of(pattern)) == pytest.approx(
    results["gap"], abs=1e-4
  )


def test_has_the_gap_of_the_evaluation_of_unlabelled_videos_too(
  shared, pattern, tmp_path
):
  labels = runs.labels_of(pattern)
  rng = np.random.default_rng(0)
  others = [(b"x%d" % i, kind, 3) for i, kind in enumerate([[], None, [99]])]
  # Two without frames would tie, but for rounding in batches and in the CSV.
  others += [(b"x3", [], 4), (b"x4", [2], 0)]
  path = records.write(
    tmp_path / "others.tfrecord",
    [
      records.frame_record(
        video_id, own, records.random_frames(rng, count, runs.SIZES)
      )
      for video_id, own, count in others
    ],
  )
  pattern = f"{pattern},{path}"
  csv = tmp_path / "out.csv"
  assert runs.run_infer(shared[0], pattern, csv) == (NUM_VIDEOS + 5, [])
  results = runs.run_eval(shared[0], pattern)
  assert results["num_videos"] == NUM_VIDEOS + 5
  assert results["num_unlabelled"] == 4
  labels |= {"x0": set(), "x1": set(), "x2": set(), "x3": set(), "x4": {2}}
  assert runs.gap_of_csv(csv, labels) == pytest.approx(results["gap"], abs=1e-4)
  without = runs.run_eval(shared[0], pattern, skip_unlabelled=True)
  assert without["num_videos"] == NUM_VIDEOS + 1
  assert without["gap"] > results["gap"]
  # Each of these four is a miss, and PERR is not defined for them.
  assert results["avg_hit_at_one"] * (NUM_VIDEOS + 5) == pytest.approx(
    without["avg_hit_at_one"] * (NUM_VIDEOS + 1)
  )
  assert results["avg_perr"] == pytest.approx(without["avg_perr"])


@pytest.mark.parametrize("segments", [False, True])
def test_a_video_that_fits_no_csv_is_listed_once_and_classes_are_chosen(
  shared, tmp_path, segments
):
  rng = np.random.default_rng(0)
  bad = [b"b b", b"b,b", b"\xff\xfe"]
  if not segments:  # Spaces are between the segments of a class alone.
    del bad[0]
  path = records.write(
    tmp_path / "a.tfrecord",
    [
      records.frame_record(
        video_id, [1], records.random_frames(rng, 12, runs.SIZES)
      )
      for video_id in (b"a:a", *bad, b"ccc")
    ],
  )
  csv, ids = tmp_path / "out.csv", tmp_path / "ids.txt"
  ids.write_text("Index\n3\n 1\n3\n")
  classes = writing.read_classes(str(ids), runs.NUM_CLASSES)
  with pytest.raises(program.UserError, match="needs classes below 3"):
    writing.read_classes(str(ids), 3)
  count, unread = writing.infer(
    restore.latest_checkpoint(str(shared[0])),
    {**model_flags.load(str(shared[0])), "segment_labels": segments},
    [path],
    writing.Output(
      str(csv),
      segment_max_pred=10,
      allowed_classes=classes if segments else None,
    ),
    batch_size=5,
    num_readers=1,
  )
  assert [text.partition(":")[0] for text in unread] == [
    f"video {video_id}" for video_id in bad
  ]
  if not segments:
    assert count == 2
    assert list(submission.read_submission(csv)) == ["a:a", "ccc"]
    return
  assert count == 6
  lines = csv.read_text().splitlines()
  assert [line.partition(",")[0] for line in lines[1:]] == ["1", "3"]
  for line in lines[1:]:
    found = sorted(line.partition(",")[2].split(" "))
    assert found == ["a:a:0", "a:a:10", "a:a:5", "ccc:0", "ccc:10", "ccc:5"]


def test_damaged_records_are_listed_and_the_others_predicted(
  shared, pattern, tmp_path
):
  first, second = map(pathlib.Path, readers.expand_data_pattern(pattern))
  data = tmp_path / "data"
  data.mkdir()
  rng = np.random.default_rng(0)
  small = records.random_frames(rng, 3, {"rgb": 7, "audio": 4})
  fine = records.random_frames(rng, 3, runs.SIZES)
  bad = records.write(
    data / "a.tfrecord",
    [
      records.frame_record(b"aaa", None, fine),  # No labels to predict from.
      records.frame_record(b"bbb", [1], small),
      records.frame_record(b"ccc", [99], fine),
      records.frame_record(None, [1], fine),
      records.frame_record(b"ddd", [1], {"rgb": [], "audio": []}),
      records.frame_record(b"aaa", [1], fine),
    ],
  )
  (data / "b.tfrecord").write_bytes(second.read_bytes()[:-9])
  # Its videos come twice: once here, once under their own name.
  shutil.copy(first, data / "c.tfrecord")
  shutil.copy(first, data / "d.tfrecord")
  csv = tmp_path / "out.csv"
  status, _, stderr = runs.run_program(
    "inference.py",
    f"--train_dir={shared[0]}",
    f"--input_data_pattern={data}",
    f"--output_file={csv}",
    "--num_readers=3",
  )
  assert status == program.INCOMPLETE, stderr
  in_first, in_second = (list(runs.labels_of(path)) for path in (first, second))
  rows = submission.read_submission(csv)
  assert sorted(rows) == sorted(
    [*in_first, *in_second[:-1], "aaa", "ccc", "ddd"]
  )
  assert f"{len(in_first) + 1} videos came more than once" in stderr
  unread = (tmp_path / "out.csv.unread.txt").read_text().splitlines()
  assert len(unread) == 3
  unread.sort()
  assert unread[0].startswith(f"{bad}, record 1: bad feature size")
  assert unread[1].startswith(f"{bad}, record 3: missing id")
  last = len(in_second) - 1
  assert unread[2].startswith(
    f"{data / 'b.tfrecord'}, record {last}: truncated record"
  )
  assert f"3 records or files could not be read and have no row: {csv}" in (
    stderr
  )

  # Evaluation scores the same, each time they come.
  results = runs.run_eval(shared[0], data)
  assert results["num_videos"] == 2 * len(in_first) + len(in_second) - 1 + 4
  assert results["num_unlabelled"] == 2
  flawed = {
    "truncated_record": 1,
    "missing_id": 1,
    "bad_feature_size": 1,
    "no_frames": 1,
    "label_out_of_range": 1,
  }
  assert results["flawed_records"] == flawed
  results = runs.run_eval(shared[0], data, skip_unlabelled=True)
  assert results["num_videos"] == 2 * len(in_first) + len(in_second) - 1 + 2
  assert results["num_unlabelled"] == 0
  assert results["flawed_records"] == {**flawed, "no_labels": 2}


def test_parquet_has_names_and_descriptors_of_each_video_once(
  shared, pattern, tmp_path, monkeypatch
):
  parquet = pytest.importorskip("pyarrow.parquet")
  monkeypatch.setattr(parquet_predictions, "_GROUP", 4)
  runs.run_infer(shared[0], pattern, tmp_path / "out.csv", top_k=2)
  path = tmp_path / "out.parquet"
  names = ["zero", "one"]  # Of six classes.
  count, unread = runs.run_infer(
    shared[0],
    f"{pattern},{pattern}",
    path,
    top_k=2,
    output_format="parquet",
    vocabulary=vocabulary.Vocabulary(tuple(names)),
    descriptors=True,
  )
  assert (count, unread) == (NUM_VIDEOS, [])
  assert parquet.ParquetFile(path).num_row_groups > 1
  rows = parquet.read_table(path).to_pylist()
  expected = submission.read_submission(tmp_path / "out.csv")
  assert [row["id"] for row in rows] == list(expected)
  for row in rows:
    classes, scores = expected[row["id"]]
    assert row["classes"] == classes.tolist()
    assert row["scores"] == pytest.approx(scores, rel=1e-5)
    assert row["names"] == [
      names[c] if c < 2 else f"class {c}" for c in row["classes"]
    ]
    assert len(row["descriptor"]) == 4  # netvlad_hidden_size.
  assert len({tuple(row["descriptor"]) for row in rows}) > 1


def test_a_failure_leaves_the_earlier_file_and_its_list(
  shared, pattern, tmp_path
):
  csv, listing = tmp_path / "out.csv", tmp_path / "out.csv.unread.txt"
  csv.write_text("the earlier one\n")
  listing.write_text("one that it lacks\n")
  cut = tmp_path / "cut.tfrecord"
  cut.write_bytes(b"no record")
  before = sorted(tmp_path.iterdir())
  args = [f"--train_dir={shared[0]}", f"--output_file={csv}"]
  status, _, stderr = runs.run_program(
    "inference.py", *args, f"--input_data_pattern={cut}"
  )
  assert status == program.FAILED
  assert "No readable video in the 1" in stderr
  assert csv.read_text() == "the earlier one\n"
  assert listing.read_text() == "one that it lacks\n"
  assert sorted(tmp_path.iterdir()) == before
  runs.run_ok("inference.py", *args, f"--input_data_pattern={pattern}")
  assert not listing.exists()


@pytest.mark.parametrize(
  ("flag", "name"),
  [
    ("output_file", "link.tfrecord"),
    ("output_file", "model.tgz"),
    ("output_file", "ids.txt"),
    ("output_file", "model/model_flags.json"),
    ("output_file", "model/model.ckpt-20.index"),
    ("output_model_tgz", "link.tfrecord"),
    ("output_model_tgz", "model.tgz"),
    ("output_model_tgz", "out.csv.unread.txt"),
  ],
)
def test_what_is_read_is_not_replaced(model, pattern, tmp_path, flag, name):
  data = readers.expand_data_pattern(pattern)
  (tmp_path / "link.tfrecord").symlink_to(data[1])
  for other in ("model.tgz", "ids.txt"):
    (tmp_path / other).touch()
  own = {
    "output_file": str(tmp_path / "out.csv"),
    "output_model_tgz": "",
    "input_model_tgz": str(tmp_path / "model.tgz"),
    "segment_label_ids_file": str(tmp_path / "ids.txt"),
  }
  own[flag] = str(tmp_path / name)
  config = inference.Config(**own)
  with pytest.raises(ValueError, match=f"{name} would replace"):
    inference._check_outputs(config, str(model), str(model), data)


def test_a_record_file_named_as_output_stays(shared, tmp_path):
  path = records.write(
    tmp_path / "a.tfrecord",
    [
      records.frame_record(
        b"aaa",
        [1],
        records.random_frames(np.random.default_rng(0), 3, runs.SIZES),
      )
    ],
  )
  before = pathlib.Path(path).read_bytes()
  status, _, stderr = runs.run_program(
    "inference.py",
    f"--train_dir={shared[0]}",
    f"--input_data_pattern={path}",
    f"--output_file={path}",
    f"--output_model_tgz={tmp_path / 'model.tgz'}",
  )
  assert status == program.FAILED
  assert f"--output_file={path} would replace" in stderr
  assert "Traceback" not in stderr
  assert pathlib.Path(path).read_bytes() == before
  # Nothing else was begun either.
  assert [entry.name for entry in tmp_path.iterdir()] == ["a.tfrecord"]


def test_what_parquet_needs_is_told_before_anything_is_written(
  shared, pattern, tmp_path, monkeypatch
):
  with pytest.raises(ValueError, match="--descriptors needs --output_format"):
    inference.Config(output_file="out.csv", descriptors=True)
  golden = goldens_test.HERE / "LogisticModel"
  out = tmp_path / "out.parquet"
  options = {"output_format": "parquet", "descriptors": True}
  with pytest.raises(ValueError, match="makes no descriptor"):
    runs.run_infer(golden, goldens_test.VIDEO_RECORDS, out, **options)
  monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
  with pytest.raises(ValueError, match="needs pyarrow: pip install"):
    runs.run_infer(shared[0], pattern, out, **options)
  assert not list(tmp_path.iterdir())


def test_a_train_dir_that_is_not_there_is_told(pattern, tmp_path):
  status, _, stderr = runs.run_program(
    "inference.py",
    f"--train_dir={tmp_path / 'nowhere'}",
    f"--input_data_pattern={pattern}",
    f"--output_file={tmp_path / 'out.csv'}",
  )
  assert status == program.FAILED
  last = stderr.strip().splitlines()[-1]
  assert last.startswith("inference.py: error: ")
  assert f"is --train_dir={tmp_path / 'nowhere'} the directory" in last
  assert list(tmp_path.iterdir()) == []
