"""Tests of checkpoints/archive.py."""

import gzip
import io
import os
import shutil
import tarfile
import tracemalloc

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
from checkpoints import archive as model_archive
from checkpoints import restore

_INDEX = "model.ckpt-7.index"
_DATA = "model.ckpt-7.data-00000-of-00001"
_RNG = np.random.RandomState(0)
_CONTENTS = {
  "model_flags.json": b'{"model": "MoeModel"}\n',
  _INDEX: _RNG.bytes(1000),
  # One half is stored as it is, the other compressed.
  _DATA: _RNG.bytes(20_000) + bytes(_RNG.randint(0, 5, 40_000, np.uint8)),
}
_STATE = b'model_checkpoint_path: "model.ckpt-7"\n'


def _make_train_dir(path):
  """A train_dir as train.py leaves it, but for the contents."""
  path.mkdir(parents=True)
  for name, content in _CONTENTS.items():
    (path / name).write_bytes(content)
  # What does not belong into the archive: another step, events, metrics.
  (path / "model.ckpt-70.index").write_bytes(b"other")
  (path / "model.ckpt-70.data-00000-of-00001").write_bytes(b"other")
  (path / "events.out.tfevents.1.host").write_bytes(b"events")
  (path / "eval").mkdir()
  (path / "checkpoint").write_text(
    f'model_checkpoint_path: "{path}/model.ckpt-70"\n'
    f'all_model_checkpoint_paths: "{path}/model.ckpt-7"\n'
    f'all_model_checkpoint_paths: "{path}/model.ckpt-70"\n'
  )
  return path


def _write(tmp_path, source=None):
  source = source or _make_train_dir(tmp_path / "source")
  archive = tmp_path / "model.tgz"
  model_archive.write(str(archive), str(source), f"{source}/model.ckpt-7")
  return archive


def _contents(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def _check_refused(archive, directory, *named):
  """The archive is refused, by name, and nothing is unpacked."""
  directory.mkdir()
  (directory / "kept.txt").write_text("kept")
  with pytest.raises(ValueError) as caught:
    model_archive.extract(str(archive), str(directory))
  for text in (str(archive), *named):
    assert text in str(caught.value)
  assert _contents(directory) == {"kept.txt": b"kept"}


@pytest.mark.parametrize("name", ["source", "run[1]*"])
@pytest.mark.parametrize("is_linked", [False, True])
def test_what_is_written_is_extracted(tmp_path, name, is_linked):
  source = _make_train_dir(tmp_path / name)
  # Leftovers beside the checkpoint are not archived.
  (source / "model.ckpt-7.meta").write_bytes(b"graph")
  (source / f"{_INDEX}.tempstate123").write_bytes(b"half")
  for file in _CONTENTS if is_linked else ():
    (source / file).rename(tmp_path / file)
    (source / file).symlink_to(tmp_path / file)
  target = tmp_path / "not" / "there"
  model_archive.extract(str(_write(tmp_path, source)), str(target))
  assert _contents(target) == {**_CONTENTS, "checkpoint": _STATE}
  assert not any(path.is_symlink() for path in target.iterdir())


def test_what_is_extracted_serves_as_a_train_dir(tmp_path):
  target = tmp_path / "target"
  found = model_archive.extract(str(_write(tmp_path)), str(target))
  assert found == f"{target}/model.ckpt-7"
  expected = str(target / "model.ckpt-7")
  assert restore.latest_checkpoint(str(target)) == expected
  assert model_flags.load(str(target))["model"] == "MoeModel"


def test_the_archive_holds_one_checkpoint_under_plain_names(tmp_path):
  with tarfile.open(_write(tmp_path)) as archive:
    names = sorted(archive.getnames())
  assert names == ["checkpoint", _DATA, _INDEX, "model_flags.json"]


def test_an_archive_is_replaced_as_a_whole(tmp_path):
  source = _make_train_dir(tmp_path / "source")
  archive = _write(tmp_path, source)
  before = archive.read_bytes()
  (source / "model_flags.json").unlink()
  with pytest.raises(OSError, match=r"model_flags\.json"):
    _write(tmp_path, source)
  assert archive.read_bytes() == before
  assert sorted(os.listdir(tmp_path)) == ["model.tgz", "source"]


def test_a_checkpoint_that_is_not_there_is_not_archived(tmp_path):
  source = _make_train_dir(tmp_path / "source")
  archive = tmp_path / "model.tgz"
  with pytest.raises((ValueError, OSError), match=r"model\.ckpt-8"):
    model_archive.write(str(archive), str(source), f"{source}/model.ckpt-8")
  assert not archive.exists()


def test_an_archive_goes_to_any_file_system(tmp_path):
  source = _make_train_dir(tmp_path / "source")
  remote = "ram://model_archive_test/model.tgz"
  model_archive.write(remote, str(source), f"{source}/model.ckpt-7")
  archive = tmp_path / "copy.tgz"
  with tf.io.gfile.GFile(remote, "rb") as stream:
    archive.write_bytes(stream.read())
  target = tmp_path / "target"
  model_archive.extract(str(archive), str(target))
  assert _contents(target) == {**_CONTENTS, "checkpoint": _STATE}


def _member(name, **fields):
  info = tarfile.TarInfo(name)
  for field, value in fields.items():
    setattr(info, field, value)
  return info


_BAD_MEMBERS = {
  "an absolute path": _member("/tmp/model_flags.json"),
  "a path upwards": _member("../model_flags.json"),
  "a path in a directory": _member("sub/model_flags.json"),
  "a path with a dot": _member("./checkpoint"),
  "a symbolic link": _member(
    "checkpoint", type=tarfile.SYMTYPE, linkname="/etc/passwd"
  ),
  "a hard link": _member(
    _INDEX, type=tarfile.LNKTYPE, linkname="model_flags.json"
  ),
  "a character device": _member(
    "checkpoint", type=tarfile.CHRTYPE, devmajor=1, devminor=3
  ),
  "a block device": _member("checkpoint", type=tarfile.BLKTYPE),
  "a pipe": _member("model.ckpt-8.index", type=tarfile.FIFOTYPE),
  "a directory": _member("model.ckpt-8.index", type=tarfile.DIRTYPE),
  "another name": _member("evil.py"),
  "a name that only begins well": _member(f"{_INDEX}.py"),
  "a name that only ends well": _member("xcheckpoint"),
  "a checkpoint without a step": _member("model.ckpt.index"),
  "a line end": _member("checkpoint\n"),
}


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("what", list(_BAD_MEMBERS))
def test_a_member_that_no_model_has_is_refused(tmp_path, what, is_last):
  bad = _BAD_MEMBERS[what]
  archive = tmp_path / "bad.tgz"
  good = [_member(name, size=len(_CONTENTS[name])) for name in _CONTENTS]
  with tarfile.open(archive, "w:gz") as stream:
    for info in [*good, bad] if is_last else [bad, *good]:
      stream.addfile(info, io.BytesIO(_CONTENTS.get(info.name, b"")))
  _check_refused(
    archive, tmp_path / "target", repr(bad.name), "nothing was unpacked"
  )
  # Nor did anything land elsewhere.
  assert sorted(os.listdir(tmp_path)) == ["bad.tgz", "target"]


@pytest.mark.parametrize(
  "content",
  # The last is a plain tar.
  [b"", b"not an archive\n", b"\x1f\x8b", _member("checkpoint").tobuf()],
)
def test_a_file_of_another_format_is_refused(tmp_path, content):
  archive = tmp_path / "bad.tgz"
  archive.write_bytes(content)
  _check_refused(archive, tmp_path / "target", "not a .tgz archive")


# A tar's end is two blocks of zeros, which say nothing: cut well before it.
@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, share):
  whole = _write(tmp_path).read_bytes()
  archive = tmp_path / "bad.tgz"
  archive.write_bytes(whole[: int(len(whole) * share)])
  _check_refused(archive, tmp_path / "target", "not a .tgz archive")


# In what is stored as it is only gzip's checksum, behind everything, tells.
@pytest.mark.parametrize("share", [0.3, 0.8, 0.95])
def test_a_damaged_archive_is_refused(tmp_path, share):
  damaged = bytearray(_write(tmp_path).read_bytes())
  start = int(len(damaged) * share)
  damaged[start : start + 50] = bytes(50)
  archive = tmp_path / "bad.tgz"
  archive.write_bytes(damaged)
  _check_refused(archive, tmp_path / "target", "not a .tgz archive")


def _zeros(name, size, archive):
  """Adds a member of zeros, of which a thousand bytes take one."""
  with open("/dev/zero", "rb") as stream:
    archive.addfile(_member(name, size=size), stream)


def test_what_unpacks_to_more_than_a_model_is_refused(tmp_path):
  archive = tmp_path / "bad.tgz"
  with tarfile.open(archive, "w:gz") as stream:
    _zeros(_INDEX, 1000, stream)
    _zeros(_DATA, 65 << 20, stream)
  _check_refused(
    archive,
    tmp_path / "target",
    "would unpack to 68,158,440 bytes",
    "67,108,864 are credible",
    "nothing was unpacked",
  )


@pytest.mark.parametrize("is_huge", [True, False])
def test_what_is_declared_counts_before_it_is_read(tmp_path, is_huge):
  # A header alone: the archive ends where the data would begin.
  archive = tmp_path / "bad.tgz"
  with gzip.open(archive, "wb") as stream:
    size = 1 << 50 if is_huge else 1 << 20
    stream.write(_member(_DATA, size=size).tobuf())
  told = "would unpack to" if is_huge else "not a .tgz archive"
  _check_refused(archive, tmp_path / "target", told)


def test_a_header_is_not_held_in_memory_whatever_its_size(tmp_path):
  archive = tmp_path / "bad.tgz"
  with gzip.open(archive, "wb") as stream:
    header = _member("x", type=tarfile.XHDTYPE, size=200 << 20)
    stream.write(header.tobuf())
    for _ in range(200):
      stream.write(bytes(1 << 20))
  tracemalloc.start()
  try:
    _check_refused(archive, tmp_path / "target", "a header of 209,715,200")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
  finally:
    tracemalloc.stop()


def test_members_without_end_are_refused(tmp_path):
  archive = tmp_path / "bad.tgz"
  with tarfile.open(archive, "w:gz") as stream:
    for number in range(101):
      stream.addfile(_member(f"model.ckpt-{number}.index"))
  _check_refused(archive, tmp_path / "target", "'model.ckpt-100.index'")


def test_a_member_that_comes_twice_is_refused(tmp_path):
  archive = tmp_path / "bad.tgz"
  with tarfile.open(archive, "w:gz") as stream:
    for _ in range(2):
      stream.addfile(_member(_INDEX))
  _check_refused(archive, tmp_path / "target", repr(_INDEX))


def test_a_disk_without_room_is_told_first(tmp_path, monkeypatch):
  archive = _write(tmp_path)
  room = shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
  _check_refused(archive, tmp_path / "target", "has room for 1,000")


def test_a_renamed_checkpoint_is_archived_under_its_step(tmp_path, monkeypatch):
  source = _make_train_dir(tmp_path / "source")
  for path in source.glob("model.ckpt-7.*"):
    path.rename(source / path.name.replace("model.ckpt-7", "best"))
  monkeypatch.setattr(restore, "step_of", lambda checkpoint: 7)
  monkeypatch.chdir(source)
  archive = tmp_path / "model.tgz"
  model_archive.write(str(archive), str(source), "best")
  target = tmp_path / "target"
  model_archive.extract(str(archive), str(target))
  assert _contents(target) == {**_CONTENTS, "checkpoint": _STATE}


def test_an_archive_that_is_not_there_is_named(tmp_path):
  with pytest.raises(OSError, match=r"missing\.tgz"):
    model_archive.extract(str(tmp_path / "missing.tgz"), str(tmp_path / "out"))
  assert os.listdir(tmp_path) == []


def test_a_training_directory_is_not_unpacked_over(tmp_path):
  archive = _write(tmp_path)
  target = tmp_path / "target"
  target.mkdir()
  (target / "events.out.tfevents.1.host").touch()
  (target / "model_flags.json").write_text("its own")
  with pytest.raises(ValueError, match="is a training directory"):
    model_archive.extract(str(archive), str(target))
  assert (target / "model_flags.json").read_text() == "its own"


def test_an_archive_without_a_model_is_refused(tmp_path):
  archive = tmp_path / "model.tgz"
  archive.write_bytes(gzip.compress(bytes(20_000)))  # As tar: no member.
  _check_refused(archive, tmp_path / "target", "no model archive")
