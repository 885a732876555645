"""The contract of every model.

Axes: B videos, N frames of the whole batch, T frames a video, D features,
C classes.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import tensorflow.compat.v1 as tf

from console import flag_fields


class Feature(NamedTuple):
  """A part of D.

  Attributes:
    name: str, such as rgb.
    size: int.
    low: float, what the byte 0 stands for, less half a step.
    high: float, what the byte 255 stands for, less half a step.
  """

  name: str
  size: int
  low: float = -2.0
  high: float = 2.0


class BaseModel:
  """Inherit from this class, and register it, to add a model.

  Attributes:
    Config: subclass of `flag_fields.Config`; its fields are the model's flags.
    is_frame_level: bool, whether it takes frames, rather than one vector a
      video; None of a class whose instances differ in it.
    is_trainable: bool, whether train.py trains it.
    config: the instance's `Config`.
    features: list of `Feature`, in the order of D.
    classifier: video-level model that classifies what the model makes of a
      video; None in models that do it themselves.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config):
    """No flag."""

  is_frame_level: bool | None
  is_trainable: ClassVar[bool] = True

  def __init__(self, config=None, *, features=(), classifier=None):
    """Keeps the configuration: the defaults of `Config` if not given."""
    self.config: Any = self.Config() if config is None else config
    self.features = list(features)
    self.classifier = classifier

  def prepare_input(self, features, num_frames, is_training):
    """Turns what a reader gives into what `create_model` takes.

    Args:
      features: what the model's kind of reader gives (see `readers.py`).
      num_frames: int32 [B].
      is_training: bool.

    Returns:
      (model_input, num_frames), as `create_model` takes them.
    """
    features, num_frames = self.choose_input(features, num_frames, is_training)
    return self.scale_input(features, num_frames, is_training)

  def choose_input(self, features, num_frames, is_training):
    """The first part of `prepare_input`, for the host: what goes to a device.

    Args:
      features: see `prepare_input`.
      num_frames: see `prepare_input`.
      is_training: bool.

    Returns:
      (features, int32 [B] real frames), by default those given.
    """
    del is_training
    return features, num_frames

  def scale_input(self, features, num_frames, is_training):
    """The second part, for the device that computes.

    Args:
      features: of `choose_input`.
      num_frames: of `choose_input`.
      is_training: bool.

    Returns:
      See `prepare_input`.
    """
    raise NotImplementedError

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    precision=None,
    **unused_params,
  ):
    """Builds the model.

    Args:
      model_input: float32 [B, D] (video level) or [B, T, D] (frame level), of
        unit length along D; D is static.
      vocab_size: int, C.
      num_frames: int32 [B], real frames in each video of a frame-level input,
        0 <= num_frames <= T; ignored by a video-level model.
      is_training: bool.
      precision: tf.bfloat16, or None for float32 throughout: of the products
        of linear layers, gating and sums of residuals (`pooling.mode`).
      **unused_params: for callers that know more than a model needs.

    Returns:
      dict with "predictions": float32 [B, C], probabilities; where a model has
      them:

      - "logits": float32 [B, C], of which predictions are the sigmoid;
      - "descriptor": float32 [B, any], what the classifier sees of a video:
        what a search for videos that are alike compares;
      - "auxiliary_predictions": list of (float weight, float32 [B, C]), which
        the label loss compares with the labels as well, in training;
      - "prediction_weight": float, the weight of predictions beside them, 1 if
        it is not there;

      and terms to add to the label loss, besides what the model puts into
      `tf.GraphKeys.REGULARIZATION_LOSSES`:

      - "regularization_loss": a scalar;
      - "regularization_losses": dict of name to scalar, each multiplied by its
        own weight already. TensorBoard shows each as reg_loss/NAME.

      They add up: what is in one place is not to be in another. Each is a
      mean over the videos of model_input, or a function of the variables, and
      finite without any video: a part of a batch counts with its share of the
      videos.
    """
    raise NotImplementedError


def join_descriptors(results):
  """The descriptors of several models side by side.

  Args:
    results: list of what `BaseModel.create_model` returns.

  Returns:
    {"descriptor": float32 [B, any]}; {} where one has none.
  """
  found = [result.get("descriptor") for result in results]
  if any(descriptor is None for descriptor in found):
    return {}
  return {"descriptor": tf.concat(found, axis=1)}
