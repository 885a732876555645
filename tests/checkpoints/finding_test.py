"""Tests of checkpoints/restore.py: which checkpoint of a train_dir is taken."""

import logging
import os
import shutil

import pytest

from checkpoints import restore
from tests.checkpoints.train_dirs import (
  contents,
  files_of,
  make,
  messages,
  prepare,
  save,
)


@pytest.fixture(autouse=True)
def _information(caplog):
  caplog.set_level(logging.INFO, logger="absl")


# Finding checkpoints.


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_directory_without_checkpoints_has_no_newest(tmp_path, name):
  assert restore.latest_checkpoint(str(tmp_path / name)) is None
  assert restore.known_checkpoints(str(tmp_path / name)) == []


@pytest.mark.parametrize("is_copied", [False, True])
def test_a_moved_directory_finds_its_own_checkpoints(tmp_path, is_copied):
  old, new = tmp_path / "old", tmp_path / "new"
  make(old, steps=(3, 7))
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
  assert prepare(new) == str(new / "model.ckpt-7")


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
  path = make(tmp_path / "run", steps=(3, 7))
  (path / "checkpoint").unlink()
  if content is not None:
    (path / "checkpoint").write_bytes(content)
  before = contents(path)
  assert restore.latest_checkpoint(str(path)) == str(path / "model.ckpt-7")
  assert prepare(path) == str(path / "model.ckpt-7")
  (told,) = [m for m in messages(caplog) if f"{path}/checkpoint " in m]
  assert told.endswith("; the newest there is model.ckpt-7.")
  assert contents(path) == before
  # Nor is it a new model's directory.
  with pytest.raises(ValueError, match="holds another model"):
    prepare(path, "--moe_num_mixtures=5")


def test_steps_are_numbers_and_names_exact(tmp_path):
  path = make(tmp_path / "run", steps=(9, 100))
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
  path = make(tmp_path / "run", steps=(3, 7))
  damage(path)
  before = contents(path)
  assert prepare(path) == str(path / "model.ckpt-3")
  (warning,) = [
    r.getMessage() for r in caplog.records if r.levelname == "WARNING"
  ]
  assert f"{path}/model.ckpt-7 is " in warning
  assert warning.endswith(f"Taking {path}/model.ckpt-3 instead.")
  # Step 7 comes again, and is not to be saved over the damaged one.
  damaged = {n: c for n, c in before.items() if n.startswith("model.ckpt-7.")}
  assert damaged
  assert contents(path) == {
    **{name: before[name] for name in before.keys() - damaged.keys()},
    **{f"{name}.damaged": content for name, content in damaged.items()},
  }
  # And another time.
  (path / _INDEX).write_text("again")
  prepare(path)
  assert (path / f"{_INDEX}.damaged").exists()
  # They are ours.
  prepare(path, start_new_model=True)
  assert os.listdir(path) == ["model_flags.json"]


def test_a_checkpoint_that_claims_a_later_step_is_refused(tmp_path):
  path = make(tmp_path / "run", steps=(3, 7))
  for name in files_of(3):
    shutil.copy(path / name, path / name.replace("-3.", "-99."))
  before = contents(path)
  with pytest.raises(ValueError, match=r"model\.ckpt-99 is of step 3, not 99"):
    prepare(path)
  assert contents(path) == before


def test_where_no_checkpoint_can_be_read_none_is_begun(tmp_path):
  path = make(tmp_path / "run", steps=(3, 7))
  _cut(path / "model.ckpt-3.index", 0)
  _cut(path / _DATA, 3)
  before = contents(path)
  with pytest.raises(restore.DamagedCheckpointError) as error:
    prepare(path)
  for text in ("model.ckpt-3", "model.ckpt-7", f"{path} ", "--start_new_model"):
    assert text in str(error.value)
  assert contents(path) == before


def test_a_first_save_that_was_killed_is_begun_anew(tmp_path, caplog):
  path = make(tmp_path / "run", steps=(7,))
  content = (path / _DATA).read_bytes()
  (path / _INDEX).unlink()
  assert prepare(path) is None
  assert (path / f"{_DATA}.damaged").read_bytes() == content
  assert "no index: begun anew" in caplog.text


def test_what_is_deleted_while_it_is_used_gives_way_to_the_newest(tmp_path):
  path = make(tmp_path / "run", steps=(3,))
  tried = []

  def use(checkpoint):
    tried.append(checkpoint)
    if len(tried) == 1:
      for name in files_of(3):
        (path / name).unlink()
      save(str(path), 5)
    restore.verified(checkpoint)
    return "used"

  assert restore.with_newest(str(path), use) == "used"
  assert tried == [str(path / "model.ckpt-3"), str(path / "model.ckpt-5")]


def test_the_one_checkpoint_that_is_asked_for_is_taken_or_nothing(tmp_path):
  path = make(tmp_path / "run", steps=(3, 7))
  _cut(path / _DATA, 3)
  prefix = str(path / "model.ckpt-7")
  with pytest.raises(restore.DamagedCheckpointError, match="7 is damaged"):
    restore.with_newest(prefix, restore.verified)
  older = str(path / "model.ckpt-3")
  assert restore.with_newest(older, restore.verified) == older
