"""Assignments by optimal transport, with a dustbin.

SALAD (Izquierdo & Civera 2024, arXiv:2311.15937, section 3.2), after SuperGlue
(Sarlin et al. 2020, arXiv:1911.11763): where softmax lets each frame choose its
centres alone, here the centres also ask for equal shares of a video's frames,
and what no centre asks for goes to a dustbin, with one score z of all frames.
With scores s_tj, and s_tj = z for the dustbin, the plan is

  P_tj = exp(s_tj + u_j + v_t),

where the rounds of Sinkhorn's algorithm find u and v so that each of the n
frames gives mass 1, and each of the K centres gets mass 1, the dustbin n - K.
A round begins with u, as in SALAD's code, and u_j undoes what is added to all
scores of j: the plan does not depend on z, whose gradient is 0, nor on a bias
of a centre's scores.

That needs more frames than centres. For any n, centres get min(1, n / (K + 1))
and the dustbin the rest: from n = K + 1 on these are the masses above, and up
to there the dustbin gets as much as a centre. Masses are plain ones, where
SALAD's code divides all of them by n + K, which is in P the same.

Axes: B videos, T frames, K centres.
"""

import tensorflow.compat.v1 as tf

from pooling.frames import zero_padding

_ROUNDS = 3  # Of SALAD.
# As a logarithm: of no mass, and a gradient of 0, where -inf would make NaN.
_NOTHING = -1e30


def assignments(scores, mask, *, rounds=_ROUNDS):
  """The plan of `transport`, its dustbin's score the variable `dustbin`.

  Args:
    scores: float [B, T, K], K static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    rounds: int >= 1.

  Returns:
    float [B, T, K], see `transport`.

  Raises:
    ValueError: rounds < 1.
  """
  dustbin = tf.get_variable("dustbin", [], initializer=tf.ones_initializer())
  return transport(scores, mask, dustbin, rounds=rounds)


def transport(scores, mask, dustbin, *, rounds=_ROUNDS):
  """What each frame gives to each centre, the dustbin left out.

  Args:
    scores: float [B, T, K], K static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    dustbin: float [], z.
    rounds: int >= 1.

  Returns:
    float [B, T, K] >= 0; 0 on padding; those of a real frame sum to at most 1,
    and what is missing is the dustbin's.

  Raises:
    ValueError: rounds < 1.
  """
  if rounds < 1:
    raise ValueError(f"Need rounds >= 1, got {rounds}.")
  num_centres = scores.shape.as_list()[2]
  scores = zero_padding(scores, mask)
  scores = tf.concat(
    [scores, dustbin + tf.zeros_like(scores[:, :, :1])], axis=2
  )  # [B, T, K + 1]
  # An empty video counts as one of frames without scores, to be finite.
  is_empty = tf.logical_not(tf.reduce_any(mask, axis=1, keepdims=True))
  real = (mask | is_empty)[:, :, tf.newaxis]  # [B, T, 1]
  count = tf.reduce_sum(tf.cast(real, scores.dtype), axis=1, keepdims=True)
  of_centre = tf.minimum(tf.ones([], count.dtype), count / (num_centres + 1))
  masses = tf.concat(
    [tf.tile(of_centre, [1, 1, num_centres]), count - num_centres * of_centre],
    axis=2,
  )  # [B, 1, K + 1]
  nothing = tf.constant(_NOTHING, scores.dtype)
  of_frames = tf.zeros_like(scores[:, :, :1])  # v
  for _ in range(rounds):
    given = tf.where_v2(real, scores + of_frames, nothing)
    of_centres = tf.math.log(masses) - tf.reduce_logsumexp(
      given, axis=1, keepdims=True
    )  # u, [B, 1, K + 1]
    of_frames = -tf.reduce_logsumexp(
      scores + of_centres, axis=2, keepdims=True
    )  # [B, T, 1]
  plan = tf.exp(scores + of_centres + of_frames)
  return zero_padding(plan[:, :, :num_centres], mask)
