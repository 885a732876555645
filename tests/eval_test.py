"""Tests of eval.py, and of what evaluation and inference have in common."""

import csv
import json
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
import readers
from console import program
from evaluation import measure
from predictions import predictor, writing
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


class TestEval:
  def test_the_published_command_line_writes_what_a_second_look_finds(
    self, model, pattern
  ):
    (model / "vocabulary.csv").write_text("Index,Name\n1,ONE\n")
    stderr = runs.run_ok(
      "eval.py",
      f"--eval_data_pattern={pattern}",
      *published_flags(model),
    )
    with open(model / "eval" / "classes-20.csv") as stream:
      classes = list(csv.DictReader(stream))
    names = [f"class {i}" for i in range(runs.NUM_CLASSES)]
    names[1] = "ONE"
    assert [row["name"] for row in classes] == names
    aps = [float(row["average_precision"] or "nan") for row in classes]
    assert_warns_of_ignored_flags(stderr)
    stored = json.loads((model / "eval" / "metrics-20.json").read_text())
    # Another process, the same digits.
    again = runs.run_eval(model, pattern, batch_size=1024)
    assert stored == {**again, "data_pattern": pattern}
    assert stored["map"] == pytest.approx(np.nanmean(aps), abs=1e-5)
    assert stored["step"] == 20
    assert stored["checkpoint"] == "model.ckpt-20"
    assert stored["num_videos"] == NUM_VIDEOS
    labels = runs.labels_of(pattern)
    assert stored["num_labels"] == sum(map(len, labels.values()))
    assert stored["flawed_records"] == {}
    assert 0.3 < stored["gap"] <= 1

    scalars = {
      tag: values
      for tag, values in runs.events(model / "eval").items()
      # Of single classes, examples and layers: pictures and eval_curves.
      if "/" not in tag or tag.startswith("Epoch/")
    }
    assert scalars == {
      tag: {20: pytest.approx(stored[name], rel=1e-6)}
      for tag, name in {
        "Epoch/Eval_GAP": "gap",
        "Epoch/Eval_MAP": "map",
        "Epoch/Eval_Avg_Hit@1": "avg_hit_at_one",
        "Epoch/Eval_Avg_Perr": "avg_perr",
        "Epoch/Eval_Avg_Loss": "avg_loss",
        # As in training.
        "GAP": "gap",
        "MAP": "map",
        "Hit@1": "avg_hit_at_one",
        "PERR": "avg_perr",
        "loss": "avg_loss",
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
      "--num_pictures=0",
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
      "--num_pictures=0",
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
      "--num_pictures=0",
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
      "--num_pictures=0",
      f"--train_dir={model}",
      f"--eval_data_pattern={pattern}",
      "--run_once",
    )
    assert status == program.FAILED
    last = stderr.strip().splitlines()[-1]
    assert last == f"eval.py: error: No checkpoint in --train_dir={model}."
    assert not (model / "eval").exists()

  def test_videos_without_a_label_are_counted(self, model, tmp_path):
    rng = np.random.default_rng(0)
    path = records.write(
      tmp_path / "some.tfrecord",
      [
        records.frame_record(
          b"v%d" % i, labels, records.random_frames(rng, 3, runs.SIZES)
        )
        for i, labels in enumerate([[1], [], [0, 2], []])
      ],
    )
    found = runs.run_eval(model, path)
    counts = found["num_videos"], found["num_unlabelled"], found["num_labels"]
    assert counts == (4, 2, 3)

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
    results = measure.evaluate(str(two), values, paths, **common)
    assert results["step"] == 20
    assert results["path"] == f"{two}/model.ckpt-20"
    csv = tmp_path / "out.csv"
    writing.infer(str(two), values, paths, writing.Output(str(csv)), **common)
    assert csv.exists()
    predictor.export(str(two), values)
    assert (two / "export" / "step_20" / "saved_model.pb").exists()
    assert caplog.text.count(f"Taking {two}/model.ckpt-20 instead.") == 3
    # Asked for by name, it is an error.
    for program_of in (
      lambda source: measure.evaluate(source, values, paths, **common),
      lambda source: writing.infer(
        source,
        values,
        paths,
        writing.Output(str(tmp_path / "no.csv")),
        **common,
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
    results = measure.evaluate(
      str(model),
      model_flags.load(str(model)),
      readers.expand_data_pattern(pattern),
      batch_size=5,
      num_readers=2,
    )
    assert results["step"] == 21


def test_features_may_be_of_any_number_and_size(tmp_path):
  sizes = {"rgb": 7, "flow.x": 3, "audio": 5}
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
    netvlad_cluster_size="4,1,2",
    max_steps=1,
  )
  variables = runs.variables_of(checkpoint)
  for name, shape in (("rgb", (4, 7)), ("flow.x", (1, 3)), ("audio", (2, 5))):
    assert variables[f"tower/netvlad_{name}/centres"].shape == shape
  assert runs.run_eval(tmp_path / "model", pattern)["num_videos"] == 12
