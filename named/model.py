"""A trained model that takes arrays and gives names; see learnable_pooling.py.

Axes: B videos, T frames, D numbers of a feature, C classes, K predictions kept.
"""

from console import program  # isort: skip  (before TensorFlow)

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

import model_flags
from checkpoints import archive, restore, saved_model
from named import model_input
from predictions import predictor
from records import vocabulary as vocabulary_lib

# Videos that are predicted at once.
_BATCH = 32


class Prediction(NamedTuple):
  """What a model says of a video, the best class first.

  Attributes:
    names: list of str [K].
    scores: float32 [K].
    classes: int [K], the indices of the names.
    descriptor: float32 [any], what the classifier sees; None if not asked for.
  """

  names: list[str]
  scores: NDArray
  classes: NDArray
  descriptor: NDArray | None = None


class Model:
  """A trained model, which `load` makes.

  As a context manager, or by `close`, it gives back what it holds.

  Attributes:
    input: `model_input.ModelInput`.
    vocabulary: `vocabulary.Vocabulary`.
    num_classes: int, C.
    directory: str, where features.json and the files that it names are.
  """

  def __init__(
    self,
    source: str | os.PathLike,
    checkpoint: str = "",
    vocabulary: str = "",
  ):
    """See `load`."""
    with contextlib.ExitStack() as stack:
      opened = self.directory = _opened(os.fspath(source), stack)
      is_saved_model = saved_model.is_one(opened)
      if is_saved_model:
        self.directory = saved_model.facts_of(opened)
      values = model_flags.load(self.directory)
      self.input = model_input.ModelInput(values, self.directory)
      self.num_classes = values["num_classes"]
      self.vocabulary = vocabulary_lib.of_model(vocabulary, self.directory)
      self._backend: Any
      if is_saved_model:
        self._backend = _SavedModel(opened, self.input, stack)
      else:
        self._backend = _Checkpoint(
          checkpoint or opened, values, self.input, stack
        )
      self._stack = stack.pop_all()

  def __enter__(self) -> "Model":
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self.close()

  def close(self) -> None:
    """Gives back memory and temporary files; the model predicts no more."""
    self._stack.close()

  @property
  def classes(self) -> list[str]:
    """The names of all C classes."""
    return [self.vocabulary.name(i) for i in range(self.num_classes)]

  def predict(
    self,
    videos: model_input.Video | Sequence[model_input.Video],
    top_k: int = 5,
    descriptor: bool = False,
    is_stored: bool = False,
  ) -> Any:
    """Predicts the classes of a video, or of each of a list of videos.

    Args:
      videos: see `model_input.ModelInput.stored`; a list or tuple of these; or
        one array of them, with an axis more than a video's.
      top_k: int >= 1; at most as many as there are classes, and as an exported
        model gives.
      descriptor: whether to give what the classifier sees as well.
      is_stored: whether videos are what `model_input.ModelInput.stored` or
        `of_record` has given.

    Returns:
      `Prediction`, or a list of one for each video.

    Raises:
      ValueError: arrays that are no video of the model's; or it makes no
        descriptor.
    """
    if top_k < 1:
      raise ValueError(f"Need top_k >= 1, got {top_k}.")
    rank = 2 if self.input.is_frame_level else 1
    is_one = isinstance(videos, Mapping) or (
      isinstance(videos, np.ndarray) and videos.ndim <= rank
    )
    given: Any = [videos] if is_one else videos
    if not is_stored:
      given = map(self.input.stored, given)
    stored = [self.input.cut(each) for each in given]
    found: list[Prediction] = []
    for start in range(0, len(stored), _BATCH):
      rows = self._backend.run(stored[start : start + _BATCH], descriptor)
      for classes, scores, described in rows:
        names = [self.vocabulary.name(int(i)) for i in classes[:top_k]]
        found.append(
          Prediction(names, scores[:top_k], classes[:top_k], described)
        )
    return found[0] if is_one else found


def load(
  source: str | os.PathLike, checkpoint: str = "", vocabulary: str = ""
) -> Model:
  """Loads a trained model.

  Args:
    source: a train_dir, an archive that inference.py --output_model_tgz wrote,
      or a SavedModel that export_model.py wrote.
    checkpoint: path prefix; the newest of the train_dir if not given.
    vocabulary: a file of the classes' names; the model's own if not given.

  Raises:
    ValueError: none of these, or a damaged one.
  """
  return Model(source, checkpoint, vocabulary)


def _opened(source, stack):
  """The directory of a model; of an archive a temporary one."""
  if tf.io.gfile.isdir(source):
    return source
  if not tf.io.gfile.exists(source):
    raise ValueError(
      f"{source} does not exist: give a train_dir, a model.tgz or a SavedModel."
    )
  directory = stack.enter_context(tempfile.TemporaryDirectory())
  archive.extract(source, directory)
  return directory


class _Checkpoint:
  """Runs a checkpoint."""

  def __init__(self, source, values, inputs, stack):
    """Builds the graph and restores.

    Args:
      source: path prefix or train_dir.
      values: dict of the model flags.
      inputs: `model_input.ModelInput`.
      stack: `contextlib.ExitStack` that is to end it.
    """
    model = model_flags.build_model(values)
    with tf.Graph().as_default():
      self._features = tf.placeholder(inputs.array_type, [None, inputs.size])
      self._num_frames = tf.placeholder(tf.int32, [None])
      batch = {"features": self._features, "num_frames": self._num_frames}
      self._outputs = predictor.outputs(model, batch, values["num_classes"])
      self._session = tf.Session(config=program.session_config())
    stack.callback(self._session.close)
    with self._session.graph.as_default():
      restore.restore_newest(self._session, source)

  def run(self, stored, descriptor):
    """Yields (int [C] classes, float32 [C] scores, descriptor or None)."""
    if descriptor and "descriptor" not in self._outputs:
      raise ValueError(predictor.NO_DESCRIPTOR)
    fetches = dict(self._outputs)
    if not descriptor:
      fetches.pop("descriptor", None)
    videos = [np.concatenate([*each.values()], axis=-1) for each in stored]
    found = self._session.run(
      fetches,
      {
        self._features: np.concatenate([np.atleast_2d(v) for v in videos]),
        self._num_frames: [len(np.atleast_2d(v)) for v in videos],
      },
    )
    described = found.get("descriptor", [None] * len(stored))
    for scores, own in zip(found["predictions"], described):
      # The lower class first among equals, as in `predictor.top_k`.
      order = np.argsort(-scores, kind="stable")
      yield order, scores[order], own


class _SavedModel:
  """Runs a SavedModel, on records that are made in memory."""

  def __init__(self, directory, inputs, stack):
    """Loads it; see `_Checkpoint`."""
    self._inputs = inputs
    with tf.Graph().as_default():
      self._session = tf.Session(config=program.session_config())
    stack.callback(self._session.close)
    with self._session.graph.as_default():
      loaded = tf.saved_model.load(
        self._session, [tf.saved_model.SERVING], directory
      )
    signature = loaded.signature_def["serving_default"]
    self._records = signature.inputs["example_bytes"].name
    self._fetches = [
      signature.outputs[name].name for name in ("class_indexes", "predictions")
    ]

  def run(self, stored, descriptor):
    """See `_Checkpoint.run`; K classes, as many as were exported."""
    if descriptor:
      raise ValueError(
        "A SavedModel gives no descriptor: load the train_dir or its archive."
      )
    records = [self._inputs.record(b"video", video) for video in stored]
    found = self._session.run(self._fetches, {self._records: records})
    for classes, scores in zip(*found):
      yield classes, scores, None
