"""A linear layer with batch normalisation or a bias. Axes: N rows, D, K."""

import math

import tensorflow.compat.v1 as tf

from pooling import batch_norm as bn
from pooling import products
from pooling.affine_frames import AffineFrames

# Bytes of weights that training holds as one variable: their gradient takes as
# much, and is made part by part. A part has `products.WIDE` rows or more: the
# gradients of less wide ones are all made at the same time.
_PART_BYTES = 1 << 28


def he_stddev(fan_in):
  """Deviation of weights that keeps the size of what ReLUs see, float.

  He et al. 2015 (arXiv:1502.01852), as `slim.variance_scaling_initializer`.
  """
  return (2.0 / fan_in) ** 0.5


def linear(
  inputs,
  units,
  *,
  mode,
  mask=None,
  input_map=None,
  of_frames=False,
  weights_stddev=None,
  biases_stddev=0.0,
  scope="linear",
):
  """W x, then batch normalisation if asked for, else + b.

  Args:
    inputs: float32 [N, D], D static.
    units: int, K >= 1.
    mode: `Mode`; batch normalisation has an offset of its own, so that a bias
      before it would do nothing.
    mask: bool [N] or None, see `batch_norm`.
    input_map: (float32 [D], float32 [D]) or None; if given, x stands for
      x factor + offset (see `affine_frames`).
    of_frames: bool, rows are frames, many more than videos: then the product
      has no gradient of its own, and wide weights no parts.
    weights_stddev: float, of the weights at the start; None for D**-0.5.
    biases_stddev: float, of the biases at the start; None for no biases.
    scope: variable scope; holds `weights`, and `batch_norm` or `biases`. In
      training, wide weights of over 256 MB are several variables, which a
      checkpoint holds as one.

  Returns:
    float32 [N, K].

  Raises:
    ValueError: inputs not of rank 2, D unknown, or K < 1.
  """
  depth = inputs.shape.with_rank(2).as_list()[1]
  if depth is None or units < 1:
    raise ValueError(f"Need static D and K >= 1, got D={depth}, K={units}.")
  with tf.variable_scope(scope, values=[inputs]):
    stddev = depth**-0.5 if weights_stddev is None else weights_stddev
    parts = _weights(depth, units, stddev, mode.is_training and not of_frames)
    if len(parts) > 1:
      outputs = products.apply_parts(inputs, parts, dtype=mode.dtype)
    else:
      outputs = _product(inputs, parts[0], input_map, of_frames, mode.dtype)
    if mode.add_batch_norm:
      return bn.batch_norm(outputs, mode=mode, mask=mask)
    if biases_stddev is None:
      return outputs
    biases = tf.get_variable(
      "biases",
      [units],
      initializer=tf.random_normal_initializer(stddev=biases_stddev),
    )
    # Its gradient is faster than that of a sum, which broadcasts.
    return tf.nn.bias_add(outputs, biases)


def penalised(inputs, units, *, l2, has_biases=True, scope):
  """W x + b, with a penalty of l2 |W|^2 / 2: what starter-code classifiers are.

  The penalty is added to `tf.GraphKeys.REGULARIZATION_LOSSES`.

  Args:
    inputs: float32 [N, D], D static, N the videos of a batch.
    units: int, K >= 1.
    l2: float >= 0; there is no penalty with 0.
    has_biases: bool, whether there is b.
    scope: variable scope; holds `weights`, Glorot-uniform at the start, and
      `biases`, which start at 0.

  Returns:
    float32 [N, K].
  """
  depth = inputs.shape.with_rank(2).as_list()[1]
  with tf.variable_scope(scope, values=[inputs]):
    weights = tf.get_variable(
      "weights",
      [depth, units],
      initializer=tf.glorot_uniform_initializer(),
      regularizer=(lambda w: l2 * tf.nn.l2_loss(w)) if l2 else None,
    )
    outputs = products.apply_weights(inputs, weights)
    if not has_biases:
      return outputs
    biases = tf.get_variable(
      "biases", [units], initializer=tf.zeros_initializer()
    )
    return tf.nn.bias_add(outputs, biases)


def _weights(depth, units, stddev, may_be_parts):
  """Makes the weights.

  Args:
    depth: int, D.
    units: int, K.
    stddev: float, of the weights at the start.
    may_be_parts: bool, whether wide ones may be several variables.

  Returns:
    list of a variable, float32 [D, K], or of its parts, rows below each other.
  """
  num_parts = 1
  if may_be_parts:
    num_bytes = depth * units * tf.float32.size
    num_parts = min(math.ceil(num_bytes / _PART_BYTES), depth // products.WIDE)
  initializer = tf.random_normal_initializer(stddev=stddev)
  shape = [depth, units]
  if num_parts <= 1:
    return [tf.get_variable("weights", shape, initializer=initializer)]
  partitioner = tf.fixed_size_partitioner(num_parts)
  return list(
    tf.get_variable(
      "weights", shape, initializer=initializer, partitioner=partitioner
    )
  )


def _product(inputs, weights, input_map, of_frames, dtype):
  """W x, where x stands for its map if there is one, see `linear`."""
  multiply = products.matmul if of_frames else products.apply_weights
  if input_map is None:
    return multiply(inputs, weights, dtype=dtype)
  factor, offset = input_map
  return tf.nn.bias_add(
    multiply(inputs, factor[:, tf.newaxis] * weights, dtype=dtype),
    tf.linalg.matvec(weights, offset, transpose_a=True),
  )


def linear_frames(frames, mask, units, **kwargs):
  """`linear` on each frame, its batch norm over real frames only.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`.
    mask: bool [B, T], True on real frames.
    units: int, K >= 1.
    **kwargs: as `linear`, except `mask`, `input_map` and `of_frames`.

  Returns:
    float32 [B, T, K]; rows of padding hold no meaning.

  Raises:
    ValueError: frames not of rank 3, D unknown, or K < 1.
  """
  depth = frames.shape.with_rank(3).as_list()[2]
  if depth is None:
    raise ValueError(f"Need static D, got frames of shape {frames.shape}.")
  input_map = None
  if isinstance(frames, AffineFrames):
    input_map = frames.factor, frames.offset
    frames = frames.raw
  outputs = linear(
    tf.reshape(frames, [-1, depth]),
    units,
    mask=tf.reshape(mask, [-1]),
    input_map=input_map,
    of_frames=True,
    **kwargs,
  )
  shape = tf.shape(frames)
  return tf.reshape(outputs, [shape[0], shape[1], units])
