"""NetVLAD pooling. Axes: B videos, T frames, D features, K centres."""

import tensorflow.compat.v1 as tf

from pooling import linear as linear_lib


def netvlad(
  frames,
  mask,
  *,
  num_clusters,
  add_batch_norm,
  is_training,
  batch_norm_decay,
  residuals=True,
  scope="netvlad",
):
  """Sums soft-assigned residuals to centres (arXiv:1511.07247, eq. 4).

  The assignments a_j are a softmax over centres of a linear map of each frame,
  batch-normalised over the real frames or with a bias (Miech et al. 2017).

  Args:
    frames: float32 [B, T, D], D static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    add_batch_norm: bool, see `linear`.
    is_training: bool.
    batch_norm_decay: float, see `batch_norm`.
    residuals: bool; False leaves the centres out: NetRVLAD, "light VLAD"
      (Miech et al. 2017, section 3.2).
    scope: variable scope; holds `assign` and `centres`.

  Returns:
    float32 [B, K * D], D fastest, unit norm; zeros for an empty video.

  Raises:
    ValueError: bad rank, unknown D, or K < 1.
  """
  with tf.variable_scope(scope, values=[frames, mask]):
    logits = linear_lib.linear_frames(
      frames,
      mask,
      num_clusters,
      add_batch_norm=add_batch_norm,
      is_training=is_training,
      batch_norm_decay=batch_norm_decay,
      scope="assign",
    )
    # Softmax runs over K, so padding is zeroed after it, not before. A select,
    # not a product: what padding holds may overflow.
    assignments = tf.nn.softmax(logits)
    assignments = tf.where_v2(mask[:, :, tf.newaxis], assignments, 0.0)
    centres = None
    if residuals:
      depth = frames.shape.as_list()[2]
      centres = tf.get_variable(
        "centres",
        [num_clusters, depth],
        initializer=tf.random_normal_initializer(stddev=depth**-0.5),
      )
    return aggregate(frames, assignments, centres)


def aggregate(frames, assignments, centres):
  """VLAD of given assignments: eq. (3) of the paper, then normalised twice.

  VLAD(i, j) = sum_k a_j(x_k) (x_k(i) - c_j(i)), expanded to
  sum_k a_j(x_k) x_k - (sum_k a_j(x_k)) c_j, so that no [B, T, K, D] residual
  exists. Then each centre's sum is scaled to unit length, and the whole too.

  Args:
    frames: float32 [B, T, D], D static; padding may hold any finite value.
    assignments: float32 [B, T, K], K static; 0 on padding.
    centres: float32 [K, D], or None for no centre to subtract.

  Returns:
    float32 [B, K * D], D fastest, unit norm; zeros for an empty video.
  """
  depth = frames.shape.as_list()[2]
  num_clusters = assignments.shape.as_list()[2]
  vlad = tf.matmul(assignments, frames, transpose_a=True)  # [B, K, D]
  if centres is not None:
    mass = tf.reduce_sum(assignments, axis=1)  # [B, K]
    vlad -= mass[:, :, tf.newaxis] * centres
  vlad = tf.nn.l2_normalize(vlad, axis=2)  # Per centre.
  vlad = tf.reshape(vlad, [-1, num_clusters * depth])
  return tf.nn.l2_normalize(vlad, axis=1)
