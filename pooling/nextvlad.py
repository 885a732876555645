"""NeXtVLAD (Lin, Xiao, Fan 2018, arXiv:1811.05014), section 3.2.

A frame is expanded, and cut into groups of features; the groups of all frames
are pooled around the same, short centres. Each frame weighs its groups, and
each group has assignments of its own, both seen from the whole frame:

  x'_t   = W_e x_t + b_e, of G groups x'_tg
  alpha_tg = sigmoid(W_a x'_t + b_a)
  a_tgk  = softmax_k(BN(W_c x'_t))
  y_k    = sum_tg alpha_tg a_tgk (x'_tg - c_k), then of unit length

A group is a frame of T G short ones: the sum is `moments.first` of those.

Axes: B videos, T frames, D features, G groups, K centres, and E = expansion
D / G features of a group.
"""

import tensorflow.compat.v1 as tf

from pooling import linear as linear_lib
from pooling import moments
from pooling import netvlad as netvlad_lib


def group_size(depth, *, expansion, num_groups):
  """E, the features of a group.

  Args:
    depth: int, D.
    expansion: int >= 1.
    num_groups: int, G >= 1.

  Returns:
    int.

  Raises:
    ValueError: expansion or num_groups < 1, or G does not divide expansion D.
  """
  if expansion < 1 or num_groups < 1 or expansion * depth % num_groups:
    raise ValueError(
      "Need an expansion >= 1 and groups >= 1 that divide expansion * D, got "
      f"expansion={expansion}, D={depth}, groups={num_groups}."
    )
  return expansion * depth // num_groups


def nextvlad(
  frames,
  mask,
  *,
  num_clusters,
  num_groups,
  expansion,
  mode,
  method="softmax",
  scope="nextvlad",
):
  """The sums of each centre's residuals, each of unit length.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    num_groups: int, G >= 1, a divisor of expansion D.
    expansion: int >= 1.
    mode: `Mode`; batch normalisation of the assignments, over real frames, or
      a bias.
    method: how groups choose centres, one of `netvlad.ASSIGNMENTS`.
    scope: variable scope; holds `expand`, `attention`, `assign`, `centres`.

  Returns:
    float32 [B, E K], K fastest; zeros for an empty video. The whole is not
    brought to unit length.

  Raises:
    ValueError: bad rank, unknown D, K < 1, or see `group_size`.
  """
  depth = frames.shape.with_rank(3).as_list()[2]
  if depth is None:
    raise ValueError(f"Need static D, got frames of shape {frames.shape}.")
  size = group_size(depth, expansion=expansion, num_groups=num_groups)
  with tf.variable_scope(scope):
    expanded = linear_lib.linear_frames(
      frames,
      mask,
      size * num_groups,
      mode=mode.with_batch_norm(False),
      weights_stddev=linear_lib.he_stddev(depth),
      scope="expand",
    )  # [B, T, G E]
    assignments = _assignments(
      expanded, mask, num_clusters, num_groups, mode, method
    )  # [B, T G, K]
    centres = netvlad_lib.make_centres(
      num_clusters, size, stddev=linear_lib.he_stddev(size)
    )
    sums = moments.first(
      _of_groups(expanded, num_groups, size),
      _mask_of_groups(mask, num_groups),
      assignments,
      centres,
      dtype=mode.dtype,
    )  # [B, K, E]
  sums = tf.linalg.matrix_transpose(tf.nn.l2_normalize(sums, axis=2))
  return tf.reshape(sums, [-1, size * num_clusters])


def _assignments(expanded, mask, num_clusters, num_groups, mode, method):
  """alpha_tg a_tgk, float32 [B, T G, K]; padding holds no meaning."""
  stddev = linear_lib.he_stddev(expanded.shape.as_list()[2])
  attention = linear_lib.linear_frames(
    expanded,
    mask,
    num_groups,
    mode=mode.with_batch_norm(False),
    weights_stddev=stddev,
    scope="attention",
  )
  logits = linear_lib.linear_frames(
    expanded,
    mask,
    num_groups * num_clusters,
    mode=mode,
    weights_stddev=stddev,
    scope="assign",
  )
  soft = netvlad_lib.assign(
    _of_groups(logits, num_groups, num_clusters),
    _mask_of_groups(mask, num_groups),
    method,
  )
  return soft * _of_groups(tf.sigmoid(attention), num_groups, 1)


def _mask_of_groups(mask, num_groups):
  """bool [B, T G] of [B, T]."""
  shape = tf.shape(mask)
  mask = tf.tile(mask[:, :, tf.newaxis], [1, 1, num_groups])
  return tf.reshape(mask, [shape[0], shape[1] * num_groups])


def _of_groups(values, num_groups, size):
  """Frames [B, T, G size] as groups [B, T G, size]."""
  shape = tf.shape(values)
  return tf.reshape(values, [shape[0], shape[1] * num_groups, size])
