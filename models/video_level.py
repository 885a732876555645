"""Classifiers of one vector a video. Axes: B videos, D features, C classes."""

import tensorflow.compat.v1 as tf

from models import base as models
from pooling import batch_norm as bn
from pooling.mode import Mode
from pooling.slim_compat import slim

# The L2 penalty of the starter code's logistic models.
_LOGISTIC_L2 = 1e-8


class VideoLevelModel(models.BaseModel):
  """What the models of a [B, D] input share."""

  def prepare_input(self, features, num_frames, is_training):
    """Scales each video's features, float32 [B, D], to unit length."""
    del is_training
    return tf.nn.l2_normalize(features, axis=1), num_frames


class LogisticModel(VideoLevelModel):
  """One logistic regression a class, with L2 regularisation."""

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
    predictions = slim.fully_connected(
      model_input,
      vocab_size,
      activation_fn=tf.nn.sigmoid,
      weights_regularizer=slim.l2_regularizer(_LOGISTIC_L2),
      scope="logistic",
    )
    return {"predictions": predictions}


class MoeModel(VideoLevelModel):
  """A mixture of logistic experts per class (Jordan & Jacobs 1994).

  p_c = sum_{m <= M} softmax_m(G_c x) sigmoid(E_cm x + b_cm), where the softmax
  runs over the M experts and a dummy one that always says no.
  """

  def __init__(
    self,
    *,
    num_mixtures,
    l2_penalty,
    low_rank_gating,
    prob_gating,
    prob_gating_input,
    remove_diag,
    batch_norm_decay,
  ):
    """Keeps the configuration.

    Args:
      num_mixtures: int, M >= 1, the dummy expert not counted.
      l2_penalty: float >= 0, of the weights of experts and gates.
      low_rank_gating: int, rank of the gates' weights; < 1 for full rank.
      prob_gating: bool, context gating on the probabilities (Miech et al.
        2017, section 3.3).
      prob_gating_input: "prob" or "input", what the probabilities' gates see:
        the probabilities or the model's input.
      remove_diag: bool, no probability gates itself; for "prob" only, the
        weights of "input" having no diagonal.
      batch_norm_decay: float, see `batch_norm`.

    Raises:
      ValueError: num_mixtures < 1, or an unknown prob_gating_input.
    """
    if num_mixtures < 1:
      raise ValueError(f"Need num_mixtures >= 1, got {num_mixtures}.")
    if prob_gating_input not in ("prob", "input"):
      raise ValueError(
        f"prob_gating_input is 'prob' or 'input', got {prob_gating_input!r}."
      )
    self._num_mixtures = num_mixtures
    self._l2_penalty = l2_penalty
    self._low_rank_gating = low_rank_gating
    self._prob_gating = prob_gating
    self._prob_gating_input = prob_gating_input
    self._remove_diag = remove_diag
    self._batch_norm_decay = batch_norm_decay

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
    mixtures = self._num_mixtures
    regularizer = slim.l2_regularizer(self._l2_penalty)

    def logits(inputs, units, scope, biases=None):
      return slim.fully_connected(
        inputs,
        units,
        activation_fn=None,
        biases_initializer=biases,
        weights_regularizer=regularizer,
        scope=scope,
      )

    gate_input = model_input
    if self._low_rank_gating >= 1:
      gate_input = logits(model_input, self._low_rank_gating, "gates_low_rank")
    gates = logits(gate_input, (mixtures + 1) * vocab_size, "gates")
    experts = logits(
      model_input, mixtures * vocab_size, "experts", tf.zeros_initializer()
    )
    # Classes run fastest: the softmax over a handful of mixtures is then a few
    # operations on long rows, not C of them on short ones.
    gates = tf.reshape(gates, [-1, mixtures + 1, vocab_size])
    experts = tf.reshape(experts, [-1, mixtures, vocab_size])
    highest = tf.stop_gradient(tf.reduce_max(gates, axis=1, keepdims=True))
    mass = tf.exp(gates - highest)  # [B, M + 1, C]
    chosen = tf.reduce_sum(mass[:, :mixtures] * tf.sigmoid(experts), axis=1)
    probabilities = chosen / tf.reduce_sum(mass, axis=1)  # [B, C]
    if self._prob_gating:
      probabilities *= self._probability_gates(
        model_input, probabilities, is_training
      )
    return {"predictions": probabilities}

  def _probability_gates(self, model_input, probabilities, is_training):
    """sigmoid(batch norm(W x)), float32 [B, C]."""
    vocab_size = probabilities.shape.as_list()[1]
    by_prob = self._prob_gating_input == "prob"
    inputs = probabilities if by_prob else model_input
    weights = tf.get_variable(
      "gating_prob_weights",
      [inputs.shape.as_list()[1], vocab_size],
      initializer=tf.random_normal_initializer(stddev=vocab_size**-0.5),
    )
    gates = tf.matmul(inputs, weights)
    if self._remove_diag and by_prob:
      gates -= probabilities * tf.linalg.diag_part(weights)
    return tf.sigmoid(
      bn.batch_norm(
        gates,
        mode=Mode(is_training, self._batch_norm_decay),
        scope="gating_prob_bn",
      )
    )
