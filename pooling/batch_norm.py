"""Batch normalisation of real rows only, with averages that warm up.

Ioffe & Szegedy 2015 (arXiv:1502.03167). Departures from `slim.batch_norm`:

- The moving averages warm up (see `moving_average`).
- A mask keeps padding out of the statistics.

Axes: N rows (videos, or frames of all videos), D features.
"""

import tensorflow.compat.v1 as tf

from pooling import moving_average

_EPSILON = 1e-3


def batch_norm(inputs, *, mode, mask=None, scale=True, scope="batch_norm"):
  """Normalises each feature over the rows of the batch.

  In training the update of the moving averages is added to
  `tf.GraphKeys.UPDATE_OPS`, for the program to run once a step.

  Args:
    inputs: float32 [N, D], D static.
    mode: `Mode`; the batch's statistics in training, else the averages.
    mask: bool [N] or None for all True; False rows count in no statistic.
      Their own outputs are finite where their inputs are, else meaningless.
    scale: bool, learn a factor gamma besides the offset beta.
    scope: variable scope; holds `beta`, `gamma`, `moving_mean`,
      `moving_variance` and `num_updates`.

  Returns:
    float32 [N, D]. A batch without a real row is normalised as if its mean and
    variance were 0, and leaves the averages as they are.

  Raises:
    ValueError: inputs not of rank 2, or D unknown.
  """
  with tf.variable_scope(scope, values=[inputs]):
    gamma, beta, averages = _variables(inputs, scale)
    if mode.is_training:
      outputs, mean, variance, rows = _normalize(inputs, mask, gamma, beta)
      _update(averages, mean, variance, rows, mode)
      return outputs
    factor = gamma * tf.math.rsqrt(averages["moving_variance"] + _EPSILON)
    return (inputs - averages["moving_mean"]) * factor + beta


def normalizing_map(inputs, mask, *, mode, scale=True, scope="batch_norm"):
  """What `batch_norm` of these inputs does to x: (x - mean) factor + beta.

  Args:
    inputs: float32 [N, D], see `batch_norm`.
    mask: bool [N] or None, see `batch_norm`.
    mode: `Mode`, see `batch_norm`.
    scale: bool, see `batch_norm`.
    scope: variable scope, see `batch_norm`.

  Returns:
    (float32 [D] mean, float32 [D] factor, float32 [D] beta).

  Raises:
    ValueError: see `batch_norm`.
  """
  with tf.variable_scope(scope, values=[inputs]):
    gamma, beta, averages = _variables(inputs, scale)
    if mode.is_training:
      mean, variance, rows = _moments(inputs, mask)
      _update(averages, mean, variance, rows, mode)
    else:
      mean, variance = averages["moving_mean"], averages["moving_variance"]
    return mean, gamma * tf.math.rsqrt(variance + _EPSILON), beta


def _variables(inputs, scale):
  """(gamma [D], beta [D], dict of averages), in the current scope."""
  depth = inputs.shape.with_rank(2).as_list()[1]
  if depth is None:
    raise ValueError("Need static D, got inputs of shape [N, unknown].")
  beta = tf.get_variable("beta", [depth], initializer=tf.zeros_initializer())
  gamma = tf.ones([depth])
  if scale:
    gamma = tf.get_variable("gamma", [depth], initializer=tf.ones_initializer())
  averages = moving_average.create(
    {
      "moving_mean": ([depth], tf.zeros_initializer()),
      "moving_variance": ([depth], tf.ones_initializer()),
    }
  )
  return gamma, beta, averages


def _update(averages, mean, variance, rows, mode):
  moving_average.update(
    averages,
    {"moving_mean": mean, "moving_variance": variance},
    rows=rows,
    decay=mode.batch_norm_decay,
  )


def _normalize(inputs, mask, gamma, beta):
  """(outputs [N, D], mean [D], variance [D], number of True rows []).

  The gradient is written out: TensorFlow's own passes over [N, D] twice as
  often, and its sums over rows are slow on GPUs. With c = x - mean, and the
  factor f = gamma / sqrt(variance + epsilon):

    d beta = sum of dy
    d gamma = (sum of dy c) f / gamma
    dx = f dy - (f / N) (sum of dy + c (sum of dy c) / (variance + epsilon))

  The last two terms come by way of the statistics, so on True rows alone.
  """

  @tf.custom_gradient
  def normalize(inputs, gamma, beta):
    mean, variance, rows = _moments(inputs, mask)
    root = tf.math.rsqrt(variance + _EPSILON)
    factor = gamma * root
    outputs = (inputs - mean) * factor + beta

    def gradient(d_outputs, *unused_of_statistics):
      centred = inputs - mean
      ones = tf.ones([1, tf.shape(inputs)[0]], inputs.dtype)
      d_beta = tf.matmul(ones, d_outputs)[0]
      d_factor = tf.matmul(ones, d_outputs * centred)[0]
      share = factor / tf.maximum(rows, 1.0)
      by_statistics = centred * (share * d_factor * root**2) + share * d_beta
      if mask is not None:
        by_statistics = tf.where_v2(mask[:, tf.newaxis], by_statistics, 0.0)
      return d_outputs * factor - by_statistics, d_factor * root, d_beta

    return (outputs, mean, variance, rows), gradient

  return normalize(
    inputs, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)
  )


def _moments(inputs, mask):
  """Mean and variance [D] over True rows, and their number [].

  Padding is zeroed, not multiplied away: it may hold inf. The sums over rows
  are products with a vector, which read the inputs once each; of ones, which no
  GPU rounds.
  """
  if mask is None:
    mask = tf.ones([tf.shape(inputs)[0]], tf.bool)
  else:
    inputs = tf.where_v2(mask[:, tf.newaxis], inputs, 0.0)
  weights = tf.cast(mask, inputs.dtype)[tf.newaxis, :]  # [1, N]
  rows = tf.reduce_sum(weights)
  count = tf.maximum(rows, 1.0)
  mean = tf.matmul(weights, inputs) / count  # [1, D]
  variance = tf.matmul(weights, tf.square(inputs - mean)) / count  # [1, D]
  return mean[0], variance[0], rows
