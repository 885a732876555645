"""Matrix products: in what precision they are made, and wide ones' gradients.

Axes: N rows, D inputs of a row, K outputs.
"""

import tensorflow.compat.v1 as tf

from pooling.frames import known_sizes

# Rows of weights that are wide, and how many of them are multiplied at a time.
# Less wide ones gain nothing, or belong to the frames of a Transformer.
WIDE, _BLOCK = 8192, 512


def matmul(a, b, *, transpose_a=False, transpose_b=False, dtype=None):
  """`tf.matmul` in a precision of its own.

  What goes in is rounded to it, what comes out is of the type that went in; so
  are gradients. Sums within a product are float32 on every device.

  Args:
    a: float [..., N, D], or [..., D, N] with transpose_a.
    b: float [..., D, K], or [..., K, D] with transpose_b.
    transpose_a: bool.
    transpose_b: bool.
    dtype: tf.bfloat16, or None for a's own type.

  Returns:
    [..., N, K] of a's type.
  """
  dtype = dtype or a.dtype
  outputs = tf.matmul(
    tf.cast(a, dtype),
    tf.cast(b, dtype),
    transpose_a=transpose_a,
    transpose_b=transpose_b,
  )
  return tf.cast(outputs, a.dtype)


def of_frames(frames, matrix, transpose_b=False):
  """Frames [B, T, D] times a matrix [D, K]: [B, T, K].

  One plain product, which takes a CPU a third of the time of an einsum.
  """
  batch, length, depth = known_sizes(frames)
  outputs = tf.matmul(
    tf.reshape(frames, [-1, depth]), matrix, transpose_b=transpose_b
  )
  units = matrix.shape.as_list()[0 if transpose_b else 1]
  return tf.reshape(outputs, [batch, length, units])


def apply_weights(inputs, weights, *, dtype=None):
  """Rows times a matrix of weights, as `matmul`, with a fast gradient.

  The gradient of the inputs multiplies few rows with the transpose of the
  weights. Where these have the hundreds of thousands of rows of a descriptor,
  CPU kernels spend most of that product on turning them round: at N=80,
  D=278,528, K=1,024 it took 0.61 s on 2 cores, where the other two products of
  that size took 0.24 s each. In blocks that fit into the cache it takes 0.25 s,
  which is 19 % of a training step of NetVLADModelLF (7 % at N=16, D=69,632,
  K=512).

  Args:
    inputs: float [N, D].
    weights: float [D, K], static.
    dtype: see `matmul`.

  Returns:
    [N, K] of the inputs' type.
  """
  depth, units = weights.shape.as_list()
  if depth < WIDE:
    return matmul(inputs, weights, dtype=dtype)
  num_blocks, rest = divmod(depth, _BLOCK)

  def times_transposed(rows):
    """Rows [N, K] times the transposed weights: [N, D]."""
    blocks = tf.reshape(weights[: depth - rest], [num_blocks, _BLOCK, units])
    by_block = tf.matmul(rows[tf.newaxis], blocks, transpose_b=True)
    outputs = tf.reshape(tf.transpose(by_block, [1, 0, 2]), [-1, depth - rest])
    if not rest:
      return outputs
    last = tf.matmul(rows, weights[depth - rest :], transpose_b=True)
    return tf.concat([outputs, last], axis=1)

  @tf.custom_gradient
  def product(inputs, weights):
    def gradient(upstream):
      of_weights = tf.matmul(inputs, upstream, transpose_a=True)
      return times_transposed(upstream), of_weights

    return tf.matmul(inputs, weights), gradient

  # Outside of `product`, whose gradient is then of this type too.
  dtype = dtype or inputs.dtype
  weights = tf.cast(weights, dtype)
  outputs = product(tf.cast(inputs, dtype), weights)
  return tf.cast(outputs, inputs.dtype)


def apply_parts(inputs, parts, *, dtype=None):
  """`apply_weights` of weights in several parts, one below the other.

  Args:
    inputs: float [N, D].
    parts: list of float [D of the part, K], static.
    dtype: see `matmul`.

  Returns:
    [N, K] of the inputs' type.
  """
  pieces = tf.split(inputs, [part.shape.as_list()[0] for part in parts], axis=1)
  return tf.add_n(
    [
      apply_weights(piece, part, dtype=dtype)
      for piece, part in zip(pieces, parts)
    ]
  )
