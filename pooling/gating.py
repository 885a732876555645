"""Context gating (Miech, Laptev, Sivic 2017, arXiv:1706.06905, eq. 1).

And that with a bottleneck, from squeeze-and-excitation (Hu, Shen, Sun 2018,
arXiv:1709.01507, eq. 3), as NeXtVLAD has it.

Axes: B videos, D features.
"""

import tensorflow.compat.v1 as tf

from pooling import batch_norm as bn
from pooling import linear as linear_lib
from pooling import products


def context_gating(
  inputs,
  *,
  remove_diag,
  mode,
  scope="gating",
):
  """Reweights each feature by a learned gate: sigmoid(W x + b) * x.

  Args:
    inputs: float32 [B, D], D static.
    remove_diag: bool, take W's diagonal out, so that no feature gates itself.
    mode: `Mode`; with batch normalisation of W x, as the authors do, or b.
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
    gates = products.apply_weights(inputs, weights, dtype=mode.dtype)
    if remove_diag:
      gates -= inputs * tf.linalg.diag_part(weights)
    if mode.add_batch_norm:
      gates = bn.batch_norm(gates, mode=mode)
    else:
      gates += tf.get_variable(
        "biases", [depth], initializer=tf.zeros_initializer()
      )
    return inputs * tf.sigmoid(gates)


def bottleneck_gating(inputs, *, reduction, mode, scope="gating"):
  """Reweights each feature by a gate: sigmoid(relu(BN(x W_1)) W_2) * x.

  Args:
    inputs: float32 [B, D], D static.
    reduction: int >= 1; the bottleneck has D // reduction units, at least 1.
    mode: `Mode`; with batch normalisation in the bottleneck, or a bias.
    scope: variable scope; holds `squeeze` and `excite`.

  Returns:
    float32 [B, D].

  Raises:
    ValueError: inputs not of rank 2, D unknown, or reduction < 1.
  """
  depth = inputs.shape.with_rank(2).as_list()[1]
  if depth is None or reduction < 1:
    raise ValueError(
      f"Need static D and a reduction >= 1, got D={depth}, "
      f"reduction={reduction}."
    )
  units = max(1, depth // reduction)
  with tf.variable_scope(scope, values=[inputs]):
    squeezed = linear_lib.linear(
      inputs,
      units,
      mode=mode,
      weights_stddev=linear_lib.he_stddev(depth),
      scope="squeeze",
    )
    weights = tf.get_variable(
      "excite",
      [units, depth],
      initializer=tf.random_normal_initializer(
        stddev=linear_lib.he_stddev(units)
      ),
    )
    gates = products.apply_weights(
      tf.nn.relu(squeezed), weights, dtype=mode.dtype
    )
    return inputs * tf.sigmoid(gates)
