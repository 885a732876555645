"""Attention clusters with the shifting operation: the paper's equation (1).

Axes: B videos, T frames, D features, K units.
"""

import tensorflow.compat.v1 as tf

from pooling import averages, moments
from pooling import linear as linear_lib


def attention_clusters(
  frames, mask, *, num_clusters, hidden_size, mode, scope="attention_clusters"
):
  """K weighted means of the frames, each shifted, of length 1 / sqrt(K).

    psi_k = (alpha_k a_k X + beta_k) / (sqrt(K) |alpha_k a_k X + beta_k|)

  Long et al. 2018 (arXiv:1711.09550): a_k is a softmax over the frames of the
  scores of unit k, alpha_k and beta_k are numbers. They start at 1 and 0; drawn
  at random, as in published code, they hide some units behind their shift, and
  learn worse. A softmax over frames does not see a bias of the scores.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    hidden_size: int >= 0, tanh units between frames and scores, as the paper
      has them (section 2.1); 0 for scores that are linear in the frames.
    mode: `Mode`, see `linear`.
    scope: variable scope; holds `alpha`, `beta`, `scores`, and `hidden`.

  Returns:
    float32 [B, K * D], D fastest, of length 1; zeros for an empty video.

  Raises:
    ValueError: bad rank, unknown D, or K < 1.
  """
  with tf.variable_scope(scope, values=[mask]):
    seen = frames
    if hidden_size:
      hidden = linear_lib.linear_frames(
        frames, mask, hidden_size, mode=mode, scope="hidden"
      )
      seen = tf.tanh(hidden)
    scores = linear_lib.linear_frames(
      seen,
      mask,
      num_clusters,
      mode=mode,
      biases_stddev=None,
      scope="scores",
    )
    weights = averages.frame_softmax(scores, mask)
    means = moments.first(frames, mask, weights, None, dtype=mode.dtype)
    alpha, beta = (
      tf.get_variable(name, [num_clusters, 1], initializer=initializer)
      for name, initializer in (
        ("alpha", tf.ones_initializer()),
        ("beta", tf.zeros_initializer()),
      )
    )
    units = tf.nn.l2_normalize(alpha * means + beta, axis=2)
  descriptor = tf.reshape(
    units * num_clusters**-0.5, [-1, num_clusters * frames.shape.as_list()[2]]
  )
  # The shift alone is no descriptor.
  some = tf.reduce_any(mask, axis=1, keepdims=True)
  return tf.where_v2(some, descriptor, 0.0)
