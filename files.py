"""Files that are there whole or not at all.

Any path that TensorFlow can open will do; TensorFlow is imported only for one
that is not local, as it takes seconds to load.
"""

import contextlib
import errno
import os
import secrets
import typing
from collections.abc import Iterable, Mapping

_Path = str | os.PathLike
_BUFFER_BYTES = 1 << 20
# What only writing fails with.
_NO_ROOM = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC)


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
    # The random part lets two threads of a process write the same file.
    self._temporary = f"{self.path}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    parent = os.path.dirname(self.path)
    if self._is_local:
      os.makedirs(parent, exist_ok=True)
      text = {} if self._binary else {"encoding": "utf-8", "newline": "\n"}
      self._file = open(
        self._temporary,
        "xb" if self._binary else "x",
        buffering=_BUFFER_BYTES,
        **text,
      )
    else:
      if "://" in parent:  # Not of "ram://file", whose dirname is "ram:".
        gfile().makedirs(parent)
      self._file = gfile().GFile(self._temporary, "wb" if self._binary else "w")
    return self._file

  def __exit__(self, exc_type, error, unused_traceback) -> None:
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
    self._file.close()
    if self._is_local:
      os.replace(self._temporary, self.path)
    else:
      gfile().rename(self._temporary, self.path, overwrite=True)

  def _name(self, error: BaseException) -> None:
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


def gfile():
  """tf.io.gfile."""
  # Imported late: TensorFlow takes seconds to load, and a local blend does
  # without it.
  from tensorflow.io import gfile

  return gfile
