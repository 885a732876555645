"""Classification losses, chosen by name with --label_loss.

Axes: B videos, C classes.

Every loss is a sum over classes of terms, each scaled by its label's weight;
`per_example` gives that sum for each video and `calculate_loss` its mean over
the batch. A label of weight 0 is removed: its value, whatever it is, changes
neither. All arithmetic is float32, whatever the model computes in, because
bfloat16 cannot hold the difference between 1 and 1 - epsilon.
"""

import abc
import difflib

import tensorflow.compat.v1 as tf


class BaseLoss(abc.ABC):
  """What every loss shares: checks, casts, weights and the mean.

  A subclass writes `_terms` alone.
  """

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
      if label_weights is None:
        return tf.reduce_sum(self._terms(predictions, labels), axis=1)
      weights = _like_predictions(label_weights, predictions, "label_weights")
      # Scaling the terms is not enough: a removed label must also leave the
      # sum that SoftmaxLoss divides its labels by.
      labels = tf.where(tf.equal(weights, 0.0), tf.zeros_like(labels), labels)
      terms = weights * self._terms(predictions, labels)
      return tf.reduce_sum(terms, axis=1)

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
  [0, 1]. The starter code's losses.py writes its epsilon as 10e-6, which is
  1e-5; ours is the same, so that its losses and ours compare.

  Departure: a p outside [0, 1] counts as the nearer end.
  """

  def __init__(self, epsilon=1e-5):
    """Holds the configuration.

    Args:
      epsilon: float > 0, bounds a term to -log(epsilon) and its gradient to
        1 / epsilon.

    Raises:
      ValueError: epsilon is not positive.
    """
    if not epsilon > 0:
      raise ValueError(f"Need epsilon > 0, got {epsilon}.")
    self._epsilon = epsilon

  def _terms(self, predictions, labels):
    # A mixture's gates summed in bfloat16 can reach 1.0078, and the log of
    # 1 - 1.0078 + epsilon is NaN. Only the value is clipped: the gradient
    # still pulls such a p back, where tf.clip_by_value's would be 0.
    excess = predictions - tf.clip_by_value(predictions, 0.0, 1.0)
    probabilities = predictions - tf.stop_gradient(excess)
    log_yes = tf.math.log(probabilities + self._epsilon)
    log_no = tf.math.log(1.0 - probabilities + self._epsilon)
    return -(labels * log_yes + (1.0 - labels) * log_no)


class HingeLoss(BaseLoss):
  """Hinge loss, each class on its own.

  A term is max(0, margin - (2y - 1) p), for scores p of any range.
  """

  def __init__(self, margin=1.0):
    """Holds the configuration.

    Args:
      margin: float > 0; a score is penalised until it lies this far on the
        right side of 0.

    Raises:
      ValueError: margin is not positive.
    """
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


LOSSES = {
  "CrossEntropyLoss": CrossEntropyLoss,
  "HingeLoss": HingeLoss,
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


def get_loss(name):
  """Returns a new loss, in its default configuration.

  Args:
    name: str, a key of LOSSES.

  Returns:
    BaseLoss.

  Raises:
    ValueError: there is no such loss; lists those there are, and names the
      one that was probably meant.
  """
  if name in LOSSES:
    return LOSSES[name]()
  # Case is folded first: "crossentropyloss" is closer than difflib thinks.
  by_folded_name = {known.lower(): known for known in LOSSES}
  closest = difflib.get_close_matches(str(name).lower(), by_folded_name, n=1)
  hint = f" Did you mean {by_folded_name[closest[0]]!r}?" if closest else ""
  raise ValueError(
    f"Unknown loss {name!r}; there are {', '.join(LOSSES)}.{hint}"
  )


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
    same_shape = tf.debugging.assert_equal(
      tf.shape(values),
      tf.shape(predictions),
      message=f"Need {name} of the predictions' shape.",
    )
    with tf.control_dependencies([same_shape]):
      values = tf.identity(values)
  return tf.cast(tf.ensure_shape(values, expected), tf.float32)
