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
  mean, factor, beta = normalizing_map(
    inputs, mask, mode=mode, scale=scale, scope=scope
  )
  return (inputs - mean) * factor + beta


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
  depth = inputs.shape.with_rank(2).as_list()[1]
  if depth is None:
    raise ValueError("Need static D, got inputs of shape [N, unknown].")
  with tf.variable_scope(scope, values=[inputs]):
    beta = tf.get_variable("beta", [depth], initializer=tf.zeros_initializer())
    gamma = 1.0
    if scale:
      gamma = tf.get_variable(
        "gamma", [depth], initializer=tf.ones_initializer()
      )
    averages = moving_average.create(
      {
        "moving_mean": ([depth], tf.zeros_initializer()),
        "moving_variance": ([depth], tf.ones_initializer()),
      }
    )
    if mode.is_training:
      mean, variance, rows = _moments(inputs, mask)
      moving_average.update(
        averages,
        {"moving_mean": mean, "moving_variance": variance},
        rows=rows,
        decay=mode.batch_norm_decay,
      )
    else:
      mean, variance = averages["moving_mean"], averages["moving_variance"]
    return mean, gamma * tf.math.rsqrt(variance + _EPSILON), beta


def _moments(inputs, mask):
  """Mean and variance [D] over True rows, and their number [].

  Padding is zeroed, not multiplied away: it may hold inf. The sums over rows
  are products with a vector, which read the inputs once each.
  """
  if mask is None:
    mask = tf.ones([tf.shape(inputs)[0]], tf.bool)
  weights = tf.cast(mask, inputs.dtype)[tf.newaxis, :]  # [1, N]
  rows = tf.reduce_sum(weights)
  share = weights / tf.maximum(rows, 1.0)
  inputs = tf.where_v2(mask[:, tf.newaxis], inputs, 0.0)
  mean = tf.matmul(share, inputs)  # [1, D]
  variance = tf.matmul(share, tf.square(inputs - mean))  # [1, D]
  return mean[0], variance[0], rows
