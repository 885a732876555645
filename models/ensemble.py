"""Several trained models as one.

Axes: B videos, T frames a video, D features, C classes.
"""

import dataclasses
import json

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import base, mixture, registry

# What to do instead of training one.
WAY_OUT = (
  "An EnsembleModel is made of trained models, by scripts/make_ensemble.py "
  "--train_dirs=A,B:0.7 --output_dir=C; then --train_dir=C is for eval.py, "
  "inference.py and export_model.py."
)


def encode(members):
  """The value of `--ensemble_members`.

  Args:
    members: list of (float weight, dict of the model flags).
  """
  return json.dumps(
    [{"weight": weight, "flags": values} for weight, values in members],
    sort_keys=True,
  )


@registry.register()
class EnsembleModel(base.BaseModel):
  """The weighted mean of what trained models predict.

  scripts/make_ensemble.py makes one. Each member samples and normalises its
  frames as it was trained to.

  Attributes:
    members: list of (float weight, `base.BaseModel`).
  """

  is_frame_level = None
  is_trainable = False

  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config, group="Ensemble"):
    """The flags."""

    ensemble_members: str = flag_fields.text(
      "",
      "Weights and flags of an EnsembleModel's members, as JSON.",
      hidden=True,
    )

  def __init__(self, config=None, *, features=(), classifier=None):
    """Builds the members.

    Args:
      config: `Config`.
      features: list of `base.Feature`, those of every member.
      classifier: None.

    Raises:
      ValueError: there is no member, or what `encode` did not write.
    """
    super().__init__(config, features=features, classifier=classifier)
    text = self.config.ensemble_members
    if not text:
      raise ValueError(WAY_OUT)
    try:
      found = [(part["weight"], part["flags"]) for part in json.loads(text)]
      weights = [float(weight) for weight, _ in found]
      if not (min(weights) >= 0.0 and 0.0 < sum(weights) < float("inf")):
        raise ValueError(f"weights {weights}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
      raise ValueError(
        f"--ensemble_members is not of make_ensemble.py's: {error!r}."
      ) from None
    total = sum(weights)
    self.members = [
      (weight / total, _build(values, features))
      for weight, (_, values) in zip(weights, found)
    ]
    self.is_frame_level = self.members[0][1].is_frame_level

  def prepare_input(self, features, num_frames, is_training):
    """Lists of what each member makes of the input and of num_frames."""
    prepared = []
    for i, (_, member) in enumerate(self.members):
      with tf.variable_scope(member_scope(i)):
        prepared.append(member.prepare_input(features, num_frames, is_training))
    return tuple(zip(*prepared))

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    precision=None,
    **unused_params,
  ):
    """See `BaseModel.create_model`; inputs are those of `prepare_input`."""
    if is_training:
      raise ValueError(WAY_OUT)
    predictions, results = 0.0, []
    for i, (weight, member) in enumerate(self.members):
      with tf.variable_scope(member_scope(i)):
        result = member.create_model(
          model_input[i],
          vocab_size,
          num_frames=num_frames[i],
          is_training=False,
          precision=precision,
        )
      predictions += weight * tf.cast(result["predictions"], tf.float32)
      results.append(result)
    return {"predictions": predictions, **base.join_descriptors(results)}


def member_scope(number):
  """The scope of a member's variables; part of the checkpoint format."""
  return f"member_{number}"


def _build(values, features):
  """A member: `base.BaseModel`. A younger flag than it has its default."""
  specs = registry.specs() | flag_fields.specs(mixture.Config)
  known = {
    name: spec.parse(values[name]) if name in values else spec.default
    for name, spec in specs.items()
  }
  return mixture.build(values["model"], known, features)
