"""Second moments of residuals, sum_t w_tj v_tj v_tj^T, v_tj = x_t - c_j.

Of few features at a time they are made of squares alone,

  2 sum_t w v_a v_b = sum_t w (v_a + v_b)^2 - sum_t w v_a^2 - sum_t w v_b^2,

so that all pairs of features of a frame, and their gradients, come by products
with a constant matrix Q of zeros and ones, y = x Q:

  sum_t w (y_t - c Q)^2 = sum_t w y_t^2 + 2 (c Q) * (h Q),

h = s0 c / 2 - s1, with the moments s0 and s1 of `moments`. Neither products of
single features nor residuals are formed, and what is symmetric is computed
once. A training step of SecondOrderModel (features of 50 and 100, 16 centres,
128 videos of 24 frames) takes 15 % less processor time than by outer products.

Padding, False in `mask`, may hold any finite value and counts nowhere.

Axes: B videos, T frames, D features, K centres, G groups of g features, and
P = g (g + 1) / 2 pairs of a group, each feature with itself among them.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from pooling import device
from pooling import sums as sums_lib
from pooling.frames import known_sizes, zero_padding

# Features of a group of which all pairs are taken: Q costs g^3 operations a
# frame, residuals K g^2.
_FEW = 32
# Centres that need no loop. A step of SecondOrderModel (features of 50 and 100,
# 128 videos of 24 frames) takes 6 % less time without one.
_UNROLLED = 4


def second(frames, mask, weights, centres, *, group_size):
  """Outer products of each centre's residuals, sum_t w_tj v_tj v_tj^T.

  Only of features in the same group: with g = D, of all. Groups of up to 32
  features take B T D (g + 1) / 2 numbers, which are kept for the gradient;
  larger groups, and few centres, 8 K <= g, take B T D for each centre, of up to
  four centres at a time.

  Args:
    frames: float [B, T, D], D static.
    mask: bool [B, T], True on real frames.
    weights: float [B, T, K].
    centres: float [K, D], K static.
    group_size: int, g, a divisor of D.

  Returns:
    float [B, K, G, g, g], symmetric; zeros for an empty video.

  Raises:
    ValueError: D unknown, or g does not divide it.
  """
  depth = frames.shape.with_rank(3).as_list()[2]
  if depth is None or group_size < 1 or depth % group_size:
    raise ValueError(
      "Need static D and a group_size >= 1 that divides it, got "
      f"D={depth}, group_size={group_size}."
    )
  weights = zero_padding(weights, mask)
  frames = zero_padding(frames, mask)
  if _is_by_centre(centres, group_size):
    return _by_centre(frames, weights, centres, group_size)
  rows, columns = np.triu_indices(group_size)
  pairs = _of_pairs(frames, weights, centres, np.ones([len(rows)]))
  unfolding = np.zeros([len(rows), group_size, group_size])
  for i, (a, b) in enumerate(zip(rows, columns)):
    unfolding[i, a, b] = unfolding[i, b, a] = 1.0 if a == b else 0.5
  matrices = tf.matmul(
    tf.reshape(pairs, [-1, len(rows)]),
    tf.constant(unfolding.reshape([len(rows), -1]), pairs.dtype),
  )
  num_centres = centres.shape.as_list()[0]
  return tf.reshape(
    matrices, [-1, num_centres, depth // group_size, group_size, group_size]
  )


def triangles(frames, mask, weights, centres):
  """`upper_triangle` of the outer products of all features' residuals.

  Args:
    frames: float [B, T, D], D static.
    mask: bool [B, T], True on real frames.
    weights: float [B, T, K].
    centres: float [K, D], K static.

  Returns:
    float [B, K, D (D + 1) / 2]; zeros for an empty video.
  """
  depth = frames.shape.with_rank(3).as_list()[2]
  if _is_by_centre(centres, depth):
    matrices = second(frames, mask, weights, centres, group_size=depth)
    return upper_triangle(tf.squeeze(matrices, axis=2))
  rows, columns = np.triu_indices(depth)
  return _of_pairs(
    zero_padding(frames, mask),
    zero_padding(weights, mask),
    centres,
    np.where(rows == columns, 1.0, 0.5**0.5),
  )


def upper_triangle(matrices):
  """F(M): the upper triangles of symmetric matrices, off-diagonal times √2.

  The factor keeps dot products: F(M).F(N) = sum_ij M_ij N_ij.

  Args:
    matrices: float [B, K, D, D], D static.

  Returns:
    float [B, K, D (D + 1) / 2], row after row.
  """
  depth = matrices.shape.with_rank(4).as_list()[3]
  rows, columns = np.triu_indices(depth)
  factors = np.where(rows == columns, 1.0, 2.0**0.5)
  factors = tf.constant(factors, matrices.dtype)
  batch, num_centres = known_sizes(matrices)[:2]
  # Of a row after the other, what is left of the diagonal and what is not.
  left, upper = range(depth), range(depth, 0, -1)

  @tf.custom_gradient
  def triangle(flat):
    # A gather of single numbers, and its gradient, take several times as long.
    sizes = [size for pair in zip(left, upper) for size in pair]
    parts = tf.split(flat, sizes, axis=2)[1::2]

    def gradient(upstream):
      parts = tf.split(upstream * factors, upper, axis=2)
      # TensorFlow's own gradient makes zeros for each row: 3 % of a step.
      zeros = tf.zeros([batch, num_centres, sum(left)], upstream.dtype)
      zeros = tf.split(zeros, left, axis=2)
      pairs = [part for pair in zip(zeros, parts) for part in pair]
      return tf.concat(pairs, axis=2)

    return tf.concat(parts, axis=2) * factors, gradient

  return triangle(tf.reshape(matrices, [batch, num_centres, depth * depth]))


def _is_by_centre(centres, group_size):
  """Whether residuals of each centre take less than pairs of features."""
  return group_size > _FEW or 8 * centres.shape.as_list()[0] <= group_size


def _of_pairs(frames, weights, centres, factors):
  """sum_t w v_a^2 of one feature, 2 sum_t w v_a v_b of two, times factors.

  Args:
    frames: float [B, T, D], zero on padding.
    weights: float [B, T, K], zero on padding.
    centres: float [K, D].
    factors: float array [P].

  Returns:
    float [B, K, G P].
  """
  device.need_float32()
  # Residuals stay, and what is subtracted from squares gets small.
  shift = tf.stop_gradient(tf.reduce_mean(centres, axis=0))
  frames, centres = frames - shift, centres - shift
  num_centres, depth = centres.shape.as_list()
  group_size = int((2 * len(factors)) ** 0.5)
  one, other = (
    np.eye(group_size)[:, indices] for indices in np.triu_indices(group_size)
  )  # [g, P]
  is_pair = (one != other).any(axis=0)
  adding = (one + other * is_pair) * factors**0.5
  adding = tf.constant(adding, frames.dtype)
  of_two = tf.constant((one + other) * is_pair * -factors, frames.dtype)

  def times(vectors, matrix):
    """Each group of [..., D] times [g, P]: [B or 1, K, G P]."""
    rows = tf.matmul(tf.reshape(vectors, [-1, group_size]), matrix)
    width = depth // group_size * len(factors)
    return tf.reshape(rows, [-1, num_centres, width])

  sums = tf.matmul(weights, frames, transpose_a=True)  # s1 [B, K, D]
  mass = sums_lib.over(weights, 1)[:, :, tf.newaxis]  # [B, K, 1]
  half = 0.5 * mass * centres - sums
  squares = tf.matmul(weights, tf.square(frames), transpose_a=True)
  squares += 2.0 * centres * half  # sum_t w v^2
  cross = times(2.0 * centres, adding) * times(half, adding)
  of_frames = _sums_of_squares(frames, weights, adding)
  return of_frames + cross + times(squares, of_two)


def _sums_of_squares(frames, weights, matrix):
  """sum_t w_tj (x_t Q)^2 of groups: float [B, K, G P].

  Args:
    frames: float [B, T, D].
    weights: float [B, T, K].
    matrix: float [g, P], Q.
  """
  group_size, num_pairs = matrix.shape.as_list()
  batch, length, depth = known_sizes(frames)
  width = depth // group_size * num_pairs

  @tf.custom_gradient
  def squares(frames, weights):
    sums = tf.matmul(tf.reshape(frames, [-1, group_size]), matrix)
    sums = tf.reshape(sums, [batch, length, width])

    def gradient(upstream):
      slopes = tf.reshape(sums * tf.matmul(weights, upstream), [-1, num_pairs])
      in_frames = tf.matmul(slopes, 2.0 * matrix, transpose_b=True)
      # Squared again, not kept.
      in_weights = tf.matmul(tf.square(sums), upstream, transpose_b=True)
      return tf.reshape(in_frames, [batch, length, depth]), in_weights

    return tf.matmul(weights, tf.square(sums), transpose_a=True), gradient

  return squares(frames, weights)


def _by_centre(frames, weights, centres, group_size):
  """`second`, centre by centre: residuals of B T D numbers, not kept."""
  num_centres, depth = centres.shape.as_list()
  num_groups = depth // group_size
  batch, length, _ = known_sizes(frames)
  frames = tf.reshape(frames, [batch, length, num_groups, group_size])
  frames = tf.transpose(frames, [0, 2, 1, 3])

  @tf.custom_gradient
  def of_centre(frames, weights, centre):
    """Of [B, G, T, g], [B, 1, T, 1] and [G, 1, g]: [B, G, g, g]."""
    residuals = frames - centre
    products = tf.matmul(weights * residuals, residuals, transpose_a=True)

    def gradient(upstream):
      # Computed again, not kept.
      residuals = frames - centre
      upstream += tf.linalg.matrix_transpose(upstream)
      slopes = tf.matmul(residuals, upstream)
      in_frames = weights * slopes
      in_weights = 0.5 * tf.reduce_sum(
        residuals * slopes, axis=[1, 3], keepdims=True
      )
      in_centre = tf.reduce_sum(in_frames, axis=[0, 2])[:, tf.newaxis]
      return in_frames, in_weights, -in_centre

    return products, gradient

  weights = tf.reshape(weights, [batch, 1, length, 1, num_centres])
  centres = tf.reshape(centres, [num_centres, num_groups, 1, group_size])
  if num_centres <= _UNROLLED:
    parts = zip(tf.unstack(weights, axis=4), tf.unstack(centres))
    return tf.stack([of_centre(frames, *part) for part in parts], axis=1)
  products = tf.map_fn(
    lambda given: of_centre(frames, *given),
    (tf.transpose(weights, [4, 0, 1, 2, 3]), centres),
    parallel_iterations=1,
    fn_output_signature=frames.dtype,
  )
  return tf.transpose(products, [1, 0, 2, 3, 4])
