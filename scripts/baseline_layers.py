"""Pooling layers as their equations read: baselines of `benchmark.py`.

The residuals of every frame to every centre are held in memory, as in
published NetVLAD layers for variable assignments. Each yields the numbers of
the layer that it is compared with (`tests/benchmark_test.py`).

Axes: B videos, T frames, D features, K centres, G groups of g features,
H heads of h dimensions.
"""

import contextlib
from unittest import mock

import tensorflow.compat.v1 as tf

from pooling import netvlad, whitening

# As `pooling/whitening.py` documents it.
_SHRINKAGE = 2e-6


def residuals(frames, centres):
  """v_tj = x_t - c_j, equation (8): float32 [B, T, K, D]."""
  return frames[:, :, tf.newaxis, :] - centres


def _masked(weights, mask):
  return weights * tf.cast(mask, weights.dtype)[:, :, tf.newaxis]


def _weighted_sum(weights, vectors):
  """sum_t w_tj u_tj, the product w u held in memory: float32 [B, K, D]."""
  return tf.reduce_sum(weights[..., tf.newaxis] * vectors, axis=1)


def vlad(frames, mask, assignments, centres, *, democratic=None):
  """`netvlad.vlad`, equation (3), from residuals.

  How the equation reads, and how a NetVLAD is written when assignments are no
  linear map of the frames.

  Args:
    frames: float32 [B, T, D], or what becomes such a tensor.
    mask: bool [B, T], True on real frames.
    assignments: float32 [B, T, K].
    centres: float32 [K, D].
    democratic: a `democratic.Config` that is not enabled, or None.

  Returns:
    float32 [B, K, D].

  Raises:
    ValueError: democratic weights are asked for.
  """
  if democratic and democratic.enabled:
    raise ValueError("The baseline has no democratic weights.")
  # Models may give `AffineFrames`.
  vectors = residuals(tf.convert_to_tensor(frames), centres)
  return _weighted_sum(_masked(assignments, mask), vectors)


@contextlib.contextmanager
def materialised_vlad():
  """Lets models that are built in the `with` block pool by `vlad` above."""
  with mock.patch.object(netvlad, "vlad", vlad):
    yield


def unit_residual_sums(frames, mask, weights, centres):
  """sum_t w_tj v_tj / |v_tj|, section 2.3: float32 [B, K, D]."""
  units = tf.nn.l2_normalize(residuals(frames, centres), axis=3)
  return _weighted_sum(_masked(weights, mask), units)


def whitened_sum(frames, mask, weights, centres, *, group_size):
  """`whitening.whitened_sum` in training, equations (5) and (6).

  Every unit residual is freed of the mean and whitened, then summed.

  Args:
    frames: float32 [B, T, D], D static.
    mask: bool [B, T], True on real frames.
    weights: float32 [B, T, K].
    centres: float32 [K, D], K static.
    group_size: int, g, a divisor of D.

  Returns:
    float32 [B, K, D].
  """
  num_centres, depth = centres.shape.as_list()
  shape = tf.shape(frames)
  units = tf.nn.l2_normalize(residuals(frames, centres), axis=3)
  real = tf.cast(mask, frames.dtype)[:, :, tf.newaxis, tf.newaxis]
  share = real / tf.reduce_sum(real)
  centred = units - tf.reduce_sum(share * units, axis=[0, 1])
  blocks = tf.reshape(
    centred,
    [shape[0], shape[1], num_centres, depth // group_size, group_size],
  )
  covariance = tf.einsum(
    "btkgi,btkgj->kgij", share[..., tf.newaxis] * blocks, blocks
  )
  variances = tf.linalg.diag_part(covariance)
  total = tf.reduce_sum(variances, axis=-1, keepdims=True) + group_size / depth
  covariance = tf.linalg.set_diag(covariance, variances + _SHRINKAGE * total)
  whitener = whitening.inverse_square_root(covariance)
  whitened = tf.einsum("btkgi,kgij->btkgj", blocks, whitener)
  return _weighted_sum(
    _masked(weights, mask), tf.reshape(whitened, tf.shape(units))
  )


def second(frames, mask, weights, centres):
  """`moments.second` of all of D: sum_t w v v^T, equation (7).

  Returns:
    float32 [B, K, 1, D, D].
  """
  by_centre = tf.transpose(residuals(frames, centres), [0, 2, 1, 3])
  by_weight = tf.transpose(_masked(weights, mask), [0, 2, 1])
  weighted = by_weight[..., tf.newaxis] * by_centre
  return tf.matmul(weighted, by_centre, transpose_a=True)[:, :, tf.newaxis]


def gram(frames, mask, weights, centres):
  """`moments.gram` of equation (4), the [T, K D] embeddings formed.

  Returns:
    float32 [B, T, T].
  """
  num_centres, depth = centres.shape.as_list()
  shape = tf.shape(frames)
  embedded = _masked(weights, mask)[..., tf.newaxis] * residuals(
    frames, centres
  )
  flat = tf.reshape(embedded, [shape[0], shape[1], num_centres * depth])
  return tf.matmul(flat, flat, transpose_b=True)


def attention(queries, keys, values, mask):
  """`transformer.attention`, equation (2), all T x T weights kept.

  As Transformers are commonly written.

  Args:
    queries: float32 [B, H, T, h], already divided by alpha.
    keys: float32 [B, H, T, h].
    values: float32 [B, H, T, h].
    mask: bool [B, T], True on real tokens.

  Returns:
    float32 [B, H, T, h].
  """
  logits = tf.matmul(queries, keys, transpose_b=True)
  logits += tf.where_v2(mask, 0.0, -1e30)[:, tf.newaxis, tf.newaxis, :]
  return tf.matmul(tf.nn.softmax(logits), values)
