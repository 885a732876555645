"""Whitened sums of unit residuals: equations (5), (6), (8) of the paper.

Jégou & Zisserman 2014: the residuals of a centre, scaled to unit length, are
freed of their mean and decorrelated before they are summed,

  phi_j(x) = C_j^{-1/2} (r_j(x) - mu_j),    r_j(x) = (x - c_j) / |x - c_j|,

with mean mu_j and covariance C_j of r_j over real frames. Both are moving
averages over the batches, in training as in evaluation: frames of one video are
alike, so that a batch of four videos, as the paper has them on a GPU, says
little of a covariance. Whitened by its own statistics alone, its descriptors
had a cosine of 0.76 to 0.83 with those of evaluation. As in batch
renormalisation (Ioffe 2017, arXiv:1702.03275), gradients flow as if the batch's
statistics had been used, so that no step is taken which these would undo. Those
of a large batch are taken from 512 of its real frames: for batch norm, too, a
few that are not alike do as well (Chen et al. 2018, arXiv:1810.10962).

Whitening is linear and commutes with the soft-assigned sum, so that it is
applied to K sums a video instead of K residuals a frame:

  sum_t a_tj phi_j(x_t) = C_j^{-1/2} (sum_t a_tj r_tj - mu_j sum_t a_tj).

Departures: equation (5) whitens the concatenation of all centres' residuals by
one [K D, K D] covariance; here each centre has its own, and within it only
features in the same group of g neighbours are decorrelated (g = 1 scales each
feature alone). Covariances are shrunk towards the identity, by 2e-6 of the
group's total variance and of what it would be if unit vectors had no preferred
direction, g / D: far above the rounding of an eigendecomposition in float32.
Where a group has more features than frames are looked at, that is all that
keeps its covariance invertible.

Axes: B videos, T frames, D features, K centres, G groups of g features.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from pooling import device, moments, moving_average, second_moments
from pooling import sums as sums_lib
from pooling.affine_frames import AffineFrames
from pooling.frames import known_sizes, zero_padding

_SHRINKAGE = 2e-6
# Of the largest eigenvalue.
_LEAST_EIGENVALUE = 1e-7
# Rows of the matrices that a GPU decomposes many at a time.
_BATCHED = 32
# Frames of a batch that its statistics are taken from.
_MOST_FRAMES = 512
# Its multiples, modulo 1, are spread evenly. Without these, videos of one
# length might be looked at in the same few places for ever.
_GOLDEN_RATIO = 0.618034


def whitened_sum(
  frames,
  mask,
  weights,
  centres,
  distances,
  *,
  group_size,
  mode,
  scope="whitening",
):
  """The weighted sum of each centre's whitened unit residuals.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`, whose raw frames are
      best of a mean near 0; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    weights: float32 [B, T, K], a.
    centres: float32 [K, D], K static.
    distances: float32 [B, T, K], what `moments.squared_distances` returned.
    group_size: int, g >= 1; where it does not divide D, the last group has what
      is left.
    mode: `Mode`; in training the averages take the batch in first, and
      gradients flow through its statistics. A decay of 0 whitens by the batch
      alone. Its dtype is not used: means are taken off what they nearly equal.
    scope: variable scope; holds `moving_mean`, `moving_covariance` and
      `num_updates`.

  Returns:
    float32 [B, K, D]; zeros for an empty video. A batch without real frames
    leaves the averages as they are.

  Raises:
    ValueError: D unknown, or group_size < 1.
  """
  depth = frames.shape.with_rank(3).as_list()[2]
  if depth is None or group_size < 1:
    raise ValueError(
      f"Need static D and group_size >= 1, got D={depth}, "
      f"group_size={group_size}."
    )
  group_size = min(group_size, depth)
  inverse = moments.inverse_lengths(distances)  # 0 on padding, too.
  if not isinstance(frames, AffineFrames):
    like = [depth], frames.dtype
    frames = AffineFrames(frames, tf.ones(*like), tf.zeros(*like))
  frames = zero_padding(frames, mask)
  with tf.variable_scope(scope, values=[frames.raw, mask]):
    mean, covariance = _mean_and_covariance(
      frames, mask, centres, inverse, group_size, mode
    )
  whitener = _whitener(_shrunk(covariance, depth))
  # sum a (x f + o - c) / |v| - mu sum a, before it is whitened
  sums = tf.matmul(weights * inverse, frames.raw, transpose_a=True)
  masses = [sums_lib.over(weights * inverse, 1), moments.zeroth(mask, weights)]
  shifts = [frames.offset - centres, -mean]
  return _whitened(sums, frames.factor, masses, shifts, whitener)


def _mean_and_covariance(frames, mask, centres, inverse, group_size, mode):
  """Mean [K, D] and covariance [K, G, g, g] to whiten by, in this scope."""
  num_centres, depth = centres.shape.as_list()
  padding = -depth % group_size
  averages = moving_average.create(
    {
      "moving_mean": ([num_centres, depth], tf.zeros_initializer()),
      "moving_covariance": (
        [num_centres, (depth + padding) // group_size, group_size, group_size],
        _isotropic(depth),
      ),
    }
  )
  if not mode.is_training:
    return averages["moving_mean"], averages["moving_covariance"]
  statistics, rows = _statistics(
    frames, mask, centres, inverse, group_size, padding
  )
  moved = moving_average.update(
    averages, statistics, rows=rows, decay=mode.batch_norm_decay
  )
  # The averages' values, the batch's gradients.
  mean, covariance = (
    batch + tf.stop_gradient(moved[name] - batch)
    for name, batch in statistics.items()
  )
  return mean, covariance


def _whitener(covariance):
  """C^{-1/2} of covariances [K, G, g, g]."""
  if covariance.shape.as_list()[2] == 1:
    return tf.math.rsqrt(covariance)
  return inverse_square_root(covariance)


def _whitened(sums, factor, masses, shifts, whitener):
  """Sums s f + m1 h1 + m2 h2 of each centre, times its whitener.

  Args:
    sums: float [B, K, D], s.
    factor: float [D], f.
    masses: two float [B, K], m.
    shifts: two float [K, D], h.
    whitener: float [K, G, g, g].

  Returns:
    float [B, K, D].
  """
  depth = sums.shape.as_list()[2]
  num_centres, num_groups, group_size, _ = whitener.shape.as_list()
  if group_size == 1:
    scales = whitener[:, :, 0, 0]  # [K, D]
    return sums * (factor * scales) + sum(
      mass[:, :, tf.newaxis] * (shift * scales)
      for mass, shift in zip(masses, shifts)
    )
  padding = num_groups * group_size - depth

  def groups(vectors):
    """[any, D] to [any, G, g]."""
    vectors = tf.pad(vectors, [[0, 0], [0, padding]])
    return tf.reshape(vectors, [-1, num_groups, group_size])

  factors = groups(factor[tf.newaxis])[:, :, :, tf.newaxis]  # [1, G, g, 1]
  shifts = tf.stack([groups(shift) for shift in shifts], axis=2)
  # einsum would transpose too; so the products are plainly K G of [B, g, g].
  blocks = tf.pad(sums, [[0, 0], [0, 0], [0, padding]])
  blocks = tf.reshape(blocks, [-1, num_centres, num_groups, group_size])
  outputs = tf.matmul(tf.transpose(blocks, [1, 2, 0, 3]), factors * whitener)
  masses = tf.transpose(tf.stack(masses), [2, 1, 0])[:, tf.newaxis]
  # [K, 1, B, 2] times [K, G, 2, g]: what is added to K G of [B, g].
  outputs += tf.matmul(masses, tf.matmul(shifts, whitener))
  outputs = tf.transpose(outputs, [2, 0, 1, 3])
  outputs = tf.reshape(outputs, [-1, num_centres, depth + padding])
  # The gradient of a slice with steps, as [:depth] makes one, is slow.
  return tf.slice(outputs, [0, 0, 0], [-1, -1, depth])


@tf.custom_gradient
def inverse_square_root(matrices):
  """C^{-1/2} of symmetric positive definite matrices.

  By eigendecomposition C = Q diag(l) Q^T. The gradient is not that of the
  eigenvectors, which is infinite where eigenvalues are equal, but that of the
  function (Daleckii & Krein 1965):

    d(C^{-1/2}) = Q (F * (Q^T dC Q)) Q^T,  F_ij = -1 / (s_i s_j (s_i + s_j)),

  with s = sqrt(l), which is finite wherever C is invertible.

  Args:
    matrices: float [..., g, g].

  Returns:
    float [..., g, g], symmetric.
  """
  device.need_float32()
  values, vectors = _decompose(matrices)
  # A covariance that was averaged or restored may be off by rounding.
  least = _LEAST_EIGENVALUE * tf.reduce_max(values, axis=-1, keepdims=True)
  roots = tf.sqrt(tf.maximum(values, least))
  result = tf.matmul(
    vectors / roots[..., tf.newaxis, :], vectors, transpose_b=True
  )

  def gradient(upstream):
    row, column = roots[..., :, tf.newaxis], roots[..., tf.newaxis, :]
    factors = -1.0 / (row * column * (row + column))
    symmetric = 0.5 * (upstream + tf.linalg.matrix_transpose(upstream))
    inner = tf.matmul(tf.matmul(vectors, symmetric, transpose_a=True), vectors)
    inner = tf.matmul(vectors, factors * inner)
    return tf.matmul(inner, vectors, transpose_b=True)

  return result, gradient


def _decompose(matrices):
  """(eigenvalues [..., g], eigenvectors [..., g, g]) in any order.

  There are as many matrices as centres times groups, and small ones. On a GPU
  TensorFlow decomposes symmetric matrices one by one: 100,000 of 2 x 2 took
  7.3 s, 0.02 s on a CPU (tensorflow/tensorflow#30466). Its singular values,
  which of such matrices are the eigenvalues, are found for all at once by
  cuSOLVER's gesvdjBatched, up to 32 x 32 (svd_op_gpu.cu.cc). Larger ones are
  the host's.
  """
  if device.has_gpu() and matrices.shape.as_list()[-1] <= _BATCHED:
    values, vectors, _ = tf.linalg.svd(matrices)
    return values, vectors
  with tf.device("/cpu:0"):
    return tf.linalg.eigh(matrices)


def _statistics(frames, mask, centres, inverse, group_size, padding):
  """Mean [K, D] and covariance [K, G, g, g] of unit residuals; frame count."""
  num_centres, depth = centres.shape.as_list()
  rows, is_real = _some_of(mask)
  inverse = tf.gather(tf.reshape(inverse, [-1, num_centres]), rows)
  inverse = tf.where_v2(is_real[:, tf.newaxis], inverse, 0.0)
  raw = tf.gather(tf.reshape(frames.raw, [-1, depth]), rows)
  # As of one video. Unlike [tf.newaxis], this has no copy for a gradient.
  inverse, raw = tf.expand_dims(inverse, 0), tf.expand_dims(raw, 0)
  frames = raw * frames.factor + frames.offset
  count = tf.reduce_sum(tf.cast(is_real, frames.dtype))
  share = 1.0 / tf.maximum(count, 1.0)
  mean = moments.first(frames, None, share * inverse, centres)
  ends = [[0, 0], [0, padding]]
  second = second_moments.second(
    tf.pad(frames, [[0, 0], *ends]),
    None,
    share * tf.square(inverse),
    tf.pad(centres, ends),
    group_size=group_size,
  )
  mean, second = tf.squeeze(mean, 0), tf.squeeze(second, 0)
  blocks = tf.reshape(tf.pad(mean, ends), [*second.shape[:3], 1])
  covariance = second - tf.matmul(blocks, blocks, transpose_b=True)
  return {"moving_mean": mean, "moving_covariance": covariance}, count


def _some_of(mask):
  """Which frames of a batch its statistics are taken from.

  All real ones, or one of each 512th part of them, at places within these parts
  that are spread evenly.

  Args:
    mask: bool [B, T], True on real frames.

  Returns:
    (int64 [M], rows of the B T; bool [M], where these are frames to take), with
    M the smaller of B T and 512.
  """
  real = tf.cast(tf.reshape(mask, [-1]), tf.float32)
  batch, length = known_sizes(mask)
  total = tf.reduce_sum(real)
  parts = tf.cast(
    tf.range(tf.minimum(batch * length, _MOST_FRAMES)), tf.float32
  )
  places = parts + tf.math.floormod(parts * _GOLDEN_RATIO, 1.0)
  # Of the real frames, the first is number 0.
  numbers = tf.floor(places * tf.maximum(total / _MOST_FRAMES, 1.0))
  # A GPU leaves int32 to the host.
  rows = tf.searchsorted(
    tf.cumsum(real), tf.minimum(numbers + 1.0, total), out_type=tf.int64
  )
  return rows, numbers < total


def _shrunk(covariance, depth):
  """Covariances [K, G, g, g] with no eigenvalue at zero."""
  eye = tf.constant(np.eye(covariance.shape.as_list()[-1]), covariance.dtype)
  diagonal = tf.reduce_sum(eye * covariance, axis=-1)
  # Rounding may take what never varies below zero.
  variances = tf.nn.relu(diagonal)
  expected = _group_sizes(covariance.shape.as_list(), depth) / depth  # [G]
  total = tf.reduce_sum(variances, axis=-1) + expected.astype(np.float32)
  added = variances - diagonal + _SHRINKAGE * total[..., tf.newaxis]
  return covariance + eye * added[..., tf.newaxis]


def _isotropic(depth):
  """An initialiser: covariances of unit vectors without a preferred direction.

  Padding after the last group's features has variance 0.
  """

  def initializer(shape, dtype=tf.float32, partition_info=None):
    del partition_info
    sizes = _group_sizes(shape, depth)
    real = np.arange(shape[-1]) < sizes[:, np.newaxis]  # [G, g]
    variances = np.broadcast_to(real / depth, shape[:-1])
    return tf.linalg.diag(tf.constant(variances, dtype))

  return initializer


def _group_sizes(shape, depth):
  """Features in each group of covariances [K, G, g, g]: int [G]."""
  _, num_groups, size, _ = shape
  sizes = np.full([num_groups], size)
  sizes[-1] = depth - size * (num_groups - 1)
  return sizes
