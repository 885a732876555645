"""Tests of files.py."""

import os
import pathlib
import resource
import stat
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

import files


def _names(directory):
  return sorted(os.listdir(directory))


def test_a_file_is_written_with_line_ends_as_they_are(tmp_path):
  path = tmp_path / "not" / "there" / "new.txt"
  files.write_text(path, "é\r\nb\n")
  assert path.read_bytes() == b"\xc3\xa9\r\nb\n"
  with files.ReplacedFile(path, binary=True) as stream:
    stream.write(b"\x00\xff\r\n")
  assert path.read_bytes() == b"\x00\xff\r\n"
  with files.ReplacedFile(path):
    pass
  assert path.read_bytes() == b""
  assert _names(path.parent) == ["new.txt"]


def test_the_old_file_stays_until_the_block_succeeds(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("a long old content")
  with files.ReplacedFile(path) as stream:
    stream.write("new")
    stream.flush()
    assert path.read_text() == "a long old content"
    # The temporary file is in the same directory: renaming is atomic there.
    assert len(_names(tmp_path)) == 2
  assert path.read_text() == "new"
  assert _names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_no_other(tmp_path, exception):
  path = tmp_path / "a.txt"
  path.write_text("old")
  with pytest.raises(exception, match="mine"):
    with files.ReplacedFile(path) as stream:
      stream.write("half of the ne")
      raise exception("mine")
  assert path.read_text() == "old"
  assert _names(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("old")
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with pytest.raises(OSError, match=rf"File too large: '{path}'"):
    with files.ReplacedFile(path) as stream:
      stream.write("x" * 100)  # Fits in the buffer: the commit fails.
      resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
      try:
        stream.flush()
      finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert path.read_text() == "old"
  assert _names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_commit_leaves_the_old_file_and_no_other(
  tmp_path, monkeypatch, function
):
  path = tmp_path / "a.txt"
  path.write_text("old")

  def fail(*unused_args):
    raise OSError("No space left on device")

  with pytest.raises(OSError, match="No space left"):
    with files.ReplacedFile(path) as stream:
      stream.write("new")
      monkeypatch.setattr(os, function, fail)
  assert path.read_text() == "old"
  assert _names(tmp_path) == ["a.txt"]


def test_a_bare_name_is_of_the_working_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  files.write_text("c.txt", "text")
  assert (tmp_path / "c.txt").read_text() == "text"


@pytest.mark.parametrize("suffix", ["", "/"])
def test_a_directory_is_refused(tmp_path, suffix):
  path = f"{tmp_path}{suffix}"
  with pytest.raises(ValueError, match="directory") as caught:
    files.ReplacedFile(path)
  assert repr(path) in str(caught.value)


@pytest.mark.parametrize("path", ["", "not/there/"])
def test_a_path_without_a_name_is_refused(path):
  with pytest.raises(ValueError, match="path of a file") as caught:
    files.ReplacedFile(path)
  assert repr(path) in str(caught.value)


def test_a_pipe_is_refused_and_stays(tmp_path):
  path = tmp_path / "pipe"
  os.mkfifo(path)
  with pytest.raises(ValueError, match="regular file") as caught:
    files.ReplacedFile(path)
  assert str(path) in str(caught.value)
  assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_is_refused_also_behind_a_link(tmp_path):
  link = tmp_path / "link"
  link.symlink_to("/dev/null")
  # Nothing is opened here, so that a failure does no harm.
  for path in ("/dev/null", link):
    with pytest.raises(ValueError, match=r"regular file.*/dev/null"):
      files.ReplacedFile(path)


def test_a_symbolic_link_stays_one(tmp_path):
  target = tmp_path / "elsewhere" / "target.txt"
  target.parent.mkdir()
  target.write_text("old")
  link = tmp_path / "link.txt"
  link.symlink_to("elsewhere/target.txt")
  files.write_text(link, "new")
  assert os.readlink(link) == "elsewhere/target.txt"
  assert target.read_text() == "new"
  assert _names(target.parent) == ["target.txt"]


def test_a_dangling_link_gets_its_file(tmp_path):
  link = tmp_path / "link.txt"
  link.symlink_to("target.txt")
  files.write_text(link, "new")
  assert link.is_symlink()
  assert (tmp_path / "target.txt").read_text() == "new"


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
  path = tmp_path / "a.txt"
  with files.ReplacedFile(path) as first:
    first.write("first")
    with files.ReplacedFile(path) as second:
      second.write("second")
    assert path.read_text() == "second"
  assert path.read_text() == "first"
  assert _names(tmp_path) == ["a.txt"]


class TestOtherFileSystems:
  """ram:// is in the memory of this process."""

  @pytest.mark.parametrize("binary", [False, True])
  def test_a_file_is_replaced_as_a_whole(self, binary):
    path = f"ram://files_test/replaced/{binary}.txt"
    old, new = (b"long old", b"\x00new") if binary else ("long old", "é\n")
    for content in (old, new):
      with files.ReplacedFile(path, binary=binary) as stream:
        stream.write(content)
    with tf.io.gfile.GFile(path, "rb" if binary else "r") as stream:
      assert stream.read() == new
    assert tf.io.gfile.glob(f"{path}*") == [path]

  def test_an_exception_leaves_the_old_file_and_no_other(self):
    path = "ram://files_test/exception/a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
      with files.ReplacedFile(path) as stream:
        stream.write("new")
        stream.write(str(1 / 0))
    with tf.io.gfile.GFile(path) as stream:
      assert stream.read() == "old"
    assert tf.io.gfile.glob("ram://files_test/exception/*") == [path]

  def test_an_empty_file_is_written(self):
    path = "ram://files_test/empty/a.txt"
    with files.ReplacedFile(path):
      pass
    assert tf.io.gfile.stat(path).length == 0

  def test_a_file_needs_no_directory(self):
    files.write_text("ram://files_test.txt", "text")
    with tf.io.gfile.GFile("ram://files_test.txt") as stream:
      assert stream.read() == "text"

  def test_a_directory_is_refused(self):
    files.write_text("ram://files_test/directory/a.txt", "text")
    with pytest.raises(ValueError, match="ram://files_test/directory"):
      files.ReplacedFile("ram://files_test/directory")


# Outputs that are inputs.


@pytest.fixture
def data(tmp_path, monkeypatch):
  """A file that is read, under several names; the working directory."""
  monkeypatch.chdir(tmp_path)
  path = tmp_path / "a.tfrecord"
  path.write_text("records")
  (tmp_path / "soft").symlink_to(path)
  (tmp_path / "hard").hardlink_to(path)
  (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
  return path


@pytest.mark.parametrize(
  "name",
  ["a.tfrecord", "./a.tfrecord", "soft", "hard", "folder/a.tfrecord", "{}"],
)
def test_an_output_that_is_an_input_is_refused(data, name):
  output = name.format(data)
  with pytest.raises(ValueError, match="would replace") as caught:
    files.check_outputs(
      {"--other": "", "--output": output}, {"--data": ["", "b", data]}
    )
  for text in (f"--output={output}", str(data), "--data reads"):
    assert text in str(caught.value)


@pytest.mark.parametrize("name", ["new", "hard"])
def test_two_outputs_of_one_name_are_refused(data, name):
  with pytest.raises(ValueError, match="--a writes"):
    files.check_outputs({"--a": name, "--b": f"folder/{name}"}, {})


def test_outputs_of_their_own_are_fine(data):
  other = data.parent / "b.csv"
  other.write_text("of an earlier run")
  files.check_outputs(
    {"--a": other, "--b": "new", "--c": "", "--d": "gs://b/a.tfrecord"},
    {"--data": [data, "gone", "gs://b/c"], "--none": [""]},
  )


@pytest.mark.parametrize("other", ["ram://b/a", "ram://b//a", "ram://b/c/../a"])
def test_remote_outputs_are_told_by_their_names(other):
  with pytest.raises(ValueError, match="--output=ram://b/a would replace"):
    files.check_outputs({"--output": "ram://b/a"}, {"--data": [other]})


def test_what_is_within_a_directory(data):
  for inside in (data, "new/x", ".", "folder/folder/new"):
    assert files.is_within(inside, data.parent)
  for outside in (data.parent.parent, f"{data.parent}2", "/", "gs://b"):
    assert not files.is_within(outside, data.parent / "deep")


def test_a_local_file_needs_no_tensorflow(tmp_path):
  code = (
    "import sys, files\n"
    "files.write_text(sys.argv[1], 'text')\n"
    "sys.exit('tensorflow' in sys.modules)\n"
  )
  root = pathlib.Path(files.__file__).parent
  path = tmp_path / "a.txt"
  subprocess.run(
    [sys.executable, "-c", code, str(path)], cwd=root, timeout=60, check=True
  )
  assert path.read_text() == "text"


class TestLeftovers:
  def test_of_a_killed_process_go_and_of_a_living_one_stay(self, tmp_path):
    path = tmp_path / "a.txt"
    killed = pathlib.Path(files.temporary_name(path))
    other = pathlib.Path(files.temporary_name(tmp_path / "another.txt"))
    # Names that a user might give.
    mine = [tmp_path / f"a.txt{end}" for end in (".tmp", ".tmp-1-ab", ".old")]
    mine.append(tmp_path / f"{killed.name}.bak")
    for file in (killed, other, *mine):
      file.write_text("half")
    with files.ReplacedFile(path) as first:
      first.write("first")
      files.write_text(path, "second")
      assert path.read_text() == "second"
    assert path.read_text() == "first"
    left = sorted(file.name for file in (path, other, *mine))
    assert _names(tmp_path) == left

  def test_of_a_killed_writer_go_with_the_next(self, tmp_path):
    code = (
      "import os, sys, files\n"
      "with files.ReplacedFile(sys.argv[1]) as stream:\n"
      "  stream.write('half')\n"
      "  os.kill(os.getpid(), 9)\n"
    )
    root = pathlib.Path(files.__file__).parent
    path = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=root)
    assert len(_names(tmp_path)) == 1
    files.write_text(path, "whole")
    assert _names(tmp_path) == ["a.txt"]

  def test_where_there_are_no_locks_nothing_is_removed(
    self, tmp_path, monkeypatch
  ):
    def no_locks(*unused_args):
      raise OSError(22, "Invalid argument")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    killed = pathlib.Path(files.temporary_name(tmp_path / "a.txt"))
    killed.write_text("half")
    files.write_text(tmp_path / "a.txt", "whole")
    assert _names(tmp_path) == ["a.txt", killed.name]


class TestTemporaryDirectory:
  def test_is_gone_after_the_block(self, tmp_path):
    path = tmp_path / "served"
    with files.temporary_directory(f"{path}/") as temporary:
      new = pathlib.Path(temporary, "new")
      new.mkdir()
      path.mkdir()
      (path / "old").touch()
      # Another's is left alone while it is in work.
      with files.temporary_directory(path) as other:
        assert other != temporary
      files.replace_directory(new, path, f"{temporary}/old")
    assert _names(tmp_path) == ["served"]
    assert _names(path) == []

  def test_leftovers_go_when_the_next_has_succeeded(self, tmp_path):
    killed = pathlib.Path(files.temporary_name(tmp_path / "served"))
    (killed / "old").mkdir(parents=True)
    with pytest.raises(KeyError):
      with files.temporary_directory(tmp_path / "served"):
        raise KeyError
    assert _names(tmp_path) == [killed.name]
    with files.temporary_directory(tmp_path / "served"):
      pass
    assert _names(tmp_path) == []

  def test_what_can_not_be_replaced_stays_as_it_was(
    self, tmp_path, monkeypatch
  ):
    path = tmp_path / "served"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(FileNotFoundError):
      with files.temporary_directory(path) as temporary:
        files.replace_directory(
          f"{temporary}/missing", path, f"{temporary}/old"
        )
    assert _names(tmp_path) == ["served"]
    assert _names(path) == ["old"]


def test_what_can_not_be_written_to_is_told_before_the_work(tmp_path):
  files.require_writable(tmp_path / "not" / "there", "Mend it.")
  assert _names(tmp_path) == []
  (tmp_path / "file").touch()
  with pytest.raises(ValueError, match=r"file/eval can't .*\. Mend it\.") as e:
    files.require_writable(tmp_path / "file" / "eval", "Mend it.")
  assert "Not a directory" in str(e.value)
