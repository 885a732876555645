"""Trained models that predict beside the one that learns from them.

They stand in the training's graph in scopes of their own, as in evaluation.
Their variables are neither trained nor saved: each run restores them.
"""

import os

import tensorflow.compat.v1 as tf
from absl import logging

import data_flags
import model_flags
from checkpoints import restore
from console import flag_fields
from predictions import predictor

_SHARED = ("frame_features", "num_classes")


class Teachers:
  """Several models, whose mean teaches."""

  def __init__(self, sources, values):
    """Reads the models' flags.

    Args:
      sources: list of str, train_dirs or path prefixes of checkpoints.
      values: dict of the student's model flags.

    Raises:
      ValueError: one is not there, or sees other features or classes than the
        student.
    """
    self._sources = sources
    self._models = {}
    for i, source in enumerate(sources):
      own = _load(source)
      _check_same_data(source, own, values)
      self._models[f"teacher_{i}"] = model_flags.build_model(own)

  def predict(self, batch, num_classes):
    """Mean of the teachers' probabilities: float32 [B, C], without gradient.

    Args:
      batch: dict as `readers.py` makes it, of one tower.
      num_classes: int, C.
    """
    found = [
      predictor.predict(model, batch, num_classes, scope)
      for scope, model in self._models.items()
    ]
    return tf.stop_gradient(tf.add_n(found) / len(found))

  def restore(self, session):
    """Restores all teachers, each from its newest checkpoint.

    Raises:
      ValueError: see `checkpoints.restore.restore_newest`.
    """
    for scope, source in zip(self._models, self._sources):
      checkpoint = restore.restore_newest(session, source, scope, "teachers")
      logging.info("Learning from %s.", checkpoint)


def _load(source):
  """The model flags of a teacher."""
  is_directory = tf.io.gfile.isdir(source)
  directory = source if is_directory else os.path.dirname(source)
  if is_directory and not restore.known_checkpoints(directory):
    raise ValueError(f"No checkpoint in --teachers={source}.")
  try:
    return model_flags.load(directory)
  except ValueError as error:
    raise ValueError(f"--teachers={source}: {error}") from None


def _check_same_data(source, own, values):
  """Refuses a teacher that can't see what the student sees."""
  differing = [
    f"--{name}={own[name]} (here {values[name]})"
    for name in _SHARED
    if own[name] != values[name]
  ]
  readings = (
    flag_fields.from_values(data_flags.Reading, each) for each in (values, own)
  )
  differing += [
    f"--{name}={found} (here {wanted})"
    for name, wanted, found in data_flags.differing(*readings)
  ]
  if differing:
    raise ValueError(
      f"--teachers: {source} was trained with {', '.join(differing)}. A "
      "teacher needs the same features and classes; what another predicts can "
      "be given as --teacher_predictions."
    )
