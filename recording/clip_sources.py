"""Clips for make_records.py: their ids, and their features one by one.

A source has `ids`, in a fixed order, `names` of features, and `load`, which
gives a clip's {name: float32 [T, D]} or raises `ClipError`. Nothing holds more
than one clip in memory. Axes: T frames, D numbers of a frame.
"""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from console import messages
from recording import clip_tables

Clip = dict[str, NDArray[np.float32]]

# The name of a feature that nothing names.
DEFAULT_NAME = "features"
_ENDINGS = (".npz", ".npy")
# What these files begin with.
_MAGIC = {".npz": b"PK", ".npy": b"\x93NUMPY"}
_SHOWN = 5


class ClipError(Exception):
  """A clip that can't be used; the message says why."""


class Source(Protocol):
  """What gives clips.

  Attributes:
    ids: of each clip, all different.
    names: of the features.
    skipped: (file, why) of what is none of the clips.
  """

  ids: Sequence[str]
  names: Sequence[str]
  skipped: list[tuple[str, str]]

  def load(self, clip_id: str) -> Clip:
    """The features of a clip."""

  def path(self, clip_id: str) -> str:
    """Where it comes from, for messages."""

  def size(self, clip_id: str) -> int:
    """How much there is of it, in any unit."""


def as_frames(values: NDArray, name: str) -> NDArray[np.float32]:
  """An array as frames: float32 [T, D].

  Args:
    values: [T, D], or [D] for one frame.
    name: the feature's, for the error.

  Raises:
    ClipError: other axes, no frame, numbers that are none or not finite.
  """
  if values.dtype.kind not in "fiub":
    raise ClipError(f"{name!r} holds {values.dtype}, where numbers are wanted")
  if values.ndim == 1:
    values = values[np.newaxis]
  if values.ndim != 2:
    raise ClipError(
      f"{name!r} has the shape {list(values.shape)}, where [frames, numbers] "
      "is wanted"
    )
  if not values.size:
    raise ClipError(f"{name!r} has no frame: its shape is {list(values.shape)}")
  with np.errstate(over="ignore"):  # Infinite, which is told below.
    values = np.ascontiguousarray(values, np.float32)
  bad = ~np.isfinite(values)
  if bad.any():
    frame, number = np.argwhere(bad)[0]
    raise ClipError(
      f"{name!r} has {bad.sum()} numbers that are not finite, the first "
      f"{values[frame, number]} in frame {frame}"
    )
  return values


class ArrayFolder:
  """A folder of .npz files, of .npy, or of folders of .npy, a feature each.

  Attributes are those of `Source`.
  """

  def __init__(
    self,
    directory: str,
    names: Sequence[str] = (),
    folders_are_features: bool = True,
  ):
    """Lists the files.

    Args:
      directory: str.
      names: of the features; those of the files if not given.
      folders_are_features: bool, or else folders of .npy hold clips.

    Raises:
      ValueError: no such files, or not of one kind.
    """
    self._directory = directory
    self._folders_are_features = folders_are_features
    self.skipped: list[tuple[str, str]] = []
    found = list(_walk(directory))
    kinds = collections.Counter(os.path.splitext(path)[1] for path in found)
    if not found:
      raise ValueError(f"--features={directory} holds no .npz or .npy file.")
    if len(kinds) > 1:
      raise ValueError(
        f"--features={directory} holds {kinds['.npz']} .npz and "
        f"{kinds['.npy']} .npy files: give a folder of one kind."
      )
    is_npz = ".npz" in kinds
    self._clips = self._of_npz(found) if is_npz else self._of_npy(found, names)
    self.ids: Sequence[str] = list(self._clips)
    self.names: Sequence[str] = list(names) or (
      self._names_in_npz() if is_npz else self._features
    )

  def _of_npz(self, found):
    return {_stem(path): {"": path} for path in found}

  def _of_npy(self, found, names):
    """{id: {feature: path}}; sub-folders are features."""
    loose = [path for path in found if "/" not in path]
    folders = {path.split("/")[0] for path in found if "/" in path}
    if not folders or not self._folders_are_features:
      if len(names) > 1:
        raise ValueError(
          f"--features={self._directory} holds .npy files of one feature, got "
          f"--feature_names={','.join(names)}: give each feature a folder of "
          "its own there, or write .npz files."
        )
      self._features = list(names) or [DEFAULT_NAME]
      return {_stem(path): {self._features[0]: path} for path in found}
    self._features = sorted(folders)
    self.skipped += [(path, "beside folders of features") for path in loose]
    clips: dict[str, dict[str, str]] = {}
    for path in found:
      feature, _, rest = path.partition("/")
      if rest:
        clips.setdefault(_stem(rest), {})[feature] = path
    if len(folders) > 1 and all(
      len(of_clip) == 1 for of_clip in clips.values()
    ):
      some = ", ".join(sorted(folders)[:_SHOWN])
      raise ValueError(
        f"--features={self._directory}: a folder in it is a feature, and holds "
        f"all clips, but {some} have no clip in common. If they are classes, "
        "give --label_folders."
      )
    return dict(sorted(clips.items()))

  def _names_in_npz(self):
    """The names of the arrays in most of some files, of frames if there are.

    Files may hold other facts, such as a number of frames a second.
    """
    frames: collections.Counter = collections.Counter()
    others: collections.Counter = collections.Counter()
    count = 0
    for clip_id in spread(self.ids):
      try:
        with self._open(self._clips[clip_id][""]) as arrays:
          shapes = {name: arrays[name].ndim for name in arrays.files}
      except Exception:  # `load` will tell.
        continue
      count += 1
      others.update(shapes)
      frames.update(name for name, axes in shapes.items() if axes == 2)
    for counts in (frames, others):
      if names := [name for name, n in counts.items() if 2 * n > count]:
        return names
    return [DEFAULT_NAME]

  def _open(self, path):
    """An .npz or .npy file, without running what it may hold."""
    full = os.path.join(self._directory, path)
    try:
      with open(full, "rb") as stream:
        head = stream.read(6)
      # Of anything else numpy says that it holds Python objects.
      ending = os.path.splitext(path)[1]
      if not head.startswith(_MAGIC[ending]):
        raise ValueError(f"it is no {ending} file" if head else "it is empty")
      return np.load(full, allow_pickle=False)
    except Exception as error:  # Of zipfile, of numpy, of Python's parser.
      raise ClipError(_reason(error)) from None

  def load(self, clip_id: str) -> Clip:
    """See `Source`."""
    of_clip = self._clips[clip_id]
    if "" in of_clip:
      with self._open(of_clip[""]) as arrays:
        return {name: self._member(arrays, name) for name in self.names}
    missing = [name for name in self.names if name not in of_clip]
    if missing:
      raise ClipError(f"there is no file of it in {missing[0]}")
    return {
      name: as_frames(self._open(of_clip[name]), name) for name in self.names
    }

  def _member(self, arrays, name):
    if name not in arrays.files:
      raise ClipError(f"no {name!r} among its arrays {arrays.files}")
    try:
      values = arrays[name]
    except Exception as error:  # Read only now: damaged, or Python objects.
      raise ClipError(f"{name!r}: {_reason(error)}") from None
    return as_frames(values, name)

  def path(self, clip_id: str) -> str:
    """See `Source`."""
    return next(iter(self._clips[clip_id].values()))

  def size(self, clip_id: str) -> int:
    """See `Source`."""
    paths = self._clips[clip_id].values()
    return sum(os.path.getsize(os.path.join(self._directory, p)) for p in paths)


def has_arrays(directory: str) -> bool:
  """Whether there is an .npz or .npy file below a directory."""
  return any(True for _ in _walk(directory))


def _walk(directory):
  """Yields the arrays' paths below a directory, with /, sorted."""
  if not os.path.isdir(directory):
    raise ValueError(f"--features={directory} is no folder.")
  for parent, folders, names in os.walk(directory):
    folders.sort()
    for name in sorted(names):
      # A Mac leaves ._name beside a file.
      if name.endswith(_ENDINGS) and not name.startswith("."):
        path = os.path.relpath(os.path.join(parent, name), directory)
        yield path.replace(os.sep, "/")


def _stem(path):
  return os.path.splitext(path)[0]


def _reason(error):
  """Why a file can't be read, in a line."""
  text = (str(error).splitlines() or [""])[0]
  if "allow_pickle" in text or "Object arrays" in text:
    return "it holds Python objects, which may run code: store plain numbers"
  return messages.cut(f"{text or type(error).__name__}", 200)


def spread(ids: Sequence[str], count: int = 50) -> list[str]:
  """At most so many of a list, evenly spread."""
  return (
    [ids[i * len(ids) // count] for i in range(count)]
    if (len(ids) > count)
    else list(ids)
  )


class Table:
  """A CSV or Parquet file, its rows copied into files of plain numbers first.

  Rows of a clip stand together there, so that clips can be read in any order.
  Attributes are those of `Source`.
  """

  def __init__(self, path: str, work_dir: str, columns: clip_tables.Columns):
    """Copies the rows, unless an earlier run did.

    Args:
      path: of the file.
      work_dir: where to copy to; made if need be.
      columns: which columns there are, and what they are.

    Raises:
      ValueError: rows of one clip that do not stand together.
    """
    self._path, self._dir = path, work_dir
    self.names: Sequence[str] = list(columns.features)
    index = clip_tables.copied(path, work_dir, columns)
    self._rows: Mapping[str, Mapping[str, list[int]]] = index["clips"]
    self.skipped = [(row, why) for row, why in index["skipped"]]
    self._sizes: Mapping[str, int] = index["sizes"]
    self.ids: Sequence[str] = list(self._rows)

  def load(self, clip_id: str) -> Clip:
    """See `Source`."""
    found = {}
    for name in self.names:
      start, count = self._rows[clip_id][name]
      size = self._sizes[name]
      path = os.path.join(self._dir, clip_tables.file_of(self._sizes, name))
      values = np.fromfile(path, "<f4", count * size, offset=start * size * 4)
      found[name] = as_frames(values.reshape(count, size), name)
    return found

  def path(self, clip_id: str) -> str:
    """See `Source`."""
    return f"{os.path.basename(self._path)}, {clip_id}"

  def size(self, clip_id: str) -> int:
    """See `Source`."""
    return sum(count for _, count in self._rows[clip_id].values())
