"""The videos of a file, whatever its kind: arrays, records, or media.

Axes: T frames, D numbers of a feature.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from extraction import clips
from named import model_input

_RECORDS = ".tfrecord"
_ARRAYS = (".npy", ".npz")
# Of what is read in a directory; a file that is named may have any other.
_ENDINGS = {_RECORDS, *_ARRAYS, *(f".{suffix}" for suffix in clips.SUFFIXES)}
# What reading a damaged .npz raises.
_DAMAGE = (
  EOFError,
  KeyError,
  NotImplementedError,
  zipfile.BadZipFile,
  zlib.error,
)


class BrokenError(ValueError):
  """A file, or a record of it, that gives no video; the message says why."""


class Video(NamedTuple):
  """A video of a file.

  Attributes:
    file: str, as the user named it.
    video_id: str, "" but of records.
    features: {feature: array [T, D] or [D]}, as `ModelInput.stored` gives them.
  """

  file: str
  video_id: str
  features: Mapping[str, NDArray]

  @property
  def name(self) -> str:
    """What tells it from others."""
    return f"{self.file}, {self.video_id}" if self.video_id else self.file

  @property
  def num_frames(self) -> int:
    """Frames that all features have; 1 of a video-level one."""
    return min(
      len(values) if values.ndim > 1 else 1 for values in self.features.values()
    )

  def cut(self, start: int, end: int) -> "Video":
    """The video's frames from start to end."""
    features = {name: rows[start:end] for name, rows in self.features.items()}
    return self._replace(features=features)


class Sources:
  """Reads files for a model."""

  def __init__(
    self,
    inputs: model_input.ModelInput,
    directory: str,
    encoder_dirs: Sequence[str] = (),
    timeout: float = 300.0,
  ):
    """Keeps what to read for.

    Args:
      inputs: what the model takes.
      directory: str, the model's, which may have encoders' files.
      encoder_dirs: where else they may be.
      timeout: seconds that decoding a video or a sound may take.
    """
    self._inputs = inputs
    self._search = [directory, *encoder_dirs]
    self._timeout = timeout
    self._extractor: Any = None
    self._decoders: Any = None

  def close(self) -> None:
    """Ends the process that decodes."""
    if self._decoders:
      self._decoders.close()

  def videos(self, path: str) -> Iterator[Video | BrokenError]:
    """Yields the videos of a file, and why there is none where one should be.

    Raises:
      ValueError: media can't be decoded or encoded here, whatever the file.
    """
    ending = _ending(path)
    try:
      if not os.path.exists(path):
        raise BrokenError("there is no such file")
      if ending == _RECORDS:
        yield from self._of_records(path)
      elif ending in _ARRAYS:
        yield Video(path, "", self._stored(self._arrays(path)))
      else:
        yield Video(path, "", self._stored(self._media(path)))
    except BrokenError as error:
      yield error

  def _stored(self, features):
    try:
      return self._inputs.stored(features)
    except ValueError as error:
      raise BrokenError(str(error)) from None

  def _of_records(self, path):
    number = 0
    try:
      for number, record in enumerate(tf.python_io.tf_record_iterator(path), 1):
        try:
          yield Video(path, *self._inputs.of_record(record))
        except ValueError as error:
          yield BrokenError(f"record {number - 1}: {error}")
    except tf.errors.OpError as error:
      raise BrokenError(f"record {number}: {error.message}") from None

  def _arrays(self, path):
    """Of an .npz by name, or of an .npy that of the model's one feature."""
    names = [feature.name for feature in self._inputs.features]
    try:
      found = np.load(path, allow_pickle=False)
      if isinstance(found, np.ndarray):
        if len(names) > 1:
          raise BrokenError(
            f"it has one array, and the model the features {', '.join(names)}: "
            "give an .npz of them"
          )
        return {names[0]: found}
      with found:
        missing = [name for name in names if name not in found.files]
        if missing:
          raise BrokenError(
            f"it has no array {missing[0]!r}, but {', '.join(found.files)}"
          )
        return {name: found[name] for name in names}
    except BrokenError:
      raise
    except (OSError, ValueError, *_DAMAGE) as error:
      raise BrokenError(f"it holds no array of NumPy's: {error}") from None

  def _media(self, path):
    """The features of a video or a sound."""
    if not self._inputs.extractors:
      raise BrokenError(
        "the model does not know what makes its features from media, as its "
        "features.json names no extractor: give arrays (.npz) or records "
        f"({_RECORDS})"
      )
    if not self._extractor:
      # Loads encoders, which need packages of their own.
      from extraction import decoding, extractor

      try:
        self._extractor = extractor.Extractor(
          extractor.merge(self._inputs.extractors), search=self._search
        )
      except ValueError as error:
        # Not of this file: no other one could be decoded either.
        raise ValueError(
          f"The encoders of the model's features.json can't be had: {error} "
          "Their files are looked for with the model and in --encoder_dir."
        ) from None
      self._decoders = decoding.Decoders(self._extractor, 1, self._timeout)
    try:
      return self._extractor.encode(self._decoders.start(path)())
    except (OSError, ValueError) as error:
      raise BrokenError(str(error)) from None


def expand(paths: Sequence[str]) -> list[str]:
  """The files, and in order those in the directories among them.

  Of a directory, and of those in it, files with the endings of arrays, records
  and media.
  """
  found = []
  for path in paths:
    if not os.path.isdir(path):
      found.append(path)
      continue
    for directory, directories, names in os.walk(path):
      directories.sort()
      found += [
        os.path.join(directory, name)
        for name in sorted(names)
        if _ending(name) in _ENDINGS and not name.startswith(".")
      ]
  return found


def _ending(path):
  return os.path.splitext(path)[1].lower()
