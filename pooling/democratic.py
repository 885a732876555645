"""Democratic weights: each frame contributes equally to the descriptor.

Jégou & Zisserman 2014, section 4, and equation (4) of the paper, which did
without them for want of a parallel Sinkhorn algorithm. With K the Gram matrix
of the frames' embeddings, K_ik = phi_i.phi_k, the weights solve

  lambda_i sum_k lambda_k K_ik = 1        for every frame i,

so that, K's negative entries aside, no embedding agrees with the weighted sum
more than another: neither a burst of near-identical frames nor a long embedding
dominates. K comes in closed form
(`moments.gram`), and all videos of a batch are solved at once by a fixed number
of rounds of lambda <- lambda / sqrt(lambda * (K lambda)), from
lambda = 1. The twenty here bring lambda * (K lambda) within 1e-4 of constant;
ten would do for frames of full size, not for few dimensions. As in the
reference, K is clipped at 0 first.

Axes: B videos, T frames, D features, K centres.
"""

import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf

from pooling import moments, products

_ROUNDS = 20
_PROJECTION_SEED = 0


@dataclasses.dataclass(frozen=True)
class Config:
  """Whether frames are weighted, and how their weights are found.

  Attributes:
    enabled: bool; False weighs all frames alike.
    let_gradients_through: bool; False treats the weights as constants, which
      costs no backward pass through the rounds and the Gram matrix.
    projection_size: int, random dimensions that stand in for D in the Gram
      matrix's products where they are fewer; 0 for all of D.
  """

  enabled: bool
  let_gradients_through: bool
  projection_size: int


def reweigh(assignments, frames, mask, weights, centres, config, *, order=1):
  """Multiplies assignments by the frames' lambda, if asked to.

  Args:
    assignments: float [B, T, K].
    frames: float [B, T, D], D static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    weights: float [B, T, K], w of the embedding w_tj v_tj (order 1) or
      w_tj v_tj v_tj^T (order 2) that is to be summed.
    centres: float [K, D], or None for c = 0.
    config: `Config`.
    order: 1 or 2.

  Returns:
    float [B, T, K], lambda_t a_tj; 0 on padding and for a frame whose embedding
    is zero. The assignments as they are if not enabled.
  """
  if not config.enabled:
    return assignments
  if 0 < config.projection_size < frames.shape.as_list()[2]:
    frames, centres = _project(frames, centres, config.projection_size)
  gram = moments.gram(frames, mask, weights, centres, order=order)
  found = solve(gram, mask)
  if not config.let_gradients_through:
    found = tf.stop_gradient(found)
  return assignments * found[:, :, tf.newaxis]


def solve(gram, mask, rounds=_ROUNDS):
  """The weights of given Gram matrices.

  Args:
    gram: float [B, T, T], symmetric; clipped at 0 here.
    mask: bool [B, T], True on real frames.
    rounds: int >= 1.

  Returns:
    float [B, T], lambda; 0 on padding and where gram's row is 0.

  Raises:
    ValueError: rounds < 1.
  """
  if rounds < 1:
    raise ValueError(f"Need rounds >= 1, got {rounds}.")
  gram = tf.nn.relu(gram)
  zero, one = tf.zeros([], gram.dtype), tf.ones([], gram.dtype)
  found = tf.cast(mask, gram.dtype)
  for _ in range(rounds):
    agreement = found * tf.linalg.matvec(gram, found)
    counts = agreement > 0.0
    safe = tf.where_v2(counts, agreement, one)
    found = tf.where_v2(counts, found * tf.math.rsqrt(safe), zero)
  return found


def _project(frames, centres, size):
  """Frames and centres in random dimensions that keep dot products on average.

  Random signs over sqrt(size) (Achlioptas 2003): x.y is kept up to an error of
  deviation at most |x| |y| sqrt(2 / size).
  """
  depth = frames.shape.with_rank(3).as_list()[2]
  signs = np.random.RandomState(_PROJECTION_SEED).randint(2, size=[depth, size])
  projection = tf.constant((2 * signs - 1) / size**0.5, frames.dtype)
  frames = products.of_frames(frames, projection)
  if centres is not None:
    centres = tf.matmul(centres, projection)
  return frames, centres
