"""Batch normalisation of real rows only, with averages that warm up.

Ioffe & Szegedy 2015 (arXiv:1502.03167). Departures from `slim.batch_norm`:

- The moving averages warm up (see `moving_average`).
- A mask keeps padding out of the statistics.

Axes: N rows (videos, or frames of all videos), D features.
"""

import tensorflow.compat.v1 as tf

from pooling import moving_average

_EPSILON = 1e-3


def batch_norm(
  inputs, *, is_training, decay, mask=None, scale=True, scope="batch_norm"
):
  """Normalises each feature over the rows of the batch.

  In training the update of the moving averages is added to
  `tf.GraphKeys.UPDATE_OPS`, for the program to run once a step.

  Args:
    inputs: float32 [N, D], D static.
    is_training: bool; the batch's statistics if True, else the averages.
    decay: float in [0, 1), what the averages keep at each update.
    mask: bool [N] or None for all True; False rows count in no statistic.
      Their own outputs are finite where their inputs are, else meaningless.
    scale: bool, learn a factor gamma besides the offset beta.
    scope: variable scope; holds `beta`, `gamma`, `moving_mean`,
      `moving_variance` and `num_updates`.

  Returns:
    float32 [N, D]. A batch without a real row is normalised as if its mean and
    variance were 0, and leaves the averages as they are.

  Raises:
    ValueError: inputs not of rank 2, D unknown, or decay outside [0, 1).
  """
  with tf.variable_scope(scope, values=[inputs]):
    beta, gamma, averages = _variables(inputs, decay, scale)
    if not is_training or mask is not None:
      mean, variance = _statistics(
        inputs, mask, averages, is_training=is_training, decay=decay
      )
      factor = gamma * tf.math.rsqrt(variance + _EPSILON)
      return (inputs - mean) * factor + beta
    # One fused kernel, forward and backward, when every row is real.
    rows = tf.shape(inputs)[0]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
      x=inputs[:, tf.newaxis, tf.newaxis, :],
      scale=gamma,
      offset=beta,
      mean=[],
      variance=[],
      epsilon=_EPSILON,
    )
    # The kernel divides by N - 1 for the averages, by N for the outputs.
    # Evaluation is to see what training saw: N.
    count = tf.cast(rows, tf.float32)
    variance *= (count - 1.0) / tf.maximum(count, 1.0)
    moving_average.update(
      averages,
      {"moving_mean": mean, "moving_variance": variance},
      rows=rows,
      decay=decay,
    )
    return outputs[:, 0, 0, :]


def normalizing_map(inputs, mask, *, is_training, decay, scope="batch_norm"):
  """What `batch_norm` of these inputs does to x: (x - mean) factor + beta.

  Args:
    inputs: float32 [N, D], see `batch_norm`.
    mask: bool [N], see `batch_norm`.
    is_training: bool, see `batch_norm`.
    decay: float, see `batch_norm`.
    scope: variable scope, see `batch_norm`.

  Returns:
    (float32 [D] mean, float32 [D] factor, float32 [D] beta).

  Raises:
    ValueError: see `batch_norm`.
  """
  with tf.variable_scope(scope, values=[inputs]):
    beta, gamma, averages = _variables(inputs, decay)
    mean, variance = _statistics(
      inputs, mask, averages, is_training=is_training, decay=decay
    )
    return mean, gamma * tf.math.rsqrt(variance + _EPSILON), beta


def _variables(inputs, decay, scale=True):
  """beta [D], gamma [D] and the moving averages, by name.

  Raises:
    ValueError: inputs not of rank 2, D unknown, or decay outside [0, 1).
  """
  depth = inputs.shape.with_rank(2).as_list()[1]
  if depth is None or not 0.0 <= decay < 1.0:
    raise ValueError(
      f"Need static D and 0 <= decay < 1, got D={depth}, decay={decay}."
    )
  beta = tf.get_variable("beta", [depth], initializer=tf.zeros_initializer())
  gamma = (
    tf.get_variable("gamma", [depth], initializer=tf.ones_initializer())
    if scale
    else tf.ones([depth])
  )
  averages = moving_average.create(
    {
      "moving_mean": ([depth], tf.zeros_initializer()),
      "moving_variance": ([depth], tf.ones_initializer()),
    }
  )
  return beta, gamma, averages


def _statistics(inputs, mask, averages, *, is_training, decay):
  """Mean and variance [D]: the batch's over True rows, or the averages."""
  if not is_training:
    return averages["moving_mean"], averages["moving_variance"]
  mean, variance, rows = _masked_moments(inputs, mask)
  moving_average.update(
    averages,
    {"moving_mean": mean, "moving_variance": variance},
    rows=rows,
    decay=decay,
  )
  return mean, variance


def _masked_moments(inputs, mask):
  """Mean and variance [D] over True rows, and their number [].

  Padding is zeroed, not multiplied away: it may hold inf. The sums over rows
  are products with a vector, which read the inputs once each.
  """
  weights = tf.cast(mask, inputs.dtype)[tf.newaxis, :]  # [1, N]
  rows = tf.reduce_sum(weights)
  share = weights / tf.maximum(rows, 1.0)
  inputs = tf.where_v2(mask[:, tf.newaxis], inputs, 0.0)
  mean = tf.matmul(share, inputs)  # [1, D]
  variance = tf.matmul(share, tf.square(inputs - mean))  # [1, D]
  return mean[0], variance[0], rows
