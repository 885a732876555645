"""Tests of train_dir.py."""

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
from absl import flags

import model_flags
import train_dir
from tests import runs


@pytest.fixture(autouse=True)
def _information(caplog):
  caplog.set_level(logging.INFO, logger="absl")


def _values(*args):
  own = flags.FlagValues()
  model_flags.define(own)
  own(["prog", "--model=MoeModel", *args])
  return model_flags.from_flags(own)


def _save(directory, *steps):
  """Writes real checkpoints of one variable, whose value is the step."""
  with tf.Graph().as_default(), tf.Session() as session:
    value = tf.placeholder(tf.int64, [])
    variable = tf.get_variable("global_step", [], tf.int64)
    assign = tf.assign(variable, value)
    saver = tf.train.Saver(max_to_keep=2)
    for step in steps:
      session.run(assign, {value: step})
      saver.save(
        session,
        os.path.join(directory, "model.ckpt"),
        global_step=step,
        write_meta_graph=False,
      )


def _files(step):
  return {f"model.ckpt-{step}.index", f"model.ckpt-{step}.data-00000-of-00001"}


def _make(path, *args, steps=(7,)):
  """A train_dir with checkpoints, events, an evaluation and an export."""
  path.mkdir()
  model_flags.save(str(path), _values(*args))
  _save(str(path), *steps)
  for name in (
    "events.out.tfevents.1.host",
    "eval/metrics-7.json",
    "export/step_7/saved_model.pb",
  ):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("ours")
  return path


def _contents(path):
  """{relative path: bytes} of all files below."""
  return {
    str(file.relative_to(path)): file.read_bytes()
    for file in path.rglob("*")
    if file.is_file()
  }


def _messages(caplog):
  return [record.getMessage() for record in caplog.records]


def _prepare(path, *args, start_new_model=False):
  return train_dir.prepare(str(path), _values(*args), start_new_model)


# A new model.


@pytest.mark.parametrize("start_new_model", [False, True])
def test_a_new_directory_is_made_and_gets_the_flags(tmp_path, start_new_model):
  path = tmp_path / "not" / "there"
  found = _prepare(path, "--moe_l2=0", start_new_model=start_new_model)
  assert found is None
  assert os.listdir(path) == ["model_flags.json"]
  assert model_flags.load(str(path)) == _values("--moe_l2=0")


@pytest.mark.parametrize("start_new_model", [False, True])
def test_an_empty_directory_gets_the_flags(tmp_path, start_new_model):
  assert _prepare(tmp_path, start_new_model=start_new_model) is None
  assert os.listdir(tmp_path) == ["model_flags.json"]


def test_files_of_others_do_not_hinder_a_new_model(tmp_path):
  (tmp_path / "train.log").write_text("mine")
  assert _prepare(tmp_path) is None
  assert (tmp_path / "train.log").read_text() == "mine"


def test_a_run_that_died_before_its_first_checkpoint_may_change_all(tmp_path):
  _prepare(tmp_path)
  changed = "--moe_num_mixtures=5"
  assert _prepare(tmp_path, changed) is None
  assert model_flags.load(str(tmp_path)) == _values(changed)


# Going on.


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_run_goes_on_from_the_newest_checkpoint(tmp_path, slash):
  path = _make(tmp_path / "run", steps=(3, 10, 7))
  before = _contents(path)
  checkpoint = _prepare(f"{path}{slash}")
  assert checkpoint == str(path / "model.ckpt-7")
  reader = tf.train.load_checkpoint(checkpoint)
  assert reader.get_tensor("global_step") == 7
  assert _contents(path) == before


def test_another_architecture_is_refused_with_a_table(tmp_path):
  path = _make(tmp_path / "run", "--moe_num_mixtures=4", "--num_classes=9")
  before = _contents(path)
  with pytest.raises(ValueError) as caught:
    _prepare(path, "--num_classes=1000", "--moe_l2=0")
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
  assert _contents(path) == before


def test_another_model_is_refused_by_name(tmp_path):
  path = _make(tmp_path / "run")
  with pytest.raises(ValueError) as caught:
    _prepare(path, "--model=LogisticModel")
  assert ["--model", "MoeModel", "LogisticModel"] in [
    line.split() for line in str(caught.value).splitlines()
  ]


def test_an_allowed_change_is_told_and_saved(tmp_path, caplog):
  path = _make(tmp_path / "run")
  assert _prepare(path, "--moe_l2=0") == str(path / "model.ckpt-7")
  assert "--moe_l2 changes from 1e-08 to 0.0." in _messages(caplog)
  assert model_flags.load(str(path)) == _values("--moe_l2=0")


def test_checkpoints_of_another_program_are_refused(tmp_path):
  _save(str(tmp_path), 7)
  before = _contents(tmp_path)
  with pytest.raises(ValueError, match="of another program") as caught:
    _prepare(tmp_path)
  assert f"--train_dir={tmp_path} " in str(caught.value)
  assert "no model_flags.json" in str(caught.value)
  assert _contents(tmp_path) == before


# What a killed run leaves.

_HALF_WRITTEN = [
  "model.ckpt-9.data-00000-of-00001.tempstate1234567",
  "model.ckpt-9.index.tempstate1234567",
  "model.ckpt-9_temp/part-00000-of-00001.index",
  # TensorFlow writes the list of checkpoints, then renames it.
  "checkpoint.tmp0a1b2c",
]


@pytest.mark.parametrize("name", _HALF_WRITTEN)
def test_what_a_killed_save_left_is_removed(tmp_path, name):
  path = _make(tmp_path / "run")
  before = _contents(path)
  (path / name).parent.mkdir(exist_ok=True)
  (path / name).write_text("half")
  assert _prepare(path) == str(path / "model.ckpt-7")
  assert _contents(path) == before
  assert not (path / "model.ckpt-9_temp").exists()


@pytest.mark.parametrize("name", _HALF_WRITTEN)
def test_what_a_killed_first_save_left_is_removed(tmp_path, name):
  _prepare(tmp_path)
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_text("half")
  assert _prepare(tmp_path) is None
  assert os.listdir(tmp_path) == ["model_flags.json"]


# Starting afresh.


def test_start_new_model_deletes_what_is_ours(tmp_path):
  path = _make(tmp_path / "run", "--moe_num_mixtures=4", steps=(3, 7))
  for name in _HALF_WRITTEN:
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("half")
  (path / "model_flags.json.tmp-1-00").write_text("half")
  assert _prepare(path, start_new_model=True) is None
  assert os.listdir(path) == ["model_flags.json"]
  assert model_flags.load(str(path)) == _values()


def test_start_new_model_leaves_and_names_what_is_not_ours(tmp_path, caplog):
  path = _make(tmp_path / "run")
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
  _prepare(path, start_new_model=True)
  left = _contents(path)
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
  path = _make(tmp_path / "run")
  remove = tf.io.gfile.remove
  left = iter(range(done))

  def interrupted(path):
    if next(left, None) is None:
      raise KeyboardInterrupt
    remove(path)

  with monkeypatch.context() as patch:
    patch.setattr(tf.io.gfile, "remove", interrupted)
    with pytest.raises(KeyboardInterrupt):
      _prepare(path, start_new_model=True)
  # It still is a directory of ours.
  assert (path / "model_flags.json").exists()
  assert _prepare(path, start_new_model=True) is None
  assert os.listdir(path) == ["model_flags.json"]


def test_start_new_model_does_not_follow_links(tmp_path):
  path = _make(tmp_path / "run")
  elsewhere = tmp_path / "elsewhere"
  (path / "eval").rename(elsewhere)
  (path / "eval").symlink_to(elsewhere)
  # Whether the link goes is all the same; what it points to is not ours.
  try:
    _prepare(path, start_new_model=True)
  finally:
    assert _contents(elsewhere) == {"metrics-7.json": b"ours"}


def test_start_new_model_refuses_a_directory_of_others(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  (tmp_path / "eval").mkdir()
  _save(str(tmp_path), 7)
  before = _contents(tmp_path)
  with pytest.raises(ValueError, match="would delete") as caught:
    _prepare(tmp_path, start_new_model=True)
  assert "--start_new_model" in str(caught.value)
  assert f"--train_dir={tmp_path}," in str(caught.value)
  assert "no model_flags.json" in str(caught.value)
  assert _contents(tmp_path) == before


# Finding checkpoints.


def test_a_directory_without_checkpoints_has_no_newest(tmp_path):
  assert train_dir.latest_checkpoint(str(tmp_path)) is None
  assert train_dir.known_checkpoints(str(tmp_path)) == []


def test_a_directory_that_is_not_there_has_no_newest(tmp_path):
  assert train_dir.latest_checkpoint(str(tmp_path / "missing")) is None


@pytest.mark.parametrize("is_copied", [False, True])
def test_a_moved_directory_finds_its_own_checkpoints(tmp_path, is_copied):
  old, new = tmp_path / "old", tmp_path / "new"
  _make(old, steps=(3, 7))
  # As TensorFlow writes it where it is told an absolute path elsewhere.
  state = (old / "checkpoint").read_text()
  (old / "checkpoint").write_text(
    state.replace('"model.ckpt', f'"{old}/model.ckpt')
  )
  if is_copied:
    shutil.copytree(old, new)
  else:
    old.rename(new)
  assert train_dir.latest_checkpoint(str(new)) == str(new / "model.ckpt-7")
  assert [path for path, _ in train_dir.known_checkpoints(str(new))] == [
    str(new / "model.ckpt-3"),
    str(new / "model.ckpt-7"),
  ]
  assert _prepare(new) == str(new / "model.ckpt-7")


def test_a_named_checkpoint_that_is_missing_is_an_error(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 7))
  for name in _files(7):
    (path / name).unlink()
  for call in (lambda: train_dir.latest_checkpoint(str(path)), _prepare):
    with pytest.raises(ValueError, match="which is not there") as caught:
      call(path) if call is _prepare else call()
    assert f"{path}/checkpoint names model.ckpt-7" in str(caught.value)
    assert "--start_new_model" in str(caught.value)
  # What the error recommends helps.
  assert _prepare(path, start_new_model=True) is None


def test_an_older_checkpoint_can_be_named_by_hand(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 7))
  for name in _files(7):
    (path / name).unlink()
  (path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
  assert _prepare(path) == str(path / "model.ckpt-3")


@pytest.mark.parametrize(
  "content", [b"", b"damaged", b"\x00" * 99], ids=["empty", "text", "zeros"]
)
def test_a_damaged_list_is_not_taken_for_an_empty_directory(tmp_path, content):
  # A new model would overwrite the checkpoints, unasked.
  path = _make(tmp_path / "run")
  (path / "checkpoint").write_bytes(content)
  before = _contents(path)
  with pytest.raises(ValueError) as caught:
    _prepare(path, "--moe_num_mixtures=5")
  assert str(path) in str(caught.value)
  assert "checkpoint" in str(caught.value)
  assert _contents(path) == before


def test_known_are_the_checkpoints_that_are_there_with_their_times(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 5, 7))  # Of which two are kept.
  os.utime(path / "model.ckpt-5.index", (1234, 1234))
  os.utime(path / "model.ckpt-7.index", (1234, 1235))
  assert train_dir.known_checkpoints(str(path)) == [
    (str(path / "model.ckpt-5"), 1234.0),
    (str(path / "model.ckpt-7"), 1235.0),
  ]
  (path / "model.ckpt-5.index").unlink()
  assert train_dir.known_checkpoints(str(path)) == [
    (str(path / "model.ckpt-7"), 1235.0)
  ]


def test_a_directory_may_have_the_characters_of_a_glob(tmp_path):
  path = _make(tmp_path / "run[1]*", steps=(3, 7))
  (path / _HALF_WRITTEN[0]).write_text("half")
  assert _prepare(path) == str(path / "model.ckpt-7")
  assert not (path / _HALF_WRITTEN[0]).exists()
  assert len(train_dir.known_checkpoints(str(path))) == 2
  assert _prepare(path, start_new_model=True) is None
  assert os.listdir(path) == ["model_flags.json"]


def test_a_directory_may_be_relative(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _make(pathlib.Path("run"))
  assert _prepare("run") == os.path.join("run", "model.ckpt-7")


def test_start_new_model_leaves_what_is_not_ours_in_eval_and_export(tmp_path):
  run = tmp_path / "run"
  train_dir.prepare(str(run), _values(), False)
  for name in ("eval/metrics-3.json", "eval/notes.md", "export/step_3/x.pb"):
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).touch()
  (run / "model.ckpt-best.index").touch()
  train_dir.prepare(str(run), _values(), True)
  left = sorted(str(p.relative_to(run)) for p in run.rglob("*"))
  assert left == [
    "eval",
    "eval/notes.md",
    "model.ckpt-best.index",
    "model_flags.json",
  ]


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


def test_other_directories_are_free(tmp_path):
  inner = tmp_path / "inner"
  with train_dir.claimed(str(tmp_path)), train_dir.claimed(str(inner)):
    assert inner.is_dir()


def test_the_claim_survives_that_the_directory_is_cleared(tmp_path):
  path = _make(tmp_path / "run")
  with train_dir.claimed(str(path)):
    _prepare(path, start_new_model=True)
    with pytest.raises(ValueError), train_dir.claimed(str(path)):
      pytest.fail("claimed twice")


def test_the_claim_of_a_killed_process_goes_with_it(tmp_path):
  program = (
    "import sys, train_dir\n"
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
  (message,) = _messages(caplog)
  assert f"{tmp_path} can't be locked (Bad file descriptor)" in message


def test_a_remote_directory_is_made_but_not_claimed():
  path = "ram://train_dir_test/claimed"
  with train_dir.claimed(path), train_dir.claimed(path):
    assert tf.io.gfile.isdir(path)
