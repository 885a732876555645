"""Files and directories that are there whole or not at all.

Until it is whole, a file or directory has a temporary name, of a form that no
user gives, and its process holds a lock on it. A killed process's lock is gone
with it: whoever then writes the same path removes what was left. On remote file
systems and those without locks, leftovers stay.

Any path that TensorFlow can open will do; TensorFlow is imported only for one
that is not local, as it takes seconds to load.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import typing
from collections.abc import Iterable, Mapping

from absl import logging

_Path = str | os.PathLike
_BUFFER_BYTES = 1 << 20
# What only writing fails with.
_NO_ROOM = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)
# In every temporary name, so that none can be a user's.
_MARK = ".learnable-pooling-tmp-"


class ReplacedFile:
  """A file that appears under its name when the `with` block succeeds.

  Until then it has a temporary name in the same directory, which is made if
  need be. If the block raises, what was written is removed, and a file that had
  the name before stays as it was.
  """

  def __init__(self, path: _Path, binary: bool = False):
    """Keeps the path.

    Args:
      path: local, or of any file system TensorFlow knows.
      binary: bool, take bytes rather than text (UTF-8, line ends as written).

    Raises:
      ValueError: the path of a directory or a device.
    """
    path = os.fspath(path)
    self._binary = binary
    self._is_local = "://" not in path
    if not path or path.endswith("/") or self._is_dir(path):
      raise ValueError(f"Need the path of a file, got a directory: {path!r}.")
    if self._is_local:
      # So that a symbolic link stays one, and what it points to is replaced.
      path = os.path.realpath(path)
      if os.path.exists(path) and not os.path.isfile(path):
        # Renaming onto /dev/null would replace it for the whole machine.
        raise ValueError(f"Need the path of a regular file, got {path!r}.")
    self.path = path

  def __enter__(self) -> typing.IO:
    parent, name = os.path.split(self.path)
    if self._is_local:
      os.makedirs(parent, exist_ok=True)
      remove_abandoned(parent, re.escape(name))
      self._open_local()
    else:
      if "://" in parent:  # Not of "ram://file", whose dirname is "ram:".
        gfile().makedirs(parent)
      self._temporary = temporary_name(self.path)
      self._file = gfile().GFile(self._temporary, "wb" if self._binary else "w")
    return self._file

  def _open_local(self) -> None:
    while True:
      self._temporary = temporary_name(self.path)
      self._file = open(
        self._temporary,
        "xb" if self._binary else "x",
        buffering=_BUFFER_BYTES,
        encoding=None if self._binary else "utf-8",
        newline=None if self._binary else "\n",
      )
      if _hold(self._file.fileno(), self._temporary):
        return
      self._file.close()

  def __exit__(
    self,
    exc_type: type[BaseException] | None,
    error: BaseException | None,
    unused_traceback: object,
  ) -> None:
    committed = False
    try:
      if exc_type is None:
        self._commit()
        committed = True
      else:
        self._name(error)
    except OSError as commit_error:
      self._name(commit_error)
      raise
    finally:
      # Also when the commit fails, say because the disk is full.
      if not committed:
        self._discard()

  def _commit(self) -> None:
    # TensorFlow's file is not there before something is written to it.
    self._file.write(b"" if self._binary else "")
    self._file.flush()
    if self._is_local:
      # Or a crash of the machine could leave the new name on an empty file.
      os.fsync(self._file.fileno())
      # Before the lock goes with closing.
      os.replace(self._temporary, self.path)
      self._file.close()
    else:
      self._file.close()
      gfile().rename(self._temporary, self.path, overwrite=True)

  def _name(self, error: BaseException | None) -> None:
    """Adds to an error of writing what it is that can't be written."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
      error.filename = error.filename or self.path

  def _discard(self) -> None:
    # Whatever fails here must not hide the exception that led here.
    with contextlib.suppress(Exception):
      self._file.close()
    with contextlib.suppress(Exception):
      remove = os.remove if self._is_local else gfile().remove
      remove(self._temporary)

  def _is_dir(self, path: str) -> bool:
    return os.path.isdir(path) if self._is_local else gfile().isdir(path)


def write_text(path: _Path, text: str) -> None:
  """Writes a text file, replacing it as a whole."""
  with ReplacedFile(path) as stream:
    stream.write(text)


def read_text(path: _Path) -> str:
  """The text of a UTF-8 file.

  Raises:
    FileNotFoundError: there is none of that path, remote or not.
    UnicodeDecodeError: it is no text.
  """
  path = os.fspath(path)
  if "://" not in path:
    with open(path, encoding="utf-8") as stream:
      return stream.read()
  if not gfile().exists(path):
    raise FileNotFoundError(errno.ENOENT, "no such file", path)
  with gfile().GFile(path) as stream:
    return stream.read()


def exists(path: _Path) -> bool:
  """Whether there is a file or directory of that path."""
  path = os.fspath(path)
  return gfile().exists(path) if "://" in path else os.path.exists(path)


def check_outputs(
  outputs: Mapping[str, _Path], inputs: Mapping[str, Iterable[_Path]]
) -> None:
  """Refuses to replace what is read, or one output by another.

  Links of either kind don't deceive it.

  Args:
    outputs: {what names it, such as "--output_file": path to be written, or ""
      for none}.
    inputs: {what names them: paths that are read, or ""}.

  Raises:
    ValueError: an output is one of the inputs, or another output.
  """
  names = {
    _identity(path): f"{path}, which {name} reads"
    for name, paths in inputs.items()
    for path in paths
    if path
  }
  for name, path in outputs.items():
    if not path:
      continue
    identity = _identity(path)
    if identity in names:
      raise ValueError(f"{name}={path} would replace {names[identity]}.")
    names[identity] = f"{path}, which {name} writes"


def _identity(path: _Path) -> str | tuple[int, int]:
  """What is equal for two paths of one file."""
  path = os.fspath(path).removeprefix("file://")
  if "://" in path:
    return os.path.normpath(path)
  try:
    found = os.stat(path)
  except OSError:
    return os.path.realpath(path)
  return found.st_dev, found.st_ino


def is_within(path: _Path, directory: _Path) -> bool:
  """Whether a local path is a local directory, or somewhere below it."""
  top = os.path.realpath(directory)
  return os.path.commonpath([os.path.realpath(path), top]) == top


@contextlib.contextmanager
def temporary_directory(path: _Path) -> typing.Iterator[str]:
  """Yields a new directory beside a path, which is gone after the block.

  What killed processes left so for the same path goes after a block that
  succeeds: until then it may hold what they were about to replace.

  Args:
    path: what is to be made from the directory's content.
  """
  path = os.fspath(path).rstrip("/")
  if "://" in path:
    temporary = temporary_name(path)
    gfile().makedirs(temporary)
    try:
      yield temporary
    finally:
      gfile().rmtree(temporary)
    return
  parent, name = os.path.split(os.path.abspath(path))
  os.makedirs(parent, exist_ok=True)
  with contextlib.ExitStack() as stack:
    is_held = False
    while not is_held:
      temporary = temporary_name(path)
      os.mkdir(temporary)
      descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
      stack.callback(os.close, descriptor)
      is_held = _hold(descriptor, temporary)
    # What can't be removed is left for the next to remove.
    stack.callback(shutil.rmtree, temporary, ignore_errors=True)
    yield temporary
  remove_abandoned(parent, re.escape(name))


def replace_directory(new: _Path, path: _Path, aside: _Path) -> None:
  """Renames a directory, and first one of that name out of its way."""
  rename = gfile().rename if "://" in os.fspath(path) else os.rename
  exists = gfile().exists(path)
  if exists:
    rename(path, aside)
  try:
    rename(new, path)
  except BaseException:
    if exists:
      rename(aside, path)
    raise


def temporary_name(path: _Path) -> str:
  """A new name beside a path, for what will be renamed to it."""
  return f"{os.fspath(path)}{_MARK}{secrets.token_hex(4)}"


def remove_abandoned(directory: _Path, names: str) -> None:
  """Deletes the temporary files and directories of killed processes.

  Args:
    directory: where they are; nothing is done if it is not local.
    names: regular expression of the whole names that they would have got.
  """
  directory = os.fspath(directory)
  if "://" in directory or not os.path.isdir(directory):
    return
  temporary = re.compile(rf"(?:{names}){re.escape(_MARK)}[0-9a-f]{{8}}")
  for name in filter(temporary.fullmatch, os.listdir(directory)):
    path = os.path.join(directory, name)
    try:
      # Not through a link, and without waiting for a pipe's other end.
      flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
      descriptor = os.open(path, flags)
    except OSError:  # Its process has just finished or removed it.
      continue
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if os.path.isdir(path):
        shutil.rmtree(path)
      else:
        os.remove(path)
      logging.info("Removed %s, which a killed process had left.", path)
    except BlockingIOError:
      pass  # In work.
    except OSError as error:
      logging.warning("%s is left over and stays: %s.", path, error.strerror)
    finally:
      os.close(descriptor)


def _hold(descriptor: int, path: str) -> bool:
  """Locks a new file or directory; whether `remove_abandoned` spared it."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
  except OSError:
    return True  # No locks here: then nobody removes anything.
  return os.path.exists(path)


def require_writable(directory: _Path, advice: str) -> None:
  """Raises ValueError, ending in advice, if no file can be made in a directory.

  If it is not there, where it would be made is tried; a remote one is not.
  """
  directory = os.fspath(directory)
  if "://" in directory:
    return
  existing = os.path.abspath(directory)
  while not os.path.lexists(existing):
    existing = os.path.dirname(existing)
  try:
    tempfile.TemporaryFile(dir=existing).close()
  except OSError as error:
    raise ValueError(
      f"{directory} can't be written to: {error.strerror}. {advice}"
    ) from None


def gfile():
  """tf.io.gfile."""
  # Imported late: TensorFlow takes seconds to load, and who writes a local CSV
  # does without it.
  from tensorflow.io import gfile

  return gfile
