"""Classification losses, chosen by name with --label_loss.

Axes: B videos, C classes.

Every loss is a sum over classes of terms, each scaled by its label's weight;
`per_example` gives that sum for each video and `calculate_loss` its mean over
the batch. A label of weight 0 is removed: its value, whatever it is, changes
neither. All arithmetic is float32, whatever the model computes in, because
bfloat16 cannot hold the difference between 1 and 1 - epsilon.

A loss's numbers are flags: the fields of its `Config`.
"""

import abc
import copy
import dataclasses
import difflib
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from console import flag_fields
from pooling import sums

# The starter code's losses.py writes 10e-6, which is 1e-5; ours is the same, so
# that its losses and ours compare.
_EPSILON = 1e-5


class BaseLoss(abc.ABC):
  """What every loss shares: checks, casts, weights and the mean.

  A subclass writes `_terms`, and a `Config` if it has numbers of its own.

  Attributes:
    Config: subclass of `flag_fields.Config`; its fields are flags.
    config: the instance's `Config`.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config, group="Loss"):
    """No flag."""

  _class_weights: np.ndarray | None = None

  def __init__(self, config=None):
    """Keeps the configuration: the defaults of `Config` if not given."""
    self.config: Any = self.Config() if config is None else config

  def with_class_weights(self, class_weights):
    """The same loss, with each class's terms multiplied by a number.

    A class of weight 0 is removed as a label of weight 0 is.

    Args:
      class_weights: float [C], >= 0; they multiply label_weights.

    Returns:
      BaseLoss.
    """
    loss = copy.copy(self)
    loss._class_weights = np.asarray(class_weights, np.float32)
    return loss

  def calculate_loss(self, predictions, labels, label_weights=None):
    """Returns the mean of `per_example` over the batch.

    Args:
      predictions: see `per_example`.
      labels: see `per_example`.
      label_weights: see `per_example`.

    Returns:
      float32 scalar; 0, with zero gradients, for an empty batch.

    Raises:
      ValueError: see `per_example`.
    """
    losses = self.per_example(predictions, labels, label_weights)
    num_examples = tf.cast(tf.size(losses), tf.float32)
    # tf.reduce_mean of nothing is NaN, and a tower that got no videos from a
    # short last batch would spread it to all the others.
    return tf.math.divide_no_nan(tf.reduce_sum(losses), num_examples)

  def per_example(self, predictions, labels, label_weights=None):
    """Returns the loss of each video.

    Args:
      predictions: real [B, C], what the model returns; finite.
      labels: bool, integer or floating [B, C], in [0, 1].
      label_weights: real [B, C], >= 0, or None for 1 everywhere. They are not
        normalised: doubling all of them doubles the loss.

    Returns:
      float32 [B].

    Raises:
      ValueError: predictions are not known to be of rank 2, or labels or
        label_weights have another shape. What is unknown when the graph is
        built is checked when it runs (InvalidArgumentError).
    """
    with tf.name_scope(type(self).__name__):
      predictions = tf.convert_to_tensor(predictions, name="predictions")
      if predictions.shape.rank != 2:
        raise ValueError(
          f"Need predictions of shape [B, C], got {predictions.shape}."
        )
      labels = _like_predictions(labels, predictions, "labels")
      predictions = tf.cast(predictions, tf.float32)
      weights = self._weights(predictions, label_weights)
      if weights is None:
        return sums.over(self._terms(predictions, labels), 1)
      # Scaling the terms is not enough: a removed label must also leave the
      # sum that SoftmaxLoss divides its labels by.
      labels = tf.where(tf.equal(weights, 0.0), tf.zeros_like(labels), labels)
      terms = weights * self._terms(predictions, labels)
      return sums.over(terms, 1)

  def _weights(self, predictions, label_weights):
    """Of labels and of classes together, float32 [B, C]; None for all 1."""
    weights = label_weights
    if weights is not None:
      weights = _like_predictions(weights, predictions, "label_weights")
    if self._class_weights is None:
      return weights
    ones = tf.ones_like(predictions) if weights is None else weights
    return ones * self._class_weights

  @abc.abstractmethod
  def _terms(self, predictions, labels):
    """Returns each label's share of the loss before its weight.

    Args:
      predictions: float32 [B, C].
      labels: float32 [B, C].

    Returns:
      float32 [B, C], finite.
    """


class CrossEntropyLoss(BaseLoss):
  """Binary cross entropy of probabilities, each class on its own.

  A term is -y log(p + epsilon) - (1 - y) log(1 - p + epsilon), with p in
  [0, 1].

  Departure: a p outside [0, 1] counts as the nearer end.
  """

  def __init__(self, config=None, *, epsilon=_EPSILON):
    """Holds the configuration.

    Args:
      config: see `BaseLoss`.
      epsilon: float > 0, bounds a term to -log(epsilon) and its gradient to
        1 / epsilon.

    Raises:
      ValueError: epsilon is not positive.
    """
    super().__init__(config)
    if not epsilon > 0:
      raise ValueError(f"Need epsilon > 0, got {epsilon}.")
    self._epsilon = epsilon

  def _terms(self, predictions, labels):
    yes, no = self._of_labels(_within_bounds(predictions))
    return -(labels * yes + (1.0 - labels) * no)

  def _of_labels(self, probabilities):
    """What a label and what none is worth: two of float32 [B, C], <= 0."""
    return (
      tf.math.log(probabilities + self._epsilon),
      tf.math.log(1.0 - probabilities + self._epsilon),
    )


class FocalLoss(CrossEntropyLoss):
  """Cross entropy that fades where a prediction is right.

  Lin et al. 2017 (arXiv:1708.02002, equation 5), each class on its own: a term
  is -alpha (1 - p)^gamma y log p - (1 - alpha) p^gamma (1 - y) log(1 - p), with
  epsilon in the logarithms as in `CrossEntropyLoss`. gamma=0 and alpha=0.5 are
  half of that loss.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config, group="Loss"):
    """The flags."""

    focal_alpha: float = flag_fields.real(
      0.25,
      "FocalLoss: weight of a label; what is none has 1 less that.",
      low=0.0,
      high=1.0,
      may_change=True,
    )
    focal_gamma: float = flag_fields.real(
      2.0,
      "FocalLoss: how fast a term fades as its prediction gets right; 0 for "
      "not at all.",
      low=0.0,
      may_change=True,
    )

  def _of_labels(self, probabilities):
    """See `CrossEntropyLoss`."""
    yes, no = super()._of_labels(probabilities)
    alpha, gamma = self.config.focal_alpha, self.config.focal_gamma
    return (
      alpha * _power(1.0 - probabilities, gamma) * yes,
      (1.0 - alpha) * _power(probabilities, gamma) * no,
    )


class AsymmetricLoss(CrossEntropyLoss):
  """Cross entropy in which easy negatives fade, and the easiest vanish.

  Ridnik et al. 2021 (arXiv:2009.14119, equations 4 to 7), each class on its
  own: a term is -y (1 - p)^g+ log p - (1 - y) q^g- log(1 - q), with
  q = max(p - margin, 0), and epsilon in the logarithms as in
  `CrossEntropyLoss`, which this is with g+ = g- = margin = 0.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config, group="Loss"):
    """The flags."""

    asymmetric_gamma_neg: float = flag_fields.real(
      4.0,
      "AsymmetricLoss: how fast the term of what is no label fades as its "
      "prediction falls; 0 for not at all.",
      low=0.0,
      may_change=True,
    )
    asymmetric_gamma_pos: float = flag_fields.real(
      1.0,
      "AsymmetricLoss: the same of a label, as its prediction rises. 0 in some "
      "of the paper's runs.",
      low=0.0,
      may_change=True,
    )
    asymmetric_margin: float = flag_fields.real(
      0.05,
      "AsymmetricLoss: what is no label counts only where its prediction is "
      "above this.",
      low=0.0,
      high=0.99,
      may_change=True,
    )

  def _of_labels(self, probabilities):
    """See `CrossEntropyLoss`."""
    config = self.config
    shifted = tf.nn.relu(probabilities - config.asymmetric_margin)
    yes, _ = super()._of_labels(probabilities)
    _, no = super()._of_labels(shifted)
    return (
      _power(1.0 - probabilities, config.asymmetric_gamma_pos) * yes,
      _power(shifted, config.asymmetric_gamma_neg) * no,
    )


class MultiTaskCrossEntropyLoss(CrossEntropyLoss):
  """`CrossEntropyLoss`, by the name that published chains of models train with.

  What a model predicts besides is compared with the labels under any loss (see
  `models.BaseModel.create_model`).
  """


class HingeLoss(BaseLoss):
  """Hinge loss, each class on its own.

  A term is max(0, margin - (2y - 1) p), for scores p of any range.
  """

  def __init__(self, config=None, *, margin=1.0):
    """Holds the configuration.

    Args:
      config: see `BaseLoss`.
      margin: float > 0; a score is penalised until it lies this far on the
        right side of 0.

    Raises:
      ValueError: margin is not positive.
    """
    super().__init__(config)
    if not margin > 0:
      raise ValueError(f"Need margin > 0, got {margin}.")
    self._margin = margin

  def _terms(self, predictions, labels):
    signs = 2.0 * labels - 1.0
    return tf.nn.relu(self._margin - signs * predictions)


class SoftmaxLoss(BaseLoss):
  """Cross entropy between a video's labels and the softmax over classes.

  A term is -y' log softmax(p), where y' are the labels divided by their sum,
  so that a video counts once however many labels it has. A video without
  labels has loss 0.

  A label of weight 0 leaves that sum. Its class stays in the softmax's
  denominator: where one class of a segment is rated and all the others have
  weight 0, a softmax over that class alone would be constant.
  """

  # The starter code's 10e-8: only keeps 0 / 0 out of unlabelled videos.
  _MIN_LABEL_SUM = 1e-7

  def _terms(self, predictions, labels):
    label_sums = tf.reduce_sum(labels, axis=1, keepdims=True)  # [B, 1]
    targets = labels / tf.maximum(label_sums, self._MIN_LABEL_SUM)
    return -targets * tf.nn.log_softmax(predictions, axis=1)


LOSSES: dict[str, type[BaseLoss]] = {
  "AsymmetricLoss": AsymmetricLoss,
  "CrossEntropyLoss": CrossEntropyLoss,
  "FocalLoss": FocalLoss,
  "HingeLoss": HingeLoss,
  "MultiTaskCrossEntropyLoss": MultiTaskCrossEntropyLoss,
  "SoftmaxLoss": SoftmaxLoss,
}


def smooth_labels(labels, epsilon, label_weights=None):
  """Moves a part of each video's labels to all classes alike.

  Label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7) for many
  labels a video. There one label, q(k) in {0, 1}, becomes
  (1 - epsilon) q(k) + epsilon / C. Departure: a video of n labels spreads
  epsilon n, not epsilon,

      y'_c = (1 - epsilon) y_c + epsilon (sum_d y_d) / C,

  so that it keeps its label mass n: with `SoftmaxLoss` this is the paper's
  smoothing of y / n, and one without labels stays one without labels.

  With label_weights C and the sum are of the rated classes, those of a weight
  above 0, all alike: what nobody rated neither gives nor takes mass. A segment
  of one rated class keeps its label as it is.

  Args:
    labels: bool or real [B, C], in [0, 1].
    epsilon: float in [0, 1).
    label_weights: real [B, C], >= 0, or None for 1 everywhere.

  Returns:
    float32 [B, C], in [0, 1]; labels of weight 0 as they were.

  Raises:
    ValueError: epsilon outside [0, 1), or static shapes that differ.
  """
  if not 0.0 <= epsilon < 1.0:
    raise ValueError(f"Need 0 <= epsilon < 1, got {epsilon}.")
  with tf.name_scope("smooth_labels"):
    labels = tf.cast(labels, tf.float32)
    is_rated = tf.fill(tf.shape(labels), True)
    if label_weights is not None:
      is_rated = tf.convert_to_tensor(label_weights) > 0
      if not is_rated.shape.is_compatible_with(labels.shape):
        raise ValueError(
          f"Need label_weights of the labels' shape {labels.shape}, got "
          f"{is_rated.shape}."
        )
    rated = tf.where(is_rated, labels, tf.zeros_like(labels))
    mass = tf.reduce_sum(rated, axis=1, keepdims=True)  # [B, 1]
    count = tf.reduce_sum(
      tf.cast(is_rated, tf.float32), axis=1, keepdims=True
    )  # [B, 1]
    spread = tf.math.divide_no_nan(mass, count)
    return tf.where(
      is_rated, (1.0 - epsilon) * labels + epsilon * spread, labels
    )


def specs():
  """{name: `flag_fields.Spec`} of all losses' flags."""
  return {
    name: spec
    for cls in LOSSES.values()
    for name, spec in flag_fields.specs(cls.Config).items()
  }


def get_loss(name, values=None):
  """Returns a new loss.

  Args:
    name: str, a key of LOSSES.
    values: mapping; value of each flag of the loss, and of others. None for its
      defaults.

  Returns:
    BaseLoss.

  Raises:
    ValueError: there is no such loss; lists those there are, and names the
      one that was probably meant.
  """
  if name in LOSSES:
    cls = LOSSES[name]
    return cls(values and flag_fields.from_values(cls.Config, values))
  # Case is folded first: "crossentropyloss" is closer than difflib thinks.
  by_folded_name = {known.lower(): known for known in LOSSES}
  closest = difflib.get_close_matches(str(name).lower(), by_folded_name, n=1)
  hint = f" Did you mean {by_folded_name[closest[0]]!r}?" if closest else ""
  raise ValueError(
    f"Unknown loss {name!r}; there are {', '.join(LOSSES)}.{hint}"
  )


def _within_bounds(predictions):
  """Probabilities in [0, 1], with the gradient of the predictions."""
  # A mixture's gates summed in bfloat16 can reach 1.0078, and the log of
  # 1 - 1.0078 + epsilon is NaN. Only the value is clipped: the gradient still
  # pulls such a p back, where tf.clip_by_value's would be 0.
  excess = predictions - tf.clip_by_value(predictions, 0.0, 1.0)
  return predictions - tf.stop_gradient(excess)


def _power(base, exponent):
  """base^exponent of a base in [0, 1], with a gradient that is finite at 0."""
  if not exponent:
    return tf.ones_like(base)
  return tf.pow(tf.maximum(base, _EPSILON), exponent)


def _like_predictions(values, predictions, name):
  """Casts to float32 and checks that the shape is that of the predictions.

  Args:
    values: bool or real [B, C].
    predictions: tensor [B, C].
    name: str, what the error calls the values.

  Returns:
    float32 [B, C].

  Raises:
    ValueError: the static shapes cannot be equal.
  """
  values = tf.convert_to_tensor(values, name=name)
  expected = predictions.shape
  # Broadcasting would hide a missing axis: [B, 1] labels train without a word.
  if not values.shape.is_compatible_with(expected):
    raise ValueError(
      f"Need {name} of the predictions' shape {expected}, got {values.shape}."
    )
  if not (values.shape.is_fully_defined() and expected.is_fully_defined()):
    shapes = tf.shape(values), tf.shape(predictions)
    # Of a GPU's tensors, too, shapes are the host's.
    with tf.device("/cpu:0"):
      same_shape = tf.debugging.assert_equal(
        *shapes, message=f"Need {name} of the predictions' shape."
      )
    with tf.control_dependencies([same_shape]):
      values = tf.identity(values)
  return tf.ensure_shape(tf.cast(values, tf.float32), expected)
