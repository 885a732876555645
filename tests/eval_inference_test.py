"""Tests of eval.py and inference.py, which must agree on a checkpoint."""

import json
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import evaluation
import inference
import model_flags
import prediction
import predictor
import program
import readers
import submission
from checkpoints import restore
from records import report as read_report
from tests import record_data as records
from tests import runs

pytestmark = pytest.mark.slow

METRICS = ("gap", "map", "avg_hit_at_one", "avg_perr", "avg_loss")
NUM_VIDEOS = 13


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """(train_dir, pattern of its videos), for reading only."""
  return runs.shared_model(tmp_path_factory)


@pytest.fixture(scope="module")
def pattern(shared):
  return shared[1]


@pytest.fixture
def model(shared, tmp_path):
  """A train_dir of one's own."""
  return pathlib.Path(shutil.copytree(shared[0], tmp_path / "model"))


def published_flags(directory):
  """What the published evaluation and inference commands repeat."""
  return [
    "--model=NetVLADModelLF",
    f"--train_dir={directory}",
    "--frame_features=True",
    "--feature_names=rgb,audio",
    "--feature_sizes=1024,128",
    "--batch_size=1024",
    "--base_learning_rate=0.0002",
    "--netvlad_cluster_size=256",
    "--netvlad_hidden_size=1024",
    "--moe_l2=1e-6",
    "--iterations=300",
    "--learning_rate_decay=0.8",
    "--netvlad_relu=False",
    "--gating=True",
    "--moe_prob_gating=True",
    "--run_once=True",
  ]


def assert_warns_of_ignored_flags(stderr):
  for name in ("base_learning_rate", "netvlad_cluster_size", "model", "gating"):
    assert re.search(rf"Ignored, .*--{name}\b", stderr), name
  differing = re.search(r"Of these differ: (.*)", stderr).group(1)
  assert "--netvlad_cluster_size=256 (trained with 4)" in differing
  assert "--gating" not in differing


@pytest.mark.slow
class TestEval:
  def test_the_published_command_line_writes_what_a_second_look_finds(
    self, model, pattern
  ):
    stderr = runs.run_ok(
      "eval.py",
      f"--eval_data_pattern={pattern}",
      *published_flags(model),
      fresh=True,
    )
    assert_warns_of_ignored_flags(stderr)
    stored = json.loads((model / "eval" / "metrics-20.json").read_text())
    # Another process, the same digits.
    again = runs.run_eval(model, pattern, batch_size=1024)
    assert stored == {**again, "data_pattern": pattern}
    assert stored["step"] == 20
    assert stored["checkpoint"] == "model.ckpt-20"
    assert stored["num_videos"] == NUM_VIDEOS
    labels = runs.labels_of(pattern)
    assert stored["num_labels"] == sum(map(len, labels.values()))
    assert stored["flawed_records"] == {}
    assert 0.3 < stored["gap"] <= 1

    scalars = runs.events(model / "eval")
    assert scalars == {
      tag: {20: pytest.approx(stored[name], rel=1e-6)}
      for tag, name in {
        "Epoch/Eval_GAP": "gap",
        "Epoch/Eval_MAP": "map",
        "Epoch/Eval_Avg_Hit@1": "avg_hit_at_one",
        "Epoch/Eval_Avg_Perr": "avg_perr",
        "Epoch/Eval_Avg_Loss": "avg_loss",
      }.items()
    }

    # However the 13 videos are cut into batches, the last one counts.
    cut = runs.run_eval(model, pattern, batch_size=4)
    assert cut["num_videos"] == NUM_VIDEOS
    for name in METRICS:
      assert cut[name] == pytest.approx(stored[name], abs=1e-6), name

  def test_all_checkpoints_the_best_of_which_is_kept_until_training_is_done(
    self, pattern, tmp_path
  ):
    directory = tmp_path / "model"
    runs.run_train(
      directory,
      pattern,
      model="FrameLevelLogisticModel",
      max_steps=3,
      save_checkpoints_steps=1,
      base_learning_rate=0.05,
    )
    with open(directory / "model.ckpt-2.index", "r+b") as stream:
      stream.truncate(9)
    stderr = runs.run_ok(
      "eval.py",
      f"--train_dir={directory}",
      f"--eval_data_pattern={pattern}",
      "--all_checkpoints",
      "--keep_best",
    )
    assert "model.ckpt-2 is damaged" in stderr
    assert f"Training in {directory} is done." in stderr
    found = [
      json.loads((directory / "eval" / f"metrics-{step}.json").read_text())
      for step in (1, 3)
    ]
    assert [r["path"] for r in found] == [
      f"{directory}/model.ckpt-{step}" for step in (1, 3)
    ]
    wanted = max(found, key=lambda results: results["gap"])
    best = json.loads((directory / "eval/best_checkpoint.json").read_text())
    assert best["step"] == wanted["step"]
    assert best["path"] == f"{directory}/best/model.ckpt-{best['step']}"
    names = {path.name for path in directory.glob(f"*-{best['step']}.*")}
    kept = {path.name for path in (directory / "best").iterdir()}
    assert kept == {*names, "checkpoint", "model_flags.json"}
    assert not list(directory.glob("best.*"))
    # It serves as a train_dir.
    again = runs.run_eval(directory / "best", pattern)
    assert again["gap"] == wanted["gap"]

  @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
  def test_a_signal_ends_waiting_in_one_line(
    self, model, pattern, tmp_path, number
  ):
    (model / "finished.json").unlink()
    log = tmp_path / "log.txt"
    process = runs.start_program(
      "eval.py",
      f"--train_dir={model}",
      f"--eval_data_pattern={pattern}",
      f"--output_dir={tmp_path / 'elsewhere'}",
      "--eval_interval_secs=1",
      log=log,
    )
    runs.wait_for_log(process, log, lambda text: "Waiting for" in text)
    process.send_signal(number)
    status, _, _ = runs.finish(process)
    assert status == 128 + number
    text = log.read_text()
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith("eval.py: stopped by ")
    assert (tmp_path / "elsewhere" / "metrics-20.json").exists()
    assert not (model / "eval").exists()

  @pytest.mark.parametrize("blocked", ["eval", "eval/metrics-20.json"])
  def test_what_can_not_be_written_costs_no_result(
    self, model, pattern, blocked
  ):
    # Root may write anywhere: here something else has the name.
    if blocked == "eval":
      (model / blocked).write_text("no directory")
    else:
      (model / blocked).mkdir(parents=True)
    status, _, stderr = runs.run_program(
      "eval.py",
      f"--train_dir={model}",
      f"--eval_data_pattern={pattern}",
      "--run_once",
    )
    assert status == program.FAILED
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("eval.py: error: ")
    assert f"{model}/{blocked}" in last
    if blocked == "eval":  # Known before the work.
      assert "--output_dir" in last
      assert "Evaluating" not in stderr
    else:
      assert "| GAP: " in stderr

  def test_no_checkpoint_is_told(self, model, pattern):
    for path in model.glob("*ckpt*"):
      path.unlink()
    (model / "checkpoint").unlink()
    status, _, stderr = runs.run_program(
      "eval.py",
      f"--train_dir={model}",
      f"--eval_data_pattern={pattern}",
      "--run_once",
    )
    assert status == program.FAILED
    last = stderr.strip().splitlines()[-1]
    assert last == f"eval.py: error: No checkpoint in --train_dir={model}."
    assert not (model / "eval").exists()

  def test_no_usable_video_is_told(self, model, tmp_path):
    path = records.write(
      tmp_path / "bad.tfrecord",
      [
        records.frame_record(b"v", [99], records.random_frames(
          np.random.default_rng(0), 3, runs.SIZES
        ))
      ],
    )  # fmt: skip
    with pytest.raises(program.UserError, match="No usable video in the 1"):
      runs.run_eval(model, path, skip_unlabelled=True)
    with pytest.raises(read_report.StrictRecordError) as error:
      runs.run_eval(model, path, strict=True)
    assert f"{path}, record 0: label out of range" in str(error.value)


@pytest.mark.slow
class TestHoldout:
  def test_is_seen_by_evaluation_and_not_by_training(self, tmp_path):
    ids = [b"video%03d" % i for i in range(40)]
    # The hash is a format: the holdout of a train_dir must stay what it is.
    with tf.Graph().as_default(), tf.Session() as session:
      buckets = session.run(tf.strings.to_hash_bucket_fast(ids, 2**31))
    held = buckets < round(0.3 * 2**31)
    assert 5 < sum(held) < 20
    rng = np.random.default_rng(0)
    frames = [records.random_frames(rng, 3, runs.SIZES) for _ in ids]

    def write(name, poisoned):
      """A file in which whoever sees one of the poisoned stops."""
      return records.write(
        tmp_path / name,
        [
          records.frame_record(video_id, [1, 99] if bad else [1], features)
          for video_id, bad, features in zip(ids, poisoned, frames)
        ],
      )

    directory = tmp_path / "model"
    runs.run_train(
      directory,
      write("train.tfrecord", poisoned=held),
      model="FrameLevelLogisticModel",
      holdout_fraction=0.3,
      batch_size=1,
      num_epochs=1,
      max_steps=None,
      log_steps=100,
      strict_records=True,
    )
    assert runs.step_of(directory) == len(ids) - sum(held)
    results = runs.run_eval(
      directory,
      write("eval.tfrecord", poisoned=~held),
      holdout=True,
      strict=True,
    )
    assert results["num_videos"] == sum(held)


class TestInference:
  @pytest.mark.slow
  def test_the_published_command_line_and_its_archive(
    self, model, pattern, tmp_path
  ):
    csv, archive = tmp_path / "out" / "test.csv", tmp_path / "model.tgz"
    stderr = runs.run_ok(
      "inference.py",
      f"--output_file={csv}",
      f"--input_data_pattern={pattern}",
      *published_flags(model),
      "--top_k=50",
      f"--output_model_tgz={archive}",
      fresh=True,
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

  @pytest.mark.slow
  @pytest.mark.parametrize("top_k", [2, 20])
  def test_has_the_gap_of_the_evaluation(
    self, shared, pattern, tmp_path, top_k
  ):
    csv = tmp_path / "out.csv"
    count, unread = runs.run_infer(shared[0], pattern, csv, top_k=top_k)
    assert (count, unread) == (NUM_VIDEOS, [])
    results = runs.run_eval(shared[0], pattern, top_k=top_k)
    # %g keeps six digits.
    assert runs.gap_of_csv(csv, runs.labels_of(pattern)) == pytest.approx(
      results["gap"], abs=1e-4
    )

  @pytest.mark.slow
  def test_has_the_gap_of_the_evaluation_of_unlabelled_videos_too(
    self, shared, pattern, tmp_path
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
    assert runs.gap_of_csv(csv, labels) == pytest.approx(
      results["gap"], abs=1e-4
    )
    without = runs.run_eval(shared[0], pattern, skip_unlabelled=True)
    assert without["num_videos"] == NUM_VIDEOS + 1
    assert without["gap"] > results["gap"]
    # Each of these four is a miss, and PERR is not defined for them.
    assert results["avg_hit_at_one"] * (NUM_VIDEOS + 5) == pytest.approx(
      without["avg_hit_at_one"] * (NUM_VIDEOS + 1)
    )
    assert results["avg_perr"] == pytest.approx(without["avg_perr"])

  def test_a_video_whose_segments_fit_no_csv_is_listed_once(
    self, shared, tmp_path
  ):
    rng = np.random.default_rng(0)
    path = records.write(
      tmp_path / "a.tfrecord",
      [
        records.frame_record(
          video_id, [1], records.random_frames(rng, 12, runs.SIZES)
        )
        for video_id in (b"a:a", b"b b", b"b,b", b"\xff\xfe", b"ccc")
      ],
    )
    csv = tmp_path / "out.csv"
    count, unread = prediction.infer(
      restore.latest_checkpoint(str(shared[0])),
      {**model_flags.load(str(shared[0])), "segment_labels": True},
      [path],
      str(csv),
      batch_size=5,
      num_readers=1,
      segment_max_pred=10,
    )
    assert count == 6
    assert [text.partition(":")[0] for text in unread] == [
      "video b'b b'",
      "video b'b,b'",
      "video b'\\xff\\xfe'",
    ]
    lines = csv.read_text().splitlines()
    assert len(lines) == 1 + runs.NUM_CLASSES
    for line in lines[1:]:
      found = sorted(line.partition(",")[2].split(" "))
      assert found == ["a:a:0", "a:a:10", "a:a:5", "ccc:0", "ccc:10", "ccc:5"]

  def test_an_id_that_no_csv_can_hold_is_listed(self, shared, tmp_path):
    fine = records.random_frames(np.random.default_rng(0), 3, runs.SIZES)
    path = records.write(
      tmp_path / "a.tfrecord",
      [
        records.frame_record(video_id, [1], fine)
        for video_id in (b"aaa", b"b,b", b"\xff\xfe", b"ccc")
      ],
    )
    csv = tmp_path / "out.csv"
    count, unread = runs.run_infer(shared[0], path, csv)
    assert list(submission.read_submission(csv)) == ["aaa", "ccc"]
    assert count == 2
    assert len(unread) == 2
    assert "b,b" in unread[0]

  @pytest.mark.slow
  def test_damaged_records_are_listed_and_the_others_predicted(
    self, shared, pattern, tmp_path
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
    in_first, in_second = (
      list(runs.labels_of(path)) for path in (first, second)
    )
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

  def test_a_failure_leaves_the_earlier_file_as_it_was(self, shared, tmp_path):
    csv = tmp_path / "out" / "out.csv"
    csv.parent.mkdir()
    csv.write_text("the earlier one\n")
    path = tmp_path / "cut.tfrecord"
    path.write_bytes(b"no record")
    with pytest.raises(program.UserError, match="No readable video in the 1"):
      runs.run_infer(shared[0], path, csv)
    assert csv.read_text() == "the earlier one\n"
    assert list(csv.parent.iterdir()) == [csv]

  @pytest.mark.slow
  def test_a_failure_leaves_the_list_of_the_earlier_file_too(
    self, shared, pattern, tmp_path
  ):
    csv, listing = tmp_path / "out.csv", tmp_path / "out.csv.unread.txt"
    csv.write_text("the earlier one\n")
    listing.write_text("one that it lacks\n")
    cut = tmp_path / "cut.tfrecord"
    cut.write_bytes(b"no record")
    args = [f"--train_dir={shared[0]}", f"--output_file={csv}"]
    status, _, _ = runs.run_program(
      "inference.py", *args, f"--input_data_pattern={cut}"
    )
    assert status == program.FAILED
    assert listing.read_text() == "one that it lacks\n"
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
  def test_what_is_read_is_not_replaced(
    self, model, pattern, tmp_path, flag, name
  ):
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

  def test_a_record_file_named_as_output_stays(self, shared, tmp_path):
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

  def test_a_train_dir_that_is_not_there_is_told(self, pattern, tmp_path):
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


@pytest.mark.slow
class TestNewest:
  """A checkpoint that is damaged, or deleted by training meanwhile."""

  @pytest.fixture
  def two(self, model):
    """A train_dir with a newer checkpoint, which is cut."""
    for part in ("index", "data-00000-of-00001"):
      shutil.copy(
        model / f"model.ckpt-20.{part}", model / f"model.ckpt-30.{part}"
      )
    with open(model / "model.ckpt-30.data-00000-of-00001", "r+b") as stream:
      stream.truncate(99)
    return model

  def test_the_newest_that_can_be_read_is_taken(
    self, two, pattern, tmp_path, caplog
  ):
    values = model_flags.load(str(two))
    paths = readers.expand_data_pattern(pattern)
    common = {"batch_size": 5, "num_readers": 2}
    results = evaluation.evaluate(str(two), values, paths, **common)
    assert results["step"] == 20
    assert results["path"] == f"{two}/model.ckpt-20"
    csv = tmp_path / "out.csv"
    prediction.infer(str(two), values, paths, str(csv), **common)
    assert csv.exists()
    predictor.export(str(two), values)
    assert (two / "export" / "step_20" / "saved_model.pb").exists()
    assert caplog.text.count(f"Taking {two}/model.ckpt-20 instead.") == 3
    # Asked for by name, it is an error.
    for program_of in (
      lambda source: evaluation.evaluate(source, values, paths, **common),
      lambda source: prediction.infer(
        source, values, paths, str(tmp_path / "no.csv"), **common
      ),
      lambda source: predictor.export(source, values),
    ):
      with pytest.raises(ValueError, match="model.ckpt-30 is damaged"):
        program_of(f"{two}/model.ckpt-30")
    assert not (tmp_path / "no.csv").exists()
    assert not (two / "export" / "step_30").exists()

  def test_what_training_deletes_while_the_graph_is_built_is_not_missed(
    self, model, pattern, monkeypatch
  ):
    predict = predictor.predict

    def deleting(*args):
      for path in model.glob("model.ckpt-20.*"):
        path.rename(model / path.name.replace("-20", "-21"))
      return predict(*args)

    monkeypatch.setattr(predictor, "predict", deleting)
    results = evaluation.evaluate(
      str(model),
      model_flags.load(str(model)),
      readers.expand_data_pattern(pattern),
      batch_size=5,
      num_readers=2,
    )
    assert results["step"] == 21


@pytest.mark.slow
class TestFeatures:
  @pytest.mark.parametrize(
    ("sizes", "changes", "shapes"),
    [
      (
        {"audio": 5},
        {"model": "FrameLevelLogisticModel"},
        {"logistic/weights": (5, 6)},
      ),
      (
        {"rgb": 7, "flow.x": 3, "audio": 5},
        {"model": "NetVLADModelLF", "netvlad_cluster_size": "4,1,2"},
        {
          "netvlad_rgb/centres": (4, 7),
          "netvlad_flow.x/centres": (1, 3),
          "netvlad_audio/centres": (2, 5),
        },
      ),
    ],
    ids=["audio only", "three"],
  )
  def test_of_any_number_and_size(self, tmp_path, sizes, changes, shapes):
    pattern = runs.write_data(
      tmp_path / "data",
      feature_names=",".join(sizes),
      feature_sizes=tuple(sizes.values()),
    )
    checkpoint = runs.run_train(
      tmp_path / "model",
      pattern,
      feature_names=",".join(sizes),
      feature_sizes=",".join(map(str, sizes.values())),
      max_steps=1,
      **changes,
    )
    variables = runs.variables_of(checkpoint)
    for name, shape in shapes.items():
      assert variables[f"tower/{name}"].shape == shape
    assert runs.run_eval(tmp_path / "model", pattern)["num_videos"] == 12
    csv = tmp_path / "out.csv"
    assert runs.run_infer(tmp_path / "model", pattern, csv) == (12, [])
