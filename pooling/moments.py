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
`squared_distances` and `gram` turn it off.

Padding, False in `mask`, may hold any finite value and counts nowhere, whatever
its weight.

Axes: B videos, T frames, D features, K centres, G groups of g features.
Tensors are float32 or float64, one and the same in a call.
"""

import functools

import tensorflow.compat.v1 as tf

from pooling import device, products
from pooling import sums as sums_lib
from pooling.affine_frames import AffineFrames
from pooling.frames import known_sizes, zero_padding

_COINCIDENCE = 1e-5
# Of a frame, which are not worth a loop.
_FEW_PRODUCTS, _FEW_RESIDUALS = 2048, 512


def squared_distances(frames, mask, centres):
  """|x_t - c_j|^2 of every frame to every centre.

  Args:
    frames: float [B, T, D].
    mask: bool [B, T], True on real frames.
    centres: float [K, D].

  Returns:
    float [B, T, K], >= 0; exactly 0, with a gradient of 0, where a frame
    coincides with a centre, and on padding.
  """
  device.need_float32()
  frames = zero_padding(frames, mask)
  lengths = tf.reduce_sum(tf.square(frames), axis=2, keepdims=True)  # [B, T, 1]
  scale = lengths + tf.reduce_sum(tf.square(centres), axis=1)  # [B, T, K]
  distances = scale - 2.0 * tf.einsum("btd,kd->btk", frames, centres)
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
  apart = distances > 0.0
  # The inner select keeps the gradient of the unused branch finite.
  safe = tf.where_v2(apart, distances, tf.ones([], distances.dtype))
  scaled = weights * (tf.math.rsqrt(safe) if power == 1 else 1.0 / safe)
  return tf.where_v2(apart, scaled, tf.zeros([], scaled.dtype))


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

  The squares are the diagonals of `second`: sum_t w_tj v_tj(i)^2.

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


def second(frames, mask, weights, centres, *, group_size):
  """Outer products of each centre's residuals, sum_t w_tj v_tj v_tj^T.

  Only of features in the same group: with g = D, of all. B T max(D, g^2) of the
  frames' products exist at a time, forward and backward; with fewer centres
  than g, and g = D or K D <= 512, B T K D numbers, the residuals themselves.

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
  num_centres = centres.shape.as_list()[0]
  blocks = [num_centres, depth // group_size, group_size]  # [K, G, g]
  # SecondOrderModel's step on features of 50 and 100 takes 7 % less by it.
  if num_centres < group_size and (
    group_size == depth or num_centres * depth <= _FEW_RESIDUALS
  ):
    residuals = _residuals(frames, tf.reshape(centres, blocks))
    by_centre = tf.linalg.matrix_transpose(weights)  # [B, K, T]
    weighted = residuals * by_centre[:, :, tf.newaxis, :, tf.newaxis]
    return tf.matmul(weighted, residuals, transpose_a=True)
  of_frames = _weighted_products(frames, weights, group_size)
  sums = tf.matmul(weights, frames, transpose_a=True)  # [B, K, D]
  mass = sums_lib.over(weights, 1)  # [B, K]
  # -s1 c^T - c s1^T + s0 c c^T is h + h^T of h = (s0 c / 2 - s1) c^T.
  half = tf.reshape(
    0.5 * mass[:, :, tf.newaxis] * centres - sums, [-1, *blocks]
  )
  cross = _outer(half, tf.reshape(centres, blocks))
  return of_frames + cross + tf.linalg.matrix_transpose(cross)


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
  offsets = 0.5 * lengths - tf.einsum("btd,kd->btk", frames, centres)  # b
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


def _residuals(frames, centres):
  """x_t - c_j of frames [B, T, D], centres [K, G, g]: float [B, K, G, T, g].

  TensorFlow's own gradient sums over videos and frames at once, which takes
  several times as long as one after the other.
  """

  @tf.custom_gradient
  def apart(frames, centres):
    # Not by [:, tf.newaxis], whose gradient copies.
    residuals = tf.expand_dims(frames, 1) - tf.expand_dims(centres, 2)

    def gradient(upstream):
      in_centres = tf.reduce_sum(tf.reduce_sum(upstream, axis=0), axis=2)
      return tf.reduce_sum(upstream, axis=1), -in_centres

    return residuals, gradient

  _, num_groups, group_size = centres.shape.as_list()
  sizes = [*known_sizes(frames)[:2], num_groups, group_size]
  frames = tf.transpose(tf.reshape(frames, sizes), [0, 2, 1, 3])
  return apart(frames, centres)  # Of frames [B, G, T, g].


def _outer(x, y):
  """x y^T along the last axis."""
  return x[..., :, tf.newaxis] * y[..., tf.newaxis, :]


def _weighted_products(frames, weights, group_size):
  """sum_t w_tj x_t x_t^T within groups: float [B, K, G, g, g].

  A few groups after the other, in a loop; frames' products are computed again
  for the gradient instead of kept. A training step of SecondOrderModel (16
  videos of 256 frames) takes 2.9 GB on a CPU instead of 3.4, and the same time.

  Args:
    frames: float [B, T, D].
    weights: float [B, T, K].
    group_size: int, g.
  """
  depth, num_centres = frames.shape.as_list()[2], weights.shape.as_list()[2]
  num_groups = depth // group_size
  # Groups at a time: as many as have no more products than D, or all if those
  # are few.
  most = max(1, depth // group_size**2)
  if depth * group_size <= _FEW_PRODUCTS:
    most = num_groups
  at_a_time = max(n for n in range(1, most + 1) if num_groups % n == 0)
  rounds = num_groups // at_a_time
  batch, length = known_sizes(frames)[:2]

  @tf.custom_gradient
  def weighted(pieces, weights):
    sums = tf.map_fn(
      lambda groups: tf.matmul(
        weights, _flat_products(groups), transpose_a=True
      ),
      pieces,
      parallel_iterations=1,
    )
    return sums, functools.partial(_products_gradient, pieces, weights)

  pieces = tf.transpose(
    tf.reshape(frames, [batch, length, rounds, at_a_time, group_size]),
    [2, 0, 1, 3, 4],
  )  # [rounds, B, T, at_a_time, g]
  sums = weighted(pieces, weights)  # [rounds, B, K, at_a_time g g]
  sums = tf.transpose(
    tf.reshape(sums, [rounds, batch, num_centres, at_a_time, -1]),
    [1, 2, 0, 3, 4],
  )
  return tf.reshape(
    sums, [batch, num_centres, num_groups, group_size, group_size]
  )


def _products_gradient(pieces, weights, upstream):
  """The gradient of the sums of `_weighted_products`.

  Args:
    pieces: float [rounds, B, T, n, g], n groups at a time.
    weights: float [B, T, K].
    upstream: float [rounds, B, K, n g g].

  Returns:
    (float [rounds, B, T, n, g], float [B, T, K]).
  """
  rounds, _, _, at_a_time, group_size = pieces.shape.as_list()
  blocks = [at_a_time, group_size, group_size]
  batch, length = known_sizes(weights)[:2]
  num_centres = weights.shape.as_list()[2]
  # d(x^T M x) = (M + M^T) x dx: M need not be symmetric.
  slopes = tf.reshape(upstream, [rounds, batch, num_centres, *blocks])
  slopes += tf.linalg.matrix_transpose(slopes)
  slopes = tf.reshape(slopes, [rounds, batch, num_centres, -1])

  def add_round(i, in_pieces, in_weights):
    groups = pieces[i]
    in_weights += tf.matmul(
      _flat_products(groups), upstream[i], transpose_b=True
    )
    matrices = tf.reshape(
      tf.matmul(weights, slopes[i]), [batch, length, *blocks]
    )
    in_groups = tf.linalg.matvec(matrices, groups)
    return i + 1, in_pieces.write(i, in_groups), in_weights

  _, in_pieces, in_weights = tf.while_loop(
    lambda i, *_: i < rounds,
    add_round,
    (
      0,
      tf.TensorArray(pieces.dtype, rounds, element_shape=pieces.shape[1:]),
      tf.zeros_like(weights),
    ),
    parallel_iterations=1,
  )
  return in_pieces.stack(), in_weights


def _flat_products(groups):
  """Products within groups [B, T, n, g]: float [B, T, n g g]."""
  _, _, at_a_time, group_size = groups.shape.as_list()
  return tf.reshape(
    _outer(groups, groups),
    [*known_sizes(groups)[:2], at_a_time * group_size**2],
  )
