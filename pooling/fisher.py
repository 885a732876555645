"""Fisher vectors. Axes: B videos, T frames, D features, K centres."""

import tensorflow.compat.v1 as tf

from pooling import moments
from pooling import netvlad as netvlad_lib
from pooling.affine_frames import formed

# Added to the squares that deviations are.
_EPSILON = 1e-6


def make_deviations(num_clusters, depth):
  """s^2 + 1e-6 of the variable `deviations` s, [K, D], in the current scope.

  About 1 at the start.
  """
  roots = tf.get_variable(
    "deviations",
    [num_clusters, depth],
    initializer=tf.random_normal_initializer(mean=1.0, stddev=depth**-0.5),
  )
  return tf.square(roots) + _EPSILON


def fisher_vector(frames, mask, weights, centres, deviations, *, dtype=None):
  """NetFV: gradients in the means and variances of Gaussians, both learnt.

  Perronnin et al. 2010, with soft assignments in place of the posteriors of a
  mixture of Gaussians (Miech et al. 2017, arXiv:1706.06905, section 3.1):

    F1_j = sum_t a_tj (x_t - c_j) / s_j
    F2_j = sum_t a_tj ((x_t - c_j)^2 / s_j^2 - 1)

  F1 is brought to unit length centre by centre, and then as a whole; F2 only
  as a whole, as in the authors' code.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    weights: float32 [B, T, K], a.
    centres: float32 [K, D], c.
    deviations: float32 [K, D], s > 0.
    dtype: of the products of F1, see `moments.first_and_squares`.

  Returns:
    float32 [B, 2 K D], F1 before F2, D fastest; zeros for an empty video.
  """
  sums, squares = moments.first_and_squares(
    formed(frames), mask, weights, centres, dtype=dtype
  )
  mass = moments.zeroth(mask, weights)[:, :, tf.newaxis]
  first = sums / deviations
  second = squares / tf.square(deviations) - mass
  return tf.concat(
    [netvlad_lib.descriptor(first), netvlad_lib.flatten(second)], axis=1
  )
