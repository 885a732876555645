"""Writes data sets in YouTube-8M's formats, as `readers.py` reads them.

A frame-level record is a tf.SequenceExample: a context with the id, the labels
and, of segments, the ratings; and for each feature a list of frames, each one
string of uint8. A video-level record is a tf.Example of floats.

    frames = {"rgb": writer.quantize(rgb), "audio": writer.quantize(audio)}
    record = writer.frame_record(b"id of the video", frames, labels=[3, 14])
    writer.write_shards([path], [[record]])
"""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import ArrayLike, NDArray

import files

# A rated segment: (first frame, class, score in [0, 1]).
Rating = tuple[int, int, float]


def quantize(
  values: NDArray, low: float = -2.0, high: float = 2.0
) -> NDArray[np.uint8]:
  """Maps floats to bytes, as YouTube-8M does; clips beyond about the range."""
  span = high - low
  steps = values + (-low - span / 512)
  steps *= 255 / span
  np.rint(steps, out=steps)
  return np.clip(steps, 0, 255, out=steps).astype(np.uint8)


def dequantize(
  values: NDArray, low: float = -2.0, high: float = 2.0
) -> NDArray:
  """Maps bytes, or means of bytes, to floats, as models do."""
  span = high - low
  return values * (span / 255) + (span / 512 + low)


def frame_record(
  video_id: bytes | None,
  features: Mapping[str, Sequence | NDArray],
  labels: Sequence[int] | None = None,
  *,
  ratings: Sequence[Rating] | None = None,
  id_key: str = "id",
  dtype: str = "uint8",
  check: bool = True,
) -> bytes:
  """A serialized frame-level record.

  Args:
    video_id: not empty.
    features: {name: uint8 [T, D], or T strings of D bytes}, of one T; with
      another dtype floats [T, D].
    labels: classes from 0; None for no labels.
    ratings: of segments; None for none.
    id_key: "id", or "video_id" as in the files of 2017.
    dtype: how to store frames, one of `features_file.DTYPES`.
    check: whether to refuse what readers would skip or cut.

  Raises:
    ValueError: no id, a negative label, no frames, frames that are no bytes (or
      finite floats), or features of different lengths.
  """
  if check:
    _check_context(video_id, labels)
    lengths = {name: len(frames) for name, frames in features.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
      raise ValueError(f"Need as many frames >= 1 of each, got {lengths}.")
    for name, frames in features.items():
      _check_frames(name, frames, dtype)
  context = _context(video_id, labels, id_key)
  if ratings is not None:
    starts, classes, scores = zip(*ratings) if ratings else ((), (), ())
    context["segment_start_times"] = _integers(starts)
    context["segment_labels"] = _integers(classes)
    context["segment_scores"] = _floats(scores)
  lists = {
    name: tf.train.FeatureList(
      feature=[_frame(frame, dtype) for frame in frames]
    )
    for name, frames in features.items()
  }
  example = tf.train.SequenceExample(
    context=tf.train.Features(feature=context),
    feature_lists=tf.train.FeatureLists(feature_list=lists),
  )
  # Features are a map, whose order is otherwise left to chance.
  return example.SerializeToString(deterministic=True)


def video_record(
  video_id: bytes | None,
  features: Mapping[str, ArrayLike],
  labels: Sequence[int] | None = None,
  *,
  id_key: str = "id",
  check: bool = True,
) -> bytes:
  """A serialized video-level record.

  Args:
    video_id: not empty.
    features: {name: floats [D]}.
    labels: classes from 0; None for no labels.
    id_key: "id", or "video_id" as in the files of 2017.
    check: whether to refuse what readers would skip.

  Raises:
    ValueError: no id, a negative label, or numbers that are not finite.
  """
  if check:
    _check_context(video_id, labels)
    for name, values in features.items():
      if np.ndim(values) != 1 or not np.all(np.isfinite(values)):
        raise ValueError(
          f"Need finite numbers [D] of {name!r}, got {values!r}."
        )
  context = _context(video_id, labels, id_key)
  context |= {name: _floats(values) for name, values in features.items()}
  example = tf.train.Example(features=tf.train.Features(feature=context))
  return example.SerializeToString(deterministic=True)


def shard_paths(directory: str, name: str, count: int) -> list[str]:
  """Paths of a set's shards: `name-00000-of-00002.tfrecord` and so on."""
  return [
    os.path.join(directory, f"{name}-{shard:05d}-of-{count:05d}.tfrecord")
    for shard in range(count)
  ]


def write_shards(
  paths: Sequence[str],
  shards: Iterable[Iterable[bytes]],
  stale: Iterable[str] = (),
) -> None:
  """Writes TFRecord files of one directory, all of them or none.

  They have temporary names until the last is whole; what fails or is killed
  before leaves the directory's earlier files as they were. Files of the same
  names are replaced.

  Args:
    paths: in one directory, which is made if missing.
    shards: of each path, its serialized records. They may be generators: one
      record at a time is asked for.
    stale: paths of files to delete when the new ones take their names.

  Raises:
    OSError: the directory can't be made or written to.
    ValueError: not as many shards as paths.
  """
  gfile = files.gfile()
  try:
    with files.temporary_directory(paths[0]) as temporary:
      # Not *.tfrecord: a reader of `train*` passes over what is not whole.
      written = [os.path.join(temporary, str(i)) for i in range(len(paths))]
      for path, records in zip(written, shards, strict=True):
        with tf.io.TFRecordWriter(path) as writer:
          for record in records:
            writer.write(record)
        _sync(path)
      for path in stale:
        gfile.remove(path)
      for source, path in zip(written, paths):
        gfile.rename(source, path, overwrite=True)
  except tf.errors.OpError as error:
    raise OSError(str(error)) from error  # A full disk, for instance.


def _sync(path):
  """Brings a local file to the disk, before its name promises that."""
  if "://" not in path:
    with open(path, "rb") as stream:
      os.fsync(stream.fileno())


def _check_context(video_id, labels):
  if not video_id:
    raise ValueError(f"Need an id, got {video_id!r}.")
  if labels is not None and any(label < 0 for label in labels):
    raise ValueError(f"Need labels >= 0, got {list(labels)} of {video_id!r}.")


def _frame(values, dtype):
  """A frame as it is stored."""
  if dtype == "float_list":
    return _floats(values)
  if dtype != "uint8":
    values = np.asarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()
  return _strings([bytes(values)])


def _check_frames(name, frames, dtype):
  if dtype != "uint8":
    if np.ndim(frames) != 2 or not np.all(np.isfinite(frames)):
      raise ValueError(
        f"Need finite numbers [T, D] of {name!r}, got {np.shape(frames)}."
      )
    return
  is_array = isinstance(frames, np.ndarray)
  if is_array and (frames.dtype != np.uint8 or frames.ndim != 2):
    raise ValueError(
      f"Need uint8 [T, D] of {name!r} (see `quantize`), got {frames.dtype} "
      f"{list(frames.shape)}."
    )
  if len({len(frame) for frame in frames}) != 1:
    raise ValueError(f"Need frames of one size of {name!r}.")


def _context(video_id, labels, id_key):
  """What both formats share: {key: feature}."""
  context = {}
  if video_id is not None:
    context[id_key] = _strings([video_id])
  if labels is not None:
    context["labels"] = _integers(labels)
  return context


def _strings(values):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _integers(values):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values):
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))
