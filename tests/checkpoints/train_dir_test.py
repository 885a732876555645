"""Tests of checkpoints/train_dir.py."""

import errno
import fcntl
import logging
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

import files
import model_flags
from checkpoints import restore, train_dir
from tests import runs
from tests.checkpoints.train_dirs import (
  contents,
  files_of,
  make,
  messages,
  prepare,
  save,
  values_of,
)


@pytest.fixture(autouse=True)
def _information(caplog):
  caplog.set_level(logging.INFO, logger="absl")


# A new model.


@pytest.mark.parametrize("start_new_model", [False, True])
@pytest.mark.parametrize("name", ["", "not/there"])
def test_a_new_directory_gets_the_flags(tmp_path, name, start_new_model):
  path = tmp_path / name
  found = prepare(path, "--moe_l2=0", start_new_model=start_new_model)
  assert found is None
  assert os.listdir(path) == ["model_flags.json"]
  assert model_flags.load(str(path)) == values_of("--moe_l2=0")
  # Files of others do not hinder it.
  (path / "train.log").write_text("mine")
  assert prepare(path) is None
  assert (path / "train.log").read_text() == "mine"


def test_a_run_that_died_before_its_first_checkpoint_may_change_all(tmp_path):
  prepare(tmp_path)
  # Of its data; the names of the classes may have been put there by hand.
  for name in ("features.json", "pca-rgb.npz", "vocabulary.csv", "my.npz"):
    (tmp_path / name).touch()
  changed = "--moe_num_mixtures=5"
  assert prepare(tmp_path, changed) is None
  assert model_flags.load(str(tmp_path)) == values_of(changed)
  left = {"model_flags.json", "my.npz", "vocabulary.csv"}
  assert {*os.listdir(tmp_path)} == left


# Going on.


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_run_goes_on_from_the_newest_checkpoint(tmp_path, slash):
  path = make(tmp_path / "run", steps=(3, 10, 7))
  before = contents(path)
  checkpoint = prepare(f"{path}{slash}")
  assert checkpoint == str(path / "model.ckpt-10")
  reader = tf.train.load_checkpoint(checkpoint)
  assert reader.get_tensor("global_step") == 10
  assert contents(path) == before


def test_another_architecture_is_refused_with_a_table(tmp_path):
  path = make(tmp_path / "run", "--moe_num_mixtures=4", "--num_classes=9")
  before = contents(path)
  with pytest.raises(ValueError) as caught:
    prepare(path, "--num_classes=1000", "--moe_l2=0")
  lines = str(caught.value).splitlines()
  assert lines[0] == f"--train_dir={path} holds another model:"
  assert [line.split() for line in lines[1:-1]] == [
    ["flag", "trained", "with", "now"],
    ["--moe_num_mixtures", "4", "2"],
    ["--num_classes", "9", "1000"],
  ]
  # In columns.
  starts = {
    line.index(word) for line, word in zip(lines[1:-1], ["trained", "4 ", "9 "])
  }
  assert len(starts) == 1
  assert "another --train_dir" in lines[-1]
  assert "--start_new_model" in lines[-1]
  assert contents(path) == before


def test_another_model_is_refused_by_name(tmp_path):
  path = make(tmp_path / "run")
  with pytest.raises(ValueError) as caught:
    prepare(path, "--model=LogisticModel")
  assert ["--model", "MoeModel", "LogisticModel"] in [
    line.split() for line in str(caught.value).splitlines()
  ]


def test_an_allowed_change_is_told_and_saved(tmp_path, caplog):
  path = make(tmp_path / "run")
  assert prepare(path, "--moe_l2=0") == str(path / "model.ckpt-7")
  assert "--moe_l2 changes from 1e-08 to 0.0." in messages(caplog)
  assert model_flags.load(str(path)) == values_of("--moe_l2=0")


def test_checkpoints_of_another_program_are_refused(tmp_path):
  save(str(tmp_path), 7)
  before = contents(tmp_path)
  with pytest.raises(ValueError, match="of another program") as caught:
    prepare(tmp_path)
  assert f"--train_dir={tmp_path} " in str(caught.value)
  assert "no model_flags.json" in str(caught.value)
  assert contents(tmp_path) == before


# What a killed run leaves.

_HALF_WRITTEN = [
  "model.ckpt-9.data-00000-of-00001.tempstate1234567",
  "model.ckpt-9.index.tempstate1234567",
  # TensorFlow writes the list of checkpoints, then renames it.
  "checkpoint.tmp0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("name", _HALF_WRITTEN)
@pytest.mark.parametrize("is_first", [False, True])
def test_what_a_killed_save_left_is_removed(tmp_path, name, is_first):
  path = tmp_path / "run"
  if is_first:
    prepare(path)
  else:
    make(path)
  before = contents(path)
  (path / name).write_text("half")
  assert prepare(path) == (None if is_first else str(path / "model.ckpt-7"))
  assert contents(path) == before


# Starting afresh.


def test_start_new_model_deletes_what_is_ours(tmp_path):
  path = make(tmp_path / "run", "--moe_num_mixtures=4", steps=(3, 7))
  for name in _HALF_WRITTEN:
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("half")
  pathlib.Path(files.temporary_name(path / "model_flags.json")).touch()
  assert prepare(path, start_new_model=True) is None
  assert os.listdir(path) == ["model_flags.json"]
  assert model_flags.load(str(path)) == values_of()


def test_start_new_model_leaves_and_names_what_is_not_ours(tmp_path, caplog):
  path = make(tmp_path / "run")
  foreign = {
    "notes.txt": b"mine",
    "my_model.ckpt-7.index": b"mine",
    "model.ckpt": b"mine",
    "eval.csv": b"mine",
    "data/train.tfrecord": b"mine",
    "data/checkpoint": b"mine",
  }
  for name, content in foreign.items():
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(content)
  prepare(path, start_new_model=True)
  left = contents(path)
  del left["model_flags.json"]
  assert left == foreign
  (warning,) = [
    record for record in caplog.records if record.levelname == "WARNING"
  ]
  assert warning.getMessage() == (
    f"Left alone in {path}: data, eval.csv, model.ckpt, "
    "my_model.ckpt-7.index, notes.txt."
  )


@pytest.mark.parametrize("done", range(5))
def test_start_new_model_can_be_interrupted(tmp_path, monkeypatch, done):
  path = make(tmp_path / "run")
  remove = tf.io.gfile.remove
  left = iter(range(done))

  def interrupted(path):
    if next(left, None) is None:
      raise KeyboardInterrupt
    remove(path)

  with monkeypatch.context() as patch:
    patch.setattr(tf.io.gfile, "remove", interrupted)
    with pytest.raises(KeyboardInterrupt):
      prepare(path, start_new_model=True)
  # It still is a directory of ours.
  assert (path / "model_flags.json").exists()
  assert prepare(path, start_new_model=True) is None
  assert os.listdir(path) == ["model_flags.json"]


def test_start_new_model_does_not_follow_links(tmp_path):
  path = make(tmp_path / "run")
  elsewhere = tmp_path / "elsewhere"
  (path / "eval").rename(elsewhere)
  (path / "eval").symlink_to(elsewhere)
  # Whether the link goes is all the same; what it points to is not ours.
  try:
    prepare(path, start_new_model=True)
  finally:
    assert contents(elsewhere) == {"metrics-7.json": b"ours"}


def test_start_new_model_refuses_a_directory_of_others(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  (tmp_path / "eval").mkdir()
  save(str(tmp_path), 7)
  before = contents(tmp_path)
  with pytest.raises(ValueError, match="would delete") as caught:
    prepare(tmp_path, start_new_model=True)
  assert "--start_new_model" in str(caught.value)
  assert f"--train_dir={tmp_path}," in str(caught.value)
  assert "no model_flags.json" in str(caught.value)
  assert contents(tmp_path) == before


# Deleting old ones.


def test_the_newest_stay_whoever_wrote_them_down(tmp_path):
  path = make(tmp_path / "run", steps=(3, 5))
  save(str(path), 6, 7)  # Of 3 and 5 the list does not know.
  (path / "model.ckpt-3.index.bak").write_text("mine")
  train_dir.prune(str(path), 0)
  assert len(restore.known_checkpoints(str(path))) == 4
  train_dir.prune(str(path), 2)
  names = {name for name in os.listdir(path) if name.startswith("model.ckpt")}
  assert names == {
    *files_of(6),
    *files_of(7),
    "model.ckpt-3.index.bak",
  }


# Copies.


def test_a_copy_is_a_train_dir_of_one_checkpoint(tmp_path):
  path = make(tmp_path / "run", steps=(3, 7))
  values, best = values_of(), tmp_path / "best"
  for step in (7, 3):
    with files.temporary_directory(best) as temporary:
      copy = train_dir.copy_checkpoint(f"{path}/model.ckpt-{step}", temporary)
      moved = train_dir.move_checkpoint(copy, str(best), values)
    assert moved == str(best / f"model.ckpt-{step}")
    assert set(os.listdir(best)) == {
      "checkpoint",
      "model_flags.json",
      *files_of(step),
    }
    assert tf.train.latest_checkpoint(str(best)) == moved
    for name in files_of(step):
      assert (best / name).read_bytes() == (path / name).read_bytes()
  assert sorted(os.listdir(tmp_path)) == ["best", "run"]
  with pytest.raises(restore.DamagedCheckpointError, match="no checkpoint"):
    train_dir.copy_checkpoint(f"{path}/model.ckpt-9", str(best))


def test_a_copy_of_a_renamed_checkpoint_has_the_name_of_its_step(tmp_path):
  path = make(tmp_path / "run", steps=(3, 7))
  for name in ("mine", "mine2", "mine-7"):
    for file in files_of(3):
      shutil.copy(path / file, path / file.replace("model.ckpt-3", name))
  for name in ("mine", "mine-7"):
    copies = tmp_path / name
    copies.mkdir()
    copy = train_dir.copy_checkpoint(f"{path}/{name}", str(copies))
    assert copy == str(copies / "model.ckpt-3")
    assert set(os.listdir(copies)) == set(files_of(3))


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?"])
def test_a_directory_with_the_characters_of_a_glob_is_refused(tmp_path, name):
  # TensorFlow would find no checkpoint when the run is resumed.
  with pytest.raises(ValueError, match="rename the directory"):
    prepare(tmp_path / name)
  assert os.listdir(tmp_path) == []


def test_a_directory_may_be_relative(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  make(pathlib.Path("run"))
  assert prepare("run") == os.path.join("run", "model.ckpt-7")


def test_start_new_model_leaves_what_is_not_ours_in_eval_and_export(tmp_path):
  run = tmp_path / "run"
  train_dir.prepare(str(run), values_of(), False)
  own = (
    "checkpoint",
    "model.ckpt-60.index",
    "finished.json",
    "events.out.tfevents.17.host-1.net",
    "eval/metrics-3.json",
    "eval/metrics-3-holdout-0a1b2c3d.json",
    "eval/best_checkpoint.json",
    "best-holdout-0a1b2c3d/model.ckpt-3.index",
    "best-holdout-0a1b2c3d/model_flags.json",
    "export/step_3/saved_model.pb",
  )
  for name in own:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).touch()
  foreign = [
    "best/notes.md",
    "checkpoint.tmp",
    "eval/metrics-final.json",
    "eval/notes.md",
    "events.out.tfevents.17.host.bak",
    "export/step_4/notes.md",
    "export/step_4/saved_model.pb",
    "export/step_60_prod/saved_model.pb",
    "model.ckpt-60.bak",
    "model.ckpt-60.index.bak",
    "model.ckpt-60_temp/mine",
    "model.ckpt-attempt3.data-00000-of-00001",
    "model.ckpt-attempt3.index",
    "model.ckpt-best_temperature.index",
    "model_flags.json.bak",
  ]
  for name in foreign:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("mine")
  # Going on deletes nothing of these either.
  (run / "model.ckpt-60.index").rename(tmp_path / "model.ckpt-60.index")
  train_dir.prepare(str(run), values_of(), False)
  (tmp_path / "model.ckpt-60.index").rename(run / "model.ckpt-60.index")
  for name in own + tuple(foreign):
    assert (run / name).exists(), name
  train_dir.prepare(str(run), values_of(), True)
  assert sorted(contents(run)) == sorted([*foreign, "model_flags.json"])


# One run at a time.


def test_a_claimed_directory_is_refused_until_it_is_left(tmp_path):
  path = str(tmp_path / "not" / "there")
  with train_dir.claimed(path):
    with pytest.raises(ValueError) as caught, train_dir.claimed(path):
      pytest.fail("claimed twice")
    assert f"--train_dir={path}" in str(caught.value)
    # The refused one has not taken the claim away.
    with pytest.raises(ValueError), train_dir.claimed(f"{path}/"):
      pytest.fail("claimed twice")
  with train_dir.claimed(path):
    pass
  assert os.listdir(path) == []


def test_a_run_that_fails_leaves_its_claim(tmp_path):
  with pytest.raises(KeyError), train_dir.claimed(str(tmp_path)):
    raise KeyError
  with train_dir.claimed(str(tmp_path)):
    pass


def test_the_claim_survives_that_the_directory_is_cleared(tmp_path):
  path = make(tmp_path / "run")
  with train_dir.claimed(str(path)):
    prepare(path, start_new_model=True)
    with pytest.raises(ValueError), train_dir.claimed(str(path)):
      pytest.fail("claimed twice")


@pytest.mark.slow
def test_the_claim_of_a_killed_process_goes_with_it(tmp_path):
  program = (
    "import sys\n"
    "from checkpoints import train_dir\n"
    "with train_dir.claimed(sys.argv[1]):\n"
    "  print('claimed', flush=True)\n"
    "  sys.stdin.read()\n"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", program, str(tmp_path)],
    cwd=runs.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    assert process.stdout.readline() == "claimed\n"
    with pytest.raises(ValueError), train_dir.claimed(str(tmp_path)):
      pytest.fail("claimed twice")
    process.kill()
  with train_dir.claimed(str(tmp_path)):
    pass


def test_without_locks_the_run_goes_on_and_says_so(
  tmp_path, monkeypatch, caplog
):
  def no_locks(*unused_args):
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))

  monkeypatch.setattr(fcntl, "flock", no_locks)
  with train_dir.claimed(str(tmp_path)):
    pass
  (message,) = messages(caplog)
  assert f"{tmp_path} can't be locked (Bad file descriptor)" in message


def test_a_remote_directory_is_made_but_not_claimed():
  path = "ram://train_dir_test/claimed"
  with train_dir.claimed(path), train_dir.claimed(path):
    assert tf.io.gfile.isdir(path)
