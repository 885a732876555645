"""Context gating (Miech, Laptev, Sivic 2017, arXiv:1706.06905, eq. 1).

Axes: B videos, D features.
"""

import tensorflow.compat.v1 as tf

from pooling import batch_norm as bn
from pooling import products


def context_gating(
  inputs,
  *,
  add_batch_norm,
  remove_diag,
  is_training,
  batch_norm_decay,
  scope="gating",
):
  """Reweights each feature by a learned gate: sigmoid(W x + b) * x.

  Args:
    inputs: float32 [B, D], D static.
    add_batch_norm: bool, normalise W x instead of adding b, as the authors do.
    remove_diag: bool, take W's diagonal out, so that no feature gates itself.
    is_training: bool.
    batch_norm_decay: float, see `batch_norm`.
    scope: variable scope; holds `weights` and `biases` or `batch_norm`.

  Returns:
    float32 [B, D].

  Raises:
    ValueError: inputs not of rank 2, or D unknown.
  """
  depth = inputs.shape.with_rank(2).as_list()[1]
  if depth is None:
    raise ValueError("Need static D, got an input of shape [B, unknown].")
  with tf.variable_scope(scope, values=[inputs]):
    weights = tf.get_variable(
      "weights",
      [depth, depth],
      initializer=tf.random_normal_initializer(stddev=depth**-0.5),
    )
    gates = products.matmul(inputs, weights)
    if remove_diag:
      gates -= inputs * tf.linalg.diag_part(weights)
    if add_batch_norm:
      gates = bn.batch_norm(
        gates, is_training=is_training, decay=batch_norm_decay
      )
    else:
      gates += tf.get_variable(
        "biases", [depth], initializer=tf.zeros_initializer()
      )
    return inputs * tf.sigmoid(gates)
