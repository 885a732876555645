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
from absl import flags

import files
import model_flags
from checkpoints import restore, train_dir
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
  assert checkpoint == str(path / "model.ckpt-10")
  reader = tf.train.load_checkpoint(checkpoint)
  assert reader.get_tensor("global_step") == 10
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
  # TensorFlow writes the list of checkpoints, then renames it.
  "checkpoint.tmp0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("name", _HALF_WRITTEN)
def test_what_a_killed_save_left_is_removed(tmp_path, name):
  path = _make(tmp_path / "run")
  before = _contents(path)
  (path / name).parent.mkdir(exist_ok=True)
  (path / name).write_text("half")
  assert _prepare(path) == str(path / "model.ckpt-7")
  assert _contents(path) == before


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
  pathlib.Path(files.temporary_name(path / "model_flags.json")).touch()
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
  assert restore.latest_checkpoint(str(tmp_path)) is None
  assert restore.known_checkpoints(str(tmp_path)) == []


def test_a_directory_that_is_not_there_has_no_newest(tmp_path):
  assert restore.latest_checkpoint(str(tmp_path / "missing")) is None


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
  assert restore.latest_checkpoint(str(new)) == str(new / "model.ckpt-7")
  assert restore.known_checkpoints(str(new)) == [
    str(new / "model.ckpt-3"),
    str(new / "model.ckpt-7"),
  ]
  assert _prepare(new) == str(new / "model.ckpt-7")


_LISTS = {
  "missing": None,
  "empty": b"",
  "text": b"damaged",
  "zeros": bytes(99),
  "an older one": b'model_checkpoint_path: "model.ckpt-3"\n',
  "one that is gone": b'model_checkpoint_path: "model.ckpt-9"\n',
}


@pytest.mark.parametrize("content", _LISTS.values(), ids=_LISTS)
def test_checkpoints_are_found_by_their_files_whatever_the_list_says(
  tmp_path, caplog, content
):
  path = _make(tmp_path / "run", steps=(3, 7))
  (path / "checkpoint").unlink()
  if content is not None:
    (path / "checkpoint").write_bytes(content)
  before = _contents(path)
  assert restore.latest_checkpoint(str(path)) == str(path / "model.ckpt-7")
  assert _prepare(path) == str(path / "model.ckpt-7")
  (told,) = [m for m in _messages(caplog) if f"{path}/checkpoint " in m]
  assert told.endswith("; the newest there is model.ckpt-7.")
  assert _contents(path) == before
  # Nor is it a new model's directory.
  with pytest.raises(ValueError, match="holds another model"):
    _prepare(path, "--moe_num_mixtures=5")


def test_steps_are_numbers_and_names_exact(tmp_path):
  path = _make(tmp_path / "run", steps=(9, 100))
  for name in ("model.ckpt-best", "model.ckpt-0200", "my_model.ckpt-300"):
    for part in ("index", "data-00000-of-00001"):
      (path / f"{name}.{part}").write_text("mine")
  assert restore.known_checkpoints(str(path)) == [
    str(path / "model.ckpt-9"),
    str(path / "model.ckpt-100"),
  ]


# Damaged checkpoints.


def _cut(path, size):
  with open(path, "r+b") as stream:
    stream.truncate(size)


def _flip(path):
  content = bytearray(path.read_bytes())
  content[0] ^= 1
  path.write_bytes(content)


_DATA, _INDEX = "model.ckpt-7.data-00000-of-00001", "model.ckpt-7.index"
_DAMAGES = {
  "index missing": lambda path: (path / _INDEX).unlink(),
  "data missing": lambda path: (path / _DATA).unlink(),
  "index empty": lambda path: _cut(path / _INDEX, 0),
  "index cut": lambda path: _cut(path / _INDEX, 20),
  "data empty": lambda path: _cut(path / _DATA, 0),
  "data cut": lambda path: _cut(path / _DATA, 3),
  "a bit flipped": lambda path: _flip(path / _DATA),
  "a shard missing": lambda path: (path / _DATA).rename(
    path / "model.ckpt-7.data-00000-of-00002"
  ),
}


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES)
def test_of_a_damaged_newest_checkpoint_nothing_is_lost_and_the_older_is_taken(
  tmp_path, caplog, damage
):
  path = _make(tmp_path / "run", steps=(3, 7))
  damage(path)
  before = _contents(path)
  assert _prepare(path) == str(path / "model.ckpt-3")
  (warning,) = [
    r.getMessage() for r in caplog.records if r.levelname == "WARNING"
  ]
  assert f"{path}/model.ckpt-7 is " in warning
  assert warning.endswith(f"Taking {path}/model.ckpt-3 instead.")
  # Step 7 comes again, and is not to be saved over the damaged one.
  damaged = {n: c for n, c in before.items() if n.startswith("model.ckpt-7.")}
  assert damaged
  assert _contents(path) == {
    **{name: before[name] for name in before.keys() - damaged.keys()},
    **{f"{name}.damaged": content for name, content in damaged.items()},
  }
  # And another time.
  (path / _INDEX).write_text("again")
  _prepare(path)
  assert (path / f"{_INDEX}.damaged").exists()
  # They are ours.
  _prepare(path, start_new_model=True)
  assert os.listdir(path) == ["model_flags.json"]


def test_a_checkpoint_that_claims_a_later_step_is_refused(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 7))
  for name in _files(3):
    shutil.copy(path / name, path / name.replace("-3.", "-99."))
  before = _contents(path)
  with pytest.raises(ValueError, match=r"model\.ckpt-99 is of step 3, not 99"):
    _prepare(path)
  assert _contents(path) == before


def test_where_no_checkpoint_can_be_read_none_is_begun(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 7))
  _cut(path / "model.ckpt-3.index", 0)
  _cut(path / _DATA, 3)
  before = _contents(path)
  with pytest.raises(restore.DamagedCheckpointError) as error:
    _prepare(path)
  for text in ("model.ckpt-3", "model.ckpt-7", f"{path} ", "--start_new_model"):
    assert text in str(error.value)
  assert _contents(path) == before


def test_a_first_save_that_was_killed_is_begun_anew(tmp_path, caplog):
  path = _make(tmp_path / "run", steps=(7,))
  content = (path / _DATA).read_bytes()
  (path / _INDEX).unlink()
  assert _prepare(path) is None
  assert (path / f"{_DATA}.damaged").read_bytes() == content
  assert "no index: begun anew" in caplog.text


def test_what_is_deleted_while_it_is_used_gives_way_to_the_newest(tmp_path):
  path = _make(tmp_path / "run", steps=(3,))
  tried = []

  def use(checkpoint):
    tried.append(checkpoint)
    if len(tried) == 1:
      for name in _files(3):
        (path / name).unlink()
      _save(str(path), 5)
    restore.verified(checkpoint)
    return "used"

  assert restore.with_newest(str(path), use) == "used"
  assert tried == [str(path / "model.ckpt-3"), str(path / "model.ckpt-5")]


def test_the_one_checkpoint_that_is_asked_for_is_taken_or_nothing(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 7))
  _cut(path / _DATA, 3)
  prefix = str(path / "model.ckpt-7")
  with pytest.raises(restore.DamagedCheckpointError, match="7 is damaged"):
    restore.with_newest(prefix, restore.verified)
  older = str(path / "model.ckpt-3")
  assert restore.with_newest(older, restore.verified) == older


# Deleting old ones.


def test_the_newest_stay_whoever_wrote_them_down(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 5))
  _save(str(path), 6, 7)  # Of 3 and 5 the list does not know.
  (path / "model.ckpt-3.index.bak").write_text("mine")
  train_dir.prune(str(path), 0)
  assert len(restore.known_checkpoints(str(path))) == 4
  train_dir.prune(str(path), 2)
  names = {name for name in os.listdir(path) if name.startswith("model.ckpt")}
  assert names == {*_files(6), *_files(7), "model.ckpt-3.index.bak"}


# Copies.


def test_a_copy_is_a_train_dir_of_one_checkpoint(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 7))
  values, best = _values(), tmp_path / "best"
  for step in (7, 3):
    with files.temporary_directory(best) as temporary:
      copy = train_dir.copy_checkpoint(f"{path}/model.ckpt-{step}", temporary)
      moved = train_dir.move_checkpoint(copy, str(best), values)
    assert moved == str(best / f"model.ckpt-{step}")
    assert set(os.listdir(best)) == {
      "checkpoint",
      "model_flags.json",
      *_files(step),
    }
    assert tf.train.latest_checkpoint(str(best)) == moved
    for name in _files(step):
      assert (best / name).read_bytes() == (path / name).read_bytes()
  assert sorted(os.listdir(tmp_path)) == ["best", "run"]
  with pytest.raises(restore.DamagedCheckpointError, match="no checkpoint"):
    train_dir.copy_checkpoint(f"{path}/model.ckpt-9", str(best))


def test_a_copy_of_a_renamed_checkpoint_has_the_name_of_its_step(tmp_path):
  path = _make(tmp_path / "run", steps=(3, 7))
  for name in ("mine", "mine2", "mine-7"):
    for file in _files(3):
      shutil.copy(path / file, path / file.replace("model.ckpt-3", name))
  for name in ("mine", "mine-7"):
    copies = tmp_path / name
    copies.mkdir()
    copy = train_dir.copy_checkpoint(f"{path}/{name}", str(copies))
    assert copy == str(copies / "model.ckpt-3")
    assert set(os.listdir(copies)) == set(_files(3))


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?"])
def test_a_directory_with_the_characters_of_a_glob_is_refused(tmp_path, name):
  # TensorFlow would find no checkpoint when the run is resumed.
  with pytest.raises(ValueError, match="rename the directory"):
    _prepare(tmp_path / name)
  assert os.listdir(tmp_path) == []


def test_a_directory_may_be_relative(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _make(pathlib.Path("run"))
  assert _prepare("run") == os.path.join("run", "model.ckpt-7")


def test_start_new_model_leaves_what_is_not_ours_in_eval_and_export(tmp_path):
  run = tmp_path / "run"
  train_dir.prepare(str(run), _values(), False)
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
  train_dir.prepare(str(run), _values(), False)
  (tmp_path / "model.ckpt-60.index").rename(run / "model.ckpt-60.index")
  for name in own + tuple(foreign):
    assert (run / name).exists(), name
  train_dir.prepare(str(run), _values(), True)
  assert sorted(_contents(run)) == sorted([*foreign, "model_flags.json"])


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
  (message,) = _messages(caplog)
  assert f"{tmp_path} can't be locked (Bad file descriptor)" in message


def test_a_remote_directory_is_made_but_not_claimed():
  path = "ram://train_dir_test/claimed"
  with train_dir.claimed(path), train_dir.claimed(path):
    assert tf.io.gfile.isdir(path)
