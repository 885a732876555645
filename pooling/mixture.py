"""A mixture of models, and what they learn from it online.

Lin, Xiao, Fan 2018 (arXiv:1811.05014), section 3.3.

Axes: B videos, D features, N branches, C classes.
"""

import tensorflow.compat.v1 as tf

from pooling import batch_norm as bn
from pooling import linear as linear_lib

# What the authors add to probabilities before their logarithm.
_EPSILON = 1e-8


def branch_weights(inputs, num_branches, *, mode, scope="mixture"):
  """How much each branch counts for a video: softmax(BN(x) W + b).

  Args:
    inputs: float32 [B, D], D static: a video's mean frame.
    num_branches: int, N >= 1.
    mode: `Mode`.
    scope: variable scope; holds `input_bn`, `weights` and `biases`.

  Returns:
    float32 [B, N], rows sum to 1.

  Raises:
    ValueError: see `linear`.
  """
  with tf.variable_scope(scope, values=[inputs]) as own:
    inputs = bn.batch_norm(inputs, mode=mode, scope="input_bn")
    return tf.nn.softmax(
      linear_lib.linear(
        inputs, num_branches, mode=mode.with_batch_norm(False), scope=own
      )
    )


def divergence(mixed, branches, *, temperature):
  """How far the branches' classes are from the mixture's.

  mean_b sum_n KL(softmax_C(z_e / T) || softmax_C(z_n / T)). Gradients go both
  ways, as published.

  Args:
    mixed: float32 [B, C], z_e.
    branches: list of float32 [B, C], z_n.
    temperature: float > 0, T.

  Returns:
    float32 scalar; 0 without any video.
  """
  target = tf.nn.softmax(mixed / temperature)
  terms = [
    target
    * (
      tf.log(target + _EPSILON)
      - tf.log(tf.nn.softmax(branch / temperature) + _EPSILON)
    )
    for branch in branches
  ]
  rows = tf.cast(tf.shape(mixed)[0], mixed.dtype)
  return tf.reduce_sum(tf.add_n(terms)) / tf.maximum(rows, 1.0)
