"""Soft-assigned moments of residuals, by matrix products only.

The one kernel of all aggregations: VLAD, normalised residuals, second order,
whitening statistics and Gram matrices are sums over frames of residuals
v_tj = x_t - c_j to centres c_j under weights w_tj. Expanded, none of them needs
the [B, T, K, D] residuals:

  sum_t w v     = s1 - s0 c
  sum_t w v v^T = S2 - s1 c^T - c s1^T + s0 c c^T
  |v_tj|^2      = |x_t|^2 - 2 x_t.c_j + |c_j|^2
  v_ij.v_kj     = x_i.x_k + b_ij + b_kj

with s0 = sum_t w, s1 = sum_t w x, S2 = sum_t w x x^T for each centre, and
b_tj = |c_j|^2 / 2 - x_t.c_j.

Where a frame coincides with a centre, its direction v / |v| is taken as zero,
and so is its gradient. In floating point |v|^2 is the difference of numbers of
the size of |x|^2 + |c|^2, with an error of up to 1e-6 of them in float32. Below
1e-5 of that sum, where v is shorter than about 0.4 % of the two vectors, the
frame counts as coinciding. Products in TF32 have a larger error than that:
`squared_distances` and `gram` turn it off. Of `AffineFrames` x f + o the two
vectors are x f and c - o.

Padding, False in `mask`, may hold any finite value and counts nowhere, whatever
its weight.

Axes: B videos, T frames, D features, K centres, G groups of g features.
Tensors are float32 or float64, one and the same in a call.
"""

import tensorflow.compat.v1 as tf

from pooling import device, products
from pooling import sums as sums_lib
from pooling.affine_frames import AffineFrames
from pooling.frames import zero_padding

_COINCIDENCE = 1e-5


def squared_distances(frames, mask, centres):
  """|x_t - c_j|^2 of every frame to every centre.

  Args:
    frames: float [B, T, D], or `AffineFrames`.
    mask: bool [B, T], True on real frames.
    centres: float [K, D].

  Returns:
    float [B, T, K], >= 0; exactly 0, with a gradient of 0, where a frame
    coincides with a centre, and on padding.
  """
  device.need_float32()
  if isinstance(frames, AffineFrames):
    # The factor has a gradient, in which padding must not be.
    frames = zero_padding(frames, mask)
    raw, factor, shifts = frames.raw, frames.factor, frames.offset - centres
    squares = products.of_frames(
      tf.square(raw), tf.square(factor)[:, tf.newaxis]
    )
  else:
    raw, factor, shifts = frames, 1.0, -centres
    squares = tf.reduce_sum(tf.square(raw), axis=2, keepdims=True)  # [B, T, 1]
  # |x f + h|^2 = |x f|^2 + |h|^2 + 2 x.f h, where h = o - c
  scale = squares + tf.reduce_sum(tf.square(shifts), axis=1)  # [B, T, K]
  distances = scale + products.of_frames(
    raw, 2.0 * factor * shifts, transpose_b=True
  )
  apart = distances > _COINCIDENCE * scale
  apart &= mask[:, :, tf.newaxis]
  return tf.where_v2(apart, distances, tf.zeros([], distances.dtype))


def per_length(weights, distances, power):
  """Weights of directions: w / |v|^power.

  Args:
    weights: float, broadcasts to [B, T, K].
    distances: float [B, T, K], what `squared_distances` returned.
    power: 1 for sums of v / |v|, 2 for sums of v v^T / |v|^2.

  Returns:
    float [B, T, K]; 0 where a frame coincides with a centre.

  Raises:
    ValueError: another power.
  """
  if power not in (1, 2):
    raise ValueError(f"Need power 1 or 2, got {power}.")
  inverse = inverse_lengths(distances)
  return weights * (inverse if power == 1 else tf.square(inverse))


@tf.custom_gradient
def inverse_lengths(distances):
  """1 / |v|; 0, as its gradient, where a frame coincides with a centre.

  Args:
    distances: float [B, T, K], what `squared_distances` returned.

  Returns:
    float [B, T, K].
  """
  zero = tf.zeros([], distances.dtype)
  inverse = tf.where_v2(distances > 0.0, tf.math.rsqrt(distances), zero)

  def gradient(upstream):
    return -0.5 * upstream * inverse * tf.square(inverse)

  return inverse, gradient


def zeroth(mask, weights):
  """The mass of each centre, sum_t w_tj.

  Args:
    mask: bool [B, T], True on real frames.
    weights: float [B, T, K].

  Returns:
    float [B, K]; zeros for an empty video.
  """
  return sums_lib.over(zero_padding(weights, mask), 1)


def first(frames, mask, weights, centres, *, dtype=None):
  """The sum of each centre's residuals, sum_t w_tj v_tj.

  Args:
    frames: float [B, T, D], or `AffineFrames`.
    mask: bool [B, T], True on real frames.
    weights: float [B, T, K].
    centres: float [K, D], or None for c = 0.
    dtype: of the product, see `products.matmul`.

  Returns:
    float [B, K, D]; zeros for an empty video.
  """
  weights = zero_padding(weights, mask)
  shift = None if centres is None else -centres
  if isinstance(frames, AffineFrames):
    sums = frames.factor * first(frames.raw, mask, weights, None, dtype=dtype)
    shift = frames.offset if shift is None else frames.offset + shift
  else:
    # Padding is finite, and its weight 0.
    sums = products.matmul(weights, frames, transpose_a=True, dtype=dtype)
  if shift is None:
    return sums
  return sums + sums_lib.over(weights, 1)[:, :, tf.newaxis] * shift


def first_and_squares(frames, mask, weights, centres, *, dtype=None):
  """The sums of each centre's residuals, and of their squares.

  The squares are the diagonals of `second_moments.second`.

  Args:
    frames: float [B, T, D].
    mask: bool [B, T], True on real frames.
    weights: float [B, T, K].
    centres: float [K, D].
    dtype: of the first moment's product, see `products.matmul`. That of x^2 is
      float32. The sums' rounding enters the squares times c: bfloat16 changed
      NetFV's second half by 1e-4 of its length at the start, and by 1e-3 with
      centres as long as frames.

  Returns:
    (float [B, K, D], float [B, K, D]); zeros for an empty video.
  """
  sums = first(frames, mask, weights, centres, dtype=dtype)
  weights, frames = zero_padding(weights, mask), zero_padding(frames, mask)
  squares = tf.matmul(weights, tf.square(frames), transpose_a=True)
  mass = sums_lib.over(weights, 1)[:, :, tf.newaxis]
  # sum w v^2 = sum w x^2 - 2 c s1 + s0 c^2, and s1 = sums + s0 c.
  return sums, squares - centres * (2.0 * sums + mass * centres)


def gram(frames, mask, weights, centres, *, order=1):
  """Inner products of the frames' embeddings, never formed.

  The embedding of frame t is the concatenation over centres of w_tj v_tj
  (order 1), or of w_tj v_tj v_tj^T flattened (order 2). Needs T x T products
  only: K_ik = sum_j w_ij w_kj (v_ij.v_kj)^order.

  Args:
    frames: float [B, T, D].
    mask: bool [B, T], True on real frames.
    weights: float [B, T, K].
    centres: float [K, D], or None for c = 0.
    order: 1 or 2.

  Returns:
    float [B, T, T], symmetric; zeros on padding, and for a frame whose own
    entry is nothing but rounding: it coincides with the centres it belongs to.

  Raises:
    ValueError: another order.
  """
  if order not in (1, 2):
    raise ValueError(f"Need order 1 or 2, got {order}.")
  frames = zero_padding(frames, mask)
  weights = zero_padding(weights, mask)
  device.need_float32()
  dots = tf.matmul(frames, frames, transpose_b=True)  # x_i.x_k
  shared = tf.matmul(weights, weights, transpose_b=True)  # sum_j w_ij w_kj
  if centres is None:
    return (dots if order == 1 else tf.square(dots)) * shared
  lengths = tf.reduce_sum(tf.square(centres), axis=1)  # [K]
  offsets = 0.5 * lengths - products.of_frames(
    frames, centres, transpose_b=True
  )  # b
  offset_weights = weights * offsets
  mixed = tf.matmul(offset_weights, weights, transpose_b=True)
  mixed += tf.linalg.matrix_transpose(mixed)  # sum_j w_ij w_kj (b_ij + b_kj)
  if order == 1:
    result = dots * shared + mixed
  else:
    # (x_i.x_k + b_ij + b_kj)^2, term by term.
    squares = tf.matmul(offset_weights * offsets, weights, transpose_b=True)
    squares += tf.linalg.matrix_transpose(squares)
    squares += 2.0 * tf.matmul(offset_weights, offset_weights, transpose_b=True)
    result = dots * (dots * shared + 2.0 * mixed) + squares
  scale = tf.reduce_sum(tf.square(frames), axis=2, keepdims=True) + lengths
  rounding = _COINCIDENCE * tf.reduce_sum(
    tf.square(weights) * tf.pow(scale, order), axis=2
  )
  counts = tf.linalg.diag_part(result) > rounding  # [B, T]
  counts = counts[:, :, tf.newaxis] & counts[:, tf.newaxis, :]
  return tf.where_v2(counts, result, tf.zeros([], result.dtype))
