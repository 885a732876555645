"""Classifiers of one vector a video. Axes: B videos, D features, C classes."""

import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import base, configs, registry
from pooling import batch_norm as bn
from pooling import linear, products, sums
from pooling.mode import Mode


class VideoLevelModel(base.BaseModel):
  """What the models of a [B, D] input share."""

  is_frame_level = False

  def scale_input(self, features, num_frames, is_training):
    """Scales each video's features, float32 [B, D], to unit length."""
    del is_training
    return tf.nn.l2_normalize(features, axis=1), num_frames


@registry.register()
class LogisticModel(VideoLevelModel):
  """One logistic regression a class, with L2 regularisation."""

  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config, group="Model"):
    """The flags."""

    l2_penalty: float = flag_fields.real(
      1e-8,
      "L2 penalty of LogisticModel's weights. (Published NeXtVLAD has it on "
      "the C biases too.)",
      low=0.0,
      may_change=True,
    )

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    **unused_params,
  ):
    """See `BaseModel.create_model`."""
    del num_frames, is_training
    logits = linear.penalised(
      model_input, vocab_size, l2=self.config.l2_penalty, scope="logistic"
    )
    return {"predictions": tf.nn.sigmoid(logits), "logits": logits}


@registry.register()
class MoeModel(VideoLevelModel):
  """A mixture of logistic experts per class (Jordan & Jacobs 1994).

  p_c = sum_{m <= M} softmax_m(G_c x) sigmoid(E_cm x + b_cm), where the softmax
  runs over the M experts and a dummy one that always says no.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(configs.Gates, configs.BatchNorm, group="Mixture of experts"):
    """The flags; M is moe_num_mixtures."""

    moe_num_mixtures: int = flag_fields.integer(
      2,
      "Experts of each class, not counting the dummy that always says no.",
      low=1,
    )
    moe_l2: float = flag_fields.real(
      1e-8,
      "L2 penalty of the experts' and their gates' weights.",
      low=0.0,
      may_change=True,
    )
    moe_low_rank_gating: int = flag_fields.integer(
      -1, "Rank of the gates' weights; -1 for full rank.", low=-1
    )
    moe_prob_gating: bool = flag_fields.boolean(
      False, "Gate the predicted probabilities."
    )
    moe_prob_gating_input: str = flag_fields.choice(
      "prob",
      ("input", "prob"),
      "What the probabilities' gates see: the probabilities, or the "
      "classifier's input.",
      used_if=lambda config: config.moe_prob_gating,
    )

    @property
    def has_gates(self):
      """See `configs.Gates`."""
      return self.moe_prob_gating

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    **unused_params,
  ):
    """See `BaseModel.create_model`."""
    del num_frames
    config = self.config
    mixtures = config.moe_num_mixtures

    def logits(inputs, units, scope, has_biases=False):
      return linear.penalised(
        inputs, units, l2=config.moe_l2, has_biases=has_biases, scope=scope
      )

    gate_input = model_input
    if (rank := config.moe_low_rank_gating) >= 1:
      gate_input = logits(model_input, rank, "gates_low_rank")
    gates = logits(gate_input, (mixtures + 1) * vocab_size, "gates")
    experts = logits(
      model_input, mixtures * vocab_size, "experts", has_biases=True
    )
    # Classes run fastest: the softmax over a handful of mixtures is then a few
    # operations on long rows, not C of them on short ones.
    gates = tf.reshape(gates, [-1, mixtures + 1, vocab_size])
    experts = tf.reshape(experts, [-1, mixtures, vocab_size])
    highest = tf.stop_gradient(tf.reduce_max(gates, axis=1, keepdims=True))
    mass = tf.exp(gates - highest)  # [B, M + 1, C]
    chosen = sums.over(mass[:, :mixtures] * tf.sigmoid(experts), 1)
    probabilities = chosen / sums.over(mass, 1)  # [B, C]
    if config.moe_prob_gating:
      probabilities *= self._probability_gates(
        model_input, probabilities, is_training
      )
    return {"predictions": probabilities}

  def _probability_gates(self, model_input, probabilities, is_training):
    """sigmoid(batch norm(W x)), float32 [B, C]."""
    vocab_size = probabilities.shape.as_list()[1]
    by_prob = self.config.moe_prob_gating_input == "prob"
    inputs = probabilities if by_prob else model_input
    weights = tf.get_variable(
      "gating_prob_weights",
      [inputs.shape.as_list()[1], vocab_size],
      initializer=tf.random_normal_initializer(stddev=vocab_size**-0.5),
    )
    gates = products.apply_weights(inputs, weights)
    if self.config.gating_remove_diag and by_prob:
      gates -= probabilities * tf.linalg.diag_part(weights)
    return tf.sigmoid(
      bn.batch_norm(
        gates,
        mode=Mode(is_training, self.config.batch_norm_decay),
        scope="gating_prob_bn",
      )
    )
