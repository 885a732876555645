"""Training steps without care: baselines of `benchmark.py`.

Axes: B videos, T frames, D features, K centres, C classes, M mixtures.
"""

import keras
import tensorflow.compat.v1 as tf

from pooling.slim_compat import slim

_CROSS_ENTROPY_EPSILON = 1e-5
# Starter code: the decay of all moving averages.
_BATCH_NORM_DECAY = 0.999


def plain_gated_netvlad(
  features,
  labels,
  *,
  feature_sizes,
  num_frames,
  num_clusters,
  hidden_size,
  l2_penalty,
  num_mixtures=2,
):
  """Gated NetVLAD with gated mixture of experts, written down without care.

  What `NetVLADModelLF` of --gating, --moe_prob_gating and no --netvlad_relu
  computes, as the published code of Miech et al. 2017 goes about it: all
  stored frames become floats before some are chosen, assignments and sums are
  transposed to and fro, classes run slowest in the mixture, and `slim` does
  the rest. Padding counts as frames, as it does there.

  Args:
    features: uint8 [B, T, D], padded.
    labels: bool [B, C], C static.
    feature_sizes: list of int that sum to D; the first is the widest.
    num_frames: int, frames to draw of each video; 0 for all.
    num_clusters: int, K of the first feature; the others have half.
    hidden_size: int.
    l2_penalty: float, of the mixture's weights.
    num_mixtures: int, M.

  Returns:
    (float32 [B, C] predictions, float32 scalar loss).
  """
  frames = tf.cast(features, tf.float32) * (4.0 / 255.0) + (4.0 / 512.0 - 2.0)
  frames = tf.nn.l2_normalize(frames, axis=2)
  if num_frames:
    frames = _sample(frames, num_frames)
  depth, length = sum(feature_sizes), tf.shape(frames)[1]
  rows = _slim_batch_norm(tf.reshape(frames, [-1, depth]), "input_bn")
  descriptors = []
  for i, part in enumerate(tf.split(rows, feature_sizes, axis=1)):
    with tf.variable_scope(f"netvlad_{i}"):
      centres = num_clusters if i == 0 else num_clusters // 2
      descriptors.append(_plain_netvlad(part, length, centres))
  hidden = tf.matmul(
    tf.concat(descriptors, axis=1),
    _weights(
      "hidden1_weights",
      [sum(d.shape.as_list()[1] for d in descriptors), hidden_size],
    ),
  )
  hidden += tf.get_variable(
    "hidden1_biases", [hidden_size], initializer=tf.zeros_initializer()
  )
  gates = tf.matmul(
    hidden, _weights("gating_weights", [hidden_size, hidden_size])
  )
  hidden *= tf.sigmoid(_slim_batch_norm(gates, "gating_bn"))
  predictions = _plain_mixture(
    hidden, labels.shape.as_list()[1], num_mixtures, l2_penalty
  )
  loss = _cross_entropy(predictions, labels)
  return predictions, loss + tf.losses.get_regularization_loss()


def plain_train_op(loss, learning_rate=1e-4, max_norm=1.0):
  """Adam on gradients clipped one by one, behind all batch-norm updates."""
  optimizer = tf.train.AdamOptimizer(learning_rate)
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    gradients = optimizer.compute_gradients(loss)
  clipped = [
    (tf.clip_by_norm(gradient, max_norm), variable)
    for gradient, variable in gradients
  ]
  return optimizer.apply_gradients(clipped)


def _cross_entropy(predictions, labels):
  truth = tf.cast(labels, tf.float32)
  epsilon = _CROSS_ENTROPY_EPSILON
  cross_entropy = truth * tf.log(predictions + epsilon)
  cross_entropy += (1 - truth) * tf.log(1 - predictions + epsilon)
  return -tf.reduce_mean(tf.reduce_sum(cross_entropy, axis=1))


def _sample(frames, num_samples):
  """Draws frames [B, num_samples, D] of padded ones."""
  shape = tf.shape(frames)
  steps = tf.random.uniform([shape[0], num_samples], 0, shape[1], tf.int32)
  videos = tf.tile(tf.range(shape[0])[:, tf.newaxis], [1, num_samples])
  return tf.gather_nd(frames, tf.stack([videos, steps], axis=2))


def _weights(name, shape):
  return tf.get_variable(
    name,
    shape,
    initializer=tf.random_normal_initializer(stddev=shape[-2] ** -0.5),
  )


def _slim_batch_norm(inputs, scope):
  return slim.batch_norm(
    inputs,
    center=True,
    scale=True,
    is_training=True,
    decay=_BATCH_NORM_DECAY,
    scope=scope,
  )


def _plain_netvlad(rows, length, num_clusters):
  """NetVLAD of rows [B T, D]: float32 [B, D K], K fastest."""
  depth = rows.shape.as_list()[1]
  logits = tf.matmul(rows, _weights("cluster_weights", [depth, num_clusters]))
  assignments = tf.nn.softmax(_slim_batch_norm(logits, "cluster_bn"))
  assignments = tf.reshape(assignments, [-1, length, num_clusters])
  centres = _weights("cluster_weights2", [1, depth, num_clusters])
  offsets = tf.reduce_sum(assignments, axis=1, keepdims=True) * centres
  sums = tf.matmul(
    tf.transpose(assignments, [0, 2, 1]), tf.reshape(rows, [-1, length, depth])
  )
  sums = tf.nn.l2_normalize(tf.transpose(sums, [0, 2, 1]) - offsets, axis=1)
  return tf.nn.l2_normalize(
    tf.reshape(sums, [-1, depth * num_clusters]), axis=1
  )


def _plain_mixture(inputs, num_classes, num_mixtures, l2_penalty):
  """A gated mixture of experts: float32 [B, C]."""

  def logits(units, scope, biases=None):
    return slim.fully_connected(
      inputs,
      units,
      activation_fn=None,
      biases_initializer=biases,
      weights_regularizer=slim.l2_regularizer(l2_penalty),
      scope=scope,
    )

  gates = logits(num_classes * (num_mixtures + 1), "gates")
  experts = logits(
    num_classes * num_mixtures, "experts", tf.zeros_initializer()
  )
  gates = tf.nn.softmax(tf.reshape(gates, [-1, num_mixtures + 1]))
  experts = tf.sigmoid(tf.reshape(experts, [-1, num_mixtures]))
  mixed = tf.reduce_sum(gates[:, :num_mixtures] * experts, axis=1)
  predictions = tf.reshape(mixed, [-1, num_classes])
  prob_gates = tf.matmul(
    predictions, _weights("gating_prob_weights", [num_classes, num_classes])
  )
  return predictions * tf.sigmoid(
    _slim_batch_norm(prob_gates, "gating_prob_bn")
  )


class KerasGatedNetVLAD(keras.Model):
  """What `plain_gated_netvlad` computes, as one writes it with Keras.

  In training, to be called eagerly or in a `tf.function`.
  """

  def __init__(
    self,
    *,
    feature_sizes,
    num_frames,
    num_clusters,
    hidden_size,
    num_classes,
    l2_penalty,
    num_mixtures=2,
  ):
    """Sizes as in `plain_gated_netvlad`; num_classes is C."""
    super().__init__()
    self._feature_sizes = list(feature_sizes)
    self._num_frames = num_frames
    self._num_classes = num_classes
    self._num_mixtures = num_mixtures
    self._input_norm = _keras_batch_norm()
    self._vlads = [
      KerasNetVLAD(num_clusters if i == 0 else num_clusters // 2)
      for i in range(len(feature_sizes))
    ]
    self._hidden = keras.layers.Dense(hidden_size)
    self._gating = keras.layers.Dense(hidden_size, use_bias=False)
    self._gating_norm = _keras_batch_norm()
    # slim's penalty is of half the sum of squares.
    penalty = {"kernel_regularizer": keras.regularizers.L2(l2_penalty / 2)}
    self._gates = keras.layers.Dense(
      num_classes * (num_mixtures + 1), use_bias=False, **penalty
    )
    self._experts = keras.layers.Dense(num_classes * num_mixtures, **penalty)
    self._prob_gating = keras.layers.Dense(num_classes, use_bias=False)
    self._prob_gating_norm = _keras_batch_norm()

  def call(self, features):
    """Predictions, float32 [B, C], of features, uint8 [B, T, D]."""
    frames = tf.cast(features, tf.float32) * (4.0 / 255.0) + (4.0 / 512.0 - 2.0)
    frames = tf.nn.l2_normalize(frames, axis=2)
    if self._num_frames:
      frames = _sample(frames, self._num_frames)
    frames = self._input_norm(frames, training=True)
    parts = tf.split(frames, self._feature_sizes, axis=2)
    hidden = self._hidden(
      tf.concat([vlad(part) for vlad, part in zip(self._vlads, parts)], axis=1)
    )
    hidden *= tf.sigmoid(self._gating_norm(self._gating(hidden), training=True))
    classes, mixtures = self._num_classes, self._num_mixtures
    gates = tf.reshape(self._gates(hidden), [-1, classes, mixtures + 1])
    experts = tf.reshape(self._experts(hidden), [-1, classes, mixtures])
    mixed = tf.nn.softmax(gates)[..., :mixtures] * tf.sigmoid(experts)
    predictions = tf.reduce_sum(mixed, axis=2)
    return predictions * tf.sigmoid(
      self._prob_gating_norm(self._prob_gating(predictions), training=True)
    )

  def loss_and_gradients(self, features, labels):
    """(float32 scalar, gradients of `trainable_variables`); labels [B, C]."""
    with tf.GradientTape() as tape:
      loss = _cross_entropy(self(features), labels) + tf.add_n(self.losses)
    return loss, tape.gradient(loss, self.trainable_variables)

  def train_step_function(self, learning_rate=1e-4, max_norm=1.0):
    """A `tf.function` of a batch, like `plain_train_op`; returns the loss."""
    optimizer = keras.optimizers.Adam(learning_rate)

    @tf.function
    def step(features, labels):
      loss, gradients = self.loss_and_gradients(features, labels)
      clipped = [tf.clip_by_norm(gradient, max_norm) for gradient in gradients]
      optimizer.apply_gradients(zip(clipped, self.trainable_variables))
      return loss

    return step


class KerasNetVLAD(keras.layers.Layer):
  """NetVLAD of frames [B, T, D]: float32 [B, D K], K fastest."""

  def __init__(self, num_clusters):
    super().__init__()
    self._num_clusters = num_clusters
    self._assign = keras.layers.Dense(num_clusters, use_bias=False)
    self._norm = _keras_batch_norm()

  def build(self, shape):
    self._centres = self.add_weight(
      shape=[shape[-1], self._num_clusters], name="centres"
    )

  def call(self, frames):
    assignments = tf.nn.softmax(self._norm(self._assign(frames), training=True))
    sums = tf.einsum("btd,btk->bdk", frames, assignments)
    sums -= tf.reduce_sum(assignments, axis=1)[:, tf.newaxis] * self._centres
    sums = tf.nn.l2_normalize(sums, axis=1)
    depth = frames.shape[-1]
    return tf.nn.l2_normalize(
      tf.reshape(sums, [-1, depth * self._num_clusters]), axis=1
    )


def _keras_batch_norm():
  return keras.layers.BatchNormalization(momentum=_BATCH_NORM_DECAY)
