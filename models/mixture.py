"""A mixture of one model's branches, around any model.

Axes: B videos, T frames, D features, N branches, C classes.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import base, configs, registry
from pooling import dbof as dbof_lib
from pooling import frames as frames_lib
from pooling import mixture as mixture_lib
from pooling.mode import Mode

# Predictions without logits are taken to be no nearer to 0 and 1.
_MARGIN = 1e-6


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Mixture"):
  """The flags, which any model has; the defaults of NeXtVLAD's authors."""

  mixture: int = flag_fields.integer(
    1,
    "Train so many branches of the model, each with weights of its own, and "
    "predict by the sum of their logits, weighed by the video's mean frame "
    "(Lin et al. 2018, section 3.3). Time and size grow as much.",
    low=1,
    alias="mix_number",
  )
  cl_temperature: float = flag_fields.real(
    2.0,
    "Divides the logits that a mixture's branches learn from it by.",
    low=1e-3,
    may_change=True,
    used_if=lambda config: config.mixture > 1 and config.cl_lambda > 0.0,
  )
  cl_lambda: float = flag_fields.real(
    1.0,
    "Weight of online distillation, from a mixture to its branches. The paper "
    "has --cl_temperature squared. By its own table distillation did not help: "
    "GAP 0.8798 without it, 0.8788 with it.",
    low=0.0,
    may_change=True,
    used_if=lambda config: config.mixture > 1,
  )


def build(name, values, features):
  """Builds a model, in a mixture if the values ask for one.

  See `registry.build`; values have this module's flags too.
  """
  model = registry.build(name, values, features)
  config = flag_fields.from_values(Config, values)
  return MixtureModel(model, config) if config.mixture > 1 else model


class MixtureModel(base.BaseModel):
  """N branches of a model: mixed logits, and losses of mixture and branches.

  z_e = sum_n w_n z_n, where w = softmax(BN(mean frame) W + b). The label loss
  is that of sigmoid(z_e) and of each branch; online distillation is added. In
  a checkpoint a branch is `branch0/...`, and `mixture/...` are the weights'.
  """

  def __init__(self, model, config):
    """Wraps a model.

    Args:
      model: `base.BaseModel`; it is built once for each branch.
      config: `Config`.
    """
    super().__init__(
      config, features=model.features, classifier=model.classifier
    )
    self.is_frame_level = model.is_frame_level
    self._model = model

  def choose_input(self, features, num_frames, is_training):
    """See `BaseModel.choose_input`; all branches see the same frames."""
    return self._model.choose_input(features, num_frames, is_training)

  def scale_input(self, features, num_frames, is_training):
    """See `BaseModel.scale_input`."""
    return self._model.scale_input(features, num_frames, is_training)

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    **params,
  ):
    """See `BaseModel.create_model`."""
    config = self.config
    branches = []
    for n in range(config.mixture):
      with tf.variable_scope(f"branch{n}"):
        branches.append(
          self._model.create_model(
            model_input,
            vocab_size,
            num_frames=num_frames,
            is_training=is_training,
            **params,
          )
        )
    logits = [_logits(branch) for branch in branches]
    weights = self._weights(model_input, num_frames, is_training)
    mixed = tf.add_n(
      [weights[:, n : n + 1] * z for n, z in enumerate(logits)]
    )  # [B, C]
    terms = _regularization(branches)
    if is_training and config.cl_lambda:
      terms["distillation"] = config.cl_lambda * mixture_lib.divergence(
        mixed, logits, temperature=config.cl_temperature
      )
    return {
      "predictions": tf.sigmoid(mixed),
      "logits": mixed,
      "auxiliary_predictions": [
        pair for branch in branches for pair in _weighted_predictions(branch)
      ],
      "regularization_losses": terms,
      **base.join_descriptors(branches),
    }

  def _weights(self, model_input, num_frames, is_training):
    """float32 [B, N], by the mean of a video's real frames."""
    mean = model_input
    if self.is_frame_level:
      mask = frames_lib.frame_mask(model_input, num_frames)
      mean = dbof_lib.pool_frames(model_input, mask, "average")
    decay = getattr(
      self._model.config,
      "batch_norm_decay",
      flag_fields.defaults(configs.BatchNorm)["batch_norm_decay"],
    )
    return mixture_lib.branch_weights(
      mean, self.config.mixture, mode=Mode(is_training, decay)
    )


def _logits(result):
  """The logits of what a model returns, float32 [B, C]."""
  if "logits" in result:
    return result["logits"]
  clipped = tf.clip_by_value(result["predictions"], _MARGIN, 1.0 - _MARGIN)
  return tf.log(clipped) - tf.log1p(-clipped)


def _weighted_predictions(result):
  """[(weight, predictions)] that the label loss of a model counts."""
  return [
    (result.get("prediction_weight", 1.0), result["predictions"]),
    *result.get("auxiliary_predictions", ()),
  ]


def _regularization(results):
  """{name: scalar}, the sums of what models return."""
  terms = {}
  for result in results:
    own = dict(result.get("regularization_losses", {}))
    if "regularization_loss" in result:
      own["branches"] = result["regularization_loss"]
    for name, term in own.items():
      terms[name] = terms.get(name, 0.0) + term
  return terms
