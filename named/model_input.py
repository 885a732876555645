"""A user's arrays as a model takes them: as its training data are stored.

    floats of an encoder -> PCA, if the training data had one -> bytes or floats
    as in the records -> at most max_frames

So a video of the training set gives the same input as its record.

Axes: T frames, D numbers of a feature.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import ArrayLike, NDArray

import data_flags
from console import flag_fields
from extraction import pca as pca_lib
from records import features_file, writer

# Of one video: arrays by the features' names, or one where there is one.
Video = Mapping[str, ArrayLike] | ArrayLike


class ModelInput:
  """Makes what a model takes.

  Attributes:
    features: list of `base.Feature`, those of the model.
    is_frame_level: bool, whether a feature of a video is [T, D], not [D].
    dtype: str, one of `features_file.DTYPES`.
    extractors: list of dict, of each feature the declaration of what makes it
      from media; empty if that is not known of all.
    fps: float, frames a second: the extractors', or 1, as in YouTube-8M.
  """

  def __init__(self, values: Mapping[str, Any], directory: str):
    """Takes the facts.

    Args:
      values: dict of the model flags.
      directory: where features.json and its PCA files are, if there are any.

    Raises:
      ValueError: they can't be understood, or are of other features.
    """
    reading = flag_fields.from_values(data_flags.Reading, values)
    self.features = reading.features
    self.is_frame_level = reading.frame_features
    self.dtype = reading.feature_dtype if self.is_frame_level else "float32"
    self._max_frames = reading.max_frames
    self._pcas: dict[str, pca_lib.Pca] = {}
    self.extractors: list[Mapping[str, Any]] = []
    known: dict[str, features_file.StoredFeature] = {}
    if description := features_file.load(directory):
      known = {each.name: each for each in description.features}
    described = [known[f.name] for f in self.features if f.name in known]
    for each in described:
      if each.pca:
        path = os.path.join(directory, each.pca)
        self._pcas[each.name] = pca_lib.load(path)
    extractors = [each.extractor for each in described if each.extractor]
    if len(extractors) == len(self.features):
      self.extractors = extractors
    self.fps = float(extractors[0]["fps"]) if self.extractors else 1.0

  @property
  def size(self) -> int:
    """D, of all features together."""
    return sum(feature.size for feature in self.features)

  @property
  def array_type(self) -> str:
    """The NumPy type of what `stored` returns."""
    return "float32" if self.dtype == "float_list" else self.dtype

  def stored(self, video: Video) -> dict[str, NDArray]:
    """One video as records would hold it.

    Args:
      video: {feature: [T, D] (of a video-level model [D])}, or the array where
        the model has one feature. Floats are as an encoder gives them: a PCA of
        the training data is applied where D is its input's. uint8 is taken for
        what records of bytes hold.

    Returns:
      {feature: array}, T >= 1, in the model's order.

    Raises:
      ValueError: a feature that is missing, not known, of another shape, or not
        finite.
    """
    if not isinstance(video, Mapping):
      if len(self.features) > 1:
        raise ValueError(
          f"The model has the features {self._told()}: give a dict of arrays "
          "by these names."
        )
      video = {self.features[0].name: video}
    names = [feature.name for feature in self.features]
    if set(video) != set(names):
      raise ValueError(
        f"Need the features {self._told()}, got {', '.join(map(repr, video))}."
      )
    return {name: self._stored(name, np.asarray(video[name])) for name in names}

  def cut(self, stored: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
    """The frames that readers take: as many of each, at most max_frames."""
    if not self.is_frame_level:
      return stored
    count = min(self._max_frames, *map(len, stored.values()))
    return {name: rows[:count] for name, rows in stored.items()}

  def _told(self) -> str:
    """The features and their shapes, in words."""
    axes = "frames, " if self.is_frame_level else ""
    return ", ".join(
      f"{each.name!r} [{axes}{each.size}]" for each in self.features
    )

  def _stored(self, name, values):
    """One feature of `stored`."""
    feature = next(each for each in self.features if each.name == name)
    pca = self._pcas.get(name)
    is_bytes = values.dtype == np.uint8 and self.dtype == "uint8"
    rank = 2 if self.is_frame_level else 1
    sizes = [feature.size]
    if pca and not is_bytes:
      sizes.append(len(pca.mean))
    if values.ndim != rank or not values.size or values.shape[-1] not in sizes:
      raise ValueError(
        f"Need {self._told()}, at least one frame, got {name!r} of shape "
        f"{list(values.shape)}."
      )
    if is_bytes:
      return values
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
      raise ValueError(f"Need finite numbers, got {values.dtype} of {name!r}.")
    values = values.astype(np.float32)
    if pca and values.shape[-1] == len(pca.mean):
      values = pca.apply(values)
    if self.dtype == "uint8":
      return writer.quantize(values, feature.low, feature.high)
    return values.astype(self.array_type)

  def of_record(self, record: bytes) -> tuple[str, dict[str, NDArray]]:
    """(id, {feature: array}) of a serialised record of the model's kind.

    Raises:
      ValueError: readers would skip the record; the message says why.
    """
    sizes = {feature.name: feature.size for feature in self.features}
    kind: Any = tf.train.Example
    if self.is_frame_level:
      kind = tf.train.SequenceExample
    try:
      example = kind.FromString(record)
    except Exception:  # Whatever the protobuf library in use raises.
      raise ValueError(f"it is no {kind.__name__}") from None
    context = example.context if self.is_frame_level else example.features
    ids = [*context.feature["id"].bytes_list.value]
    ids += context.feature["video_id"].bytes_list.value
    if not ids:
      raise ValueError("it has no id")
    arrays = {}
    for name, size in sizes.items():
      frames = [context.feature[name]]
      if self.is_frame_level:
        frames = example.feature_lists.feature_list[name].feature
      rows = [self._numbers(frame) for frame in frames]
      if not rows or {row.shape for row in rows} != {(size,)}:
        raise ValueError(
          f"it has no frame of {name!r}, or one of another size than {size}"
        )
      arrays[name] = np.stack(rows) if self.is_frame_level else rows[0]
      if not np.isfinite(arrays[name]).all():
        raise ValueError(f"{name!r} has a number that is not finite")
    return ids[0].decode(errors="replace"), arrays

  def _numbers(self, frame):
    """The numbers of a frame, a tf.train.Feature, as they are stored."""
    if not self.is_frame_level or self.dtype == "float_list":
      return np.array(frame.float_list.value, np.float32)
    strings = frame.bytes_list.value
    stored = np.dtype(self.dtype).newbyteorder("<")
    if len(strings) != 1 or len(strings[0]) % stored.itemsize:
      return np.zeros(0, self.dtype)
    return np.frombuffer(strings[0], stored).astype(self.dtype)

  def record(self, video_id: bytes, stored: Mapping[str, NDArray]) -> bytes:
    """What `stored` returned as a serialised record."""
    if self.is_frame_level:
      return writer.frame_record(video_id, stored, dtype=self.dtype)
    return writer.video_record(video_id, stored)
