"""Gradients of wide weights, as the products that they are.

Weights W [D, K] that multiply rows X [N, D] have the gradient X^T G, where
G [N, K] is that of X W. Where rows are videos and D is the length of their
descriptors, X and G are a small part of it, and what is done with a gradient
before it is applied is done with them:

  the sum over towers    of rows below each other, (X1; X2)^T (G1; G2)
  its multiple           X^T (s G)
  its squared norm       sum_ij (X X^T)_ij (G G^T)_ij

So the product is made once, when nothing else of the step is in memory, and
nothing goes over it but the update. Of weights in several parts (see
`pooling.linear`) each has its own.

Axes: N rows, D inputs of a row, K outputs.
"""

from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from pooling import products

# Rows of weights that are wide: parts of them are, too, see `pooling.linear`.
_WIDE = products.WIDE


class Factored(NamedTuple):
  """A gradient X^T G.

  Attributes:
    inputs: float32 [N, D], X.
    slopes: float32 [N, K], G.
  """

  inputs: Any
  slopes: Any

  @property
  def device(self):
    """Where the product is made."""
    return self.slopes.device

  def product(self, updates=()):
    """float32 [D, K].

    Args:
      updates: list of operations; those on the same device are awaited, since
        what they read would take memory beside it.
    """
    place = tf.DeviceSpec.from_string(self.device)
    first = [
      update
      for update in updates
      if tf.DeviceSpec.from_string(update.device) == place
    ]
    with tf.control_dependencies(first), tf.device(self.device):
      return tf.matmul(self.inputs, self.slopes, transpose_a=True)


def total(parts, num_rows):
  """The sum of towers' gradients, as `Factored` where that costs less.

  Args:
    parts: list of tensors, the gradients of one variable.
    num_rows: int, videos of all towers together, the most that there will be;
      0 if unknown.

  Returns:
    `Factored`, or a tensor.
  """
  if num_rows and all(_is_product(part, num_rows) for part in parts):
    inputs, slopes = zip(*(part.op.inputs for part in parts))
    if len(parts) == 1:
      return Factored(*inputs, *slopes)
    return Factored(tf.concat(inputs, axis=0), tf.concat(slopes, axis=0))
  return parts[0] if len(parts) == 1 else tf.add_n(parts)


def _is_product(gradient, num_rows):
  """Whether a tensor is X^T G, of few rows.

  Of many rows the norm is found faster from the product.
  """
  op = gradient.op
  if op.type != "MatMul" or not op.get_attr("transpose_a"):
    return False
  depth, units = (size or 0 for size in gradient.shape.as_list())
  is_wide = depth >= _WIDE and units >= 2 * num_rows
  return is_wide and not op.get_attr("transpose_b")


def square_norm(gradient):
  """float32 scalar, which is not finite if a number of the gradient is not."""
  with tf.device(gradient.device):
    if not isinstance(gradient, Factored):
      return 2.0 * tf.nn.l2_loss(gradient)
    inputs, slopes = gradient

    def of_factors():
      # Three times as fast as `tf.matmul` with a transposed factor.
      grams = [tf.einsum("nd,md->nm", rows, rows) for rows in gradient]
      # Rounding may leave less than nothing.
      return tf.abs(tf.reduce_sum(tf.multiply(*grams)))

    def of_product():
      return 2.0 * tf.nn.l2_loss(tf.matmul(inputs, slopes, transpose_a=True))

    # Rows of some model may be frames.
    are_few = tf.shape(slopes)[0] <= slopes.shape[1]
    return tf.cond(are_few, of_factors, of_product)


def same(gradient):
  """The gradient on its device, after the current control dependencies."""
  with tf.device(gradient.device):
    if isinstance(gradient, Factored):
      return gradient._replace(slopes=tf.identity(gradient.slopes))
    return tf.identity(gradient)
