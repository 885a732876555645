"""Penalties of centres and assignments, for a loss to add.

Axes: B videos, T frames, D features, K centres.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from pooling import moments
from pooling.frames import zero_padding


@dataclasses.dataclass(frozen=True)
class Weights:
  """What each penalty is multiplied by, >= 0; 0 leaves it out.

  Raises:
    ValueError: a weight < 0.
  """

  orthogonality: float
  coding: float
  locality: float

  def __post_init__(self):
    if min(dataclasses.astuple(self)) < 0.0:
      raise ValueError(f"Need weights >= 0, got {self}.")


def penalties(frames, mask, assignments, centres, weights):
  """The weighted penalties of one set of centres.

  Args:
    frames: float [B, T, D]; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    assignments: float [B, T, K].
    centres: float [K, D], K static, or None: then there is nothing to penalise.
    weights: `Weights`.

  Returns:
    dict of name to float scalar, of the penalties whose weight is not 0.
  """
  if centres is None:
    return {}
  given = (frames, mask, assignments, centres)
  functions = {
    "orthogonality": lambda: orthogonality(centres),
    "coding": lambda: coding(*given),
    "locality": lambda: locality(*given),
  }
  return {
    name: weight * functions[name]()
    for name, weight in dataclasses.asdict(weights).items()
    if weight
  }


def orthogonality(centres):
  """How far centres are from orthogonal: the mean squared cosine of two.

  Keeps centres from growing alike (after Brock et al. 2017, arXiv:1609.07093,
  who sum |C C^T - I|). Departure: squared cosines of pairs, so
  that lengths are free and the value does not depend on K. More centres than
  dimensions can't all be orthogonal.

  Args:
    centres: float [K, D], K static.

  Returns:
    float scalar in [0, 1]; 0 for a single centre.
  """
  num_centres = centres.shape.as_list()[0]
  unit = tf.nn.l2_normalize(centres, axis=1)
  cosines = tf.matmul(unit, unit, transpose_b=True)
  cosines -= tf.linalg.diag(tf.linalg.diag_part(cosines))
  pairs = max(1, num_centres * (num_centres - 1))
  return tf.reduce_sum(tf.square(cosines)) / pairs


def coding(frames, mask, assignments, centres):
  """FAemb's coding error: the mean over frames of |x - sum_j a_j c_j|^2 / 2.

  From the objective of FAemb (Do, Tran, Cheung, CVPR 2015): a frame is to be
  near the combination of centres that stands for it. Departures, as frames are
  given there and come out of trained layers here: no gradient flows to the
  frames, which could shrink instead of centres moving; and each video's error
  is taken relative to its own mean of |x|^2, so that the mean over the videos
  of a batch is that of its parts, however towers share it out.

  Args:
    frames: float [B, T, D]; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    assignments: float [B, T, K].
    centres: float [K, D], K static.

  Returns:
    float scalar >= 0, the mean over videos: 1/2 for centres at 0; a video
    without frames counts as 0, and so does a batch without videos.
  """
  frames = tf.stop_gradient(zero_padding(frames, mask))
  errors = frames - tf.einsum("btk,kd->btd", assignments, centres)
  errors = zero_padding(errors, mask)
  return 0.5 * _mean_ratio(
    tf.reduce_sum(tf.square(errors), axis=[1, 2]),
    tf.reduce_sum(tf.square(frames), axis=[1, 2]),
  )


def locality(frames, mask, assignments, centres):
  """FAemb's locality: the mean over frames of sum_j |a_j| |x - c_j|^3.

  From the objective of FAemb (Do, Tran, Cheung, CVPR 2015), where it bounds the
  error of the second-order approximation: far centres are to have no weight.
  Departures as in `coding`; relative to a video's mean of |x|^3.

  Args:
    frames: float [B, T, D]; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    assignments: float [B, T, K].
    centres: float [K, D].

  Returns:
    float scalar >= 0, the mean over videos: 1 for centres at 0 and assignments
    that sum to 1; a video without frames counts as 0, and so does a batch
    without videos.
  """
  frames = tf.stop_gradient(zero_padding(frames, mask))
  distances = moments.squared_distances(frames, mask, centres)
  # d^3 = d^2 d, d through the reciprocal root that is finite at 0.
  cubes = moments.per_length(tf.square(distances), distances, 1)
  terms = zero_padding(tf.abs(assignments) * cubes, mask)
  lengths = tf.sqrt(tf.reduce_sum(tf.square(frames), axis=2))
  return _mean_ratio(
    tf.reduce_sum(terms, axis=[1, 2]),
    tf.reduce_sum(tf.pow(lengths, 3), axis=1),
  )


def _mean_ratio(parts, wholes):
  """The mean over videos of part / whole, each [B]; 0 / 0 counts as 0."""
  ratios = tf.math.divide_no_nan(parts, wholes)
  return tf.math.divide_no_nan(
    tf.reduce_sum(ratios), tf.cast(tf.size(ratios), ratios.dtype)
  )
