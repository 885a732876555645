"""Deep bag of frames (Abu-El-Haija et al. 2016, arXiv:1609.08675, sec. 4.1.2).

And the soft and the gated bag of words of Miech et al. 2017 (arXiv:1706.06905,
section 3.1), which count how much of a video is assigned to each cluster.

Axes: B videos, T frames, D features, K clusters.
"""

import tensorflow.compat.v1 as tf

from pooling import linear as linear_lib
from pooling import netvlad as netvlad_lib
from pooling import products, sums

ACTIVATIONS = {
  "relu": tf.nn.relu,
  "relu6": tf.nn.relu6,
  "sigmoid": tf.nn.sigmoid,
}


def pool_frames(activations, mask, method):
  """Pools each unit over the real frames of a video.

  Args:
    activations: float32 [B, T, K].
    mask: bool [B, T], True on real frames.
    method: "average" or "max".

  Returns:
    float32 [B, K]; zeros for an empty video.

  Raises:
    ValueError: another method.
  """
  present = mask[:, :, tf.newaxis]
  if method == "average":
    kept = tf.where_v2(present, activations, 0.0)
    count = tf.reduce_sum(
      tf.cast(mask, activations.dtype), axis=1, keepdims=True
    )
    return sums.over(kept, 1) / tf.maximum(count, 1.0)
  if method == "max":
    kept = tf.where_v2(present, activations, activations.dtype.min)
    highest = sums.highest(kept, 1)
    some = tf.reduce_any(mask, axis=1, keepdims=True)
    return tf.where_v2(some, highest, tf.zeros_like(highest))
  raise ValueError(f"Pooling method is 'average' or 'max', got {method!r}.")


def dbof(
  frames,
  mask,
  *,
  num_clusters,
  pooling_method,
  activation,
  mode,
  scope="dbof",
):
  """Maps each frame to K cluster activations and pools them over frames.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    pooling_method: "average" or "max".
    activation: a key of `ACTIVATIONS`.
    mode: `Mode`, see `linear`.
    scope: variable scope; holds `cluster`.

  Returns:
    float32 [B, K]; zeros for an empty video.

  Raises:
    ValueError: bad rank, unknown D, K < 1, unknown activation or method.
  """
  with tf.variable_scope(scope, values=[frames, mask]):
    units = _frame_units(frames, mask, num_clusters, activation, mode)
    return pool_frames(units, mask, pooling_method)


def mean_and_max(frames, mask, *, num_clusters, activation, mode):
  """The bag of frames twice, as in WILLOW's DbofModelLF.

  Args:
    frames: float32 [B, T, D], see `dbof`.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    activation: a key of `ACTIVATIONS`.
    mode: `Mode`, see `linear`.

  Returns:
    float32 [B, 2 K]: the means over the frames, then the maxima, each of unit
    length; zeros for an empty video.

  Raises:
    ValueError: see `dbof`.
  """
  units = _frame_units(frames, mask, num_clusters, activation, mode)
  pooled = [pool_frames(units, mask, how) for how in ("average", "max")]
  return tf.concat([tf.nn.l2_normalize(x, axis=1) for x in pooled], axis=1)


def soft(frames, mask, *, num_clusters, mode, with_max=False):
  """The soft bag of words: sums of soft assignments.

  Args:
    frames: float32 [B, T, D], see `dbof`.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    mode: `Mode`, see `netvlad.soft_assignments`.
    with_max: bool, append their maxima over the frames, of unit length too.

  Returns:
    float32 [B, K] of unit length, or [B, 2 K]; zeros for an empty video.
  """
  sums, maxima = _sums_and_maxima(frames, mask, num_clusters, mode)
  bag = tf.nn.l2_normalize(sums, axis=1)
  return tf.concat([bag, maxima], axis=1) if with_max else bag


def gated(frames, mask, *, num_clusters, mode):
  """The soft bag of words, gated by what its maxima are: L2(g s).

  g = sigmoid(u R W), batch-normalised or with a bias, where s are the sums of
  soft assignments over the frames and u their maxima, of unit length. R goes
  down to the D dimensions of a frame. The equations are those of WILLOW's
  GatedDbofModelLF.

  Args:
    frames: float32 [B, T, D], see `dbof`.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    mode: `Mode`.

  Returns:
    float32 [B, K] of unit length; zeros for an empty video.
  """
  sums, maxima = _sums_and_maxima(frames, mask, num_clusters, mode)
  depth = frames.shape.as_list()[2]
  reduction = tf.get_variable(
    "reduction",
    [num_clusters, depth],
    initializer=tf.random_normal_initializer(stddev=depth**-0.5),
  )
  gates = linear_lib.linear(
    products.apply_weights(maxima, reduction, dtype=mode.dtype),
    num_clusters,
    mode=mode,
    # An empty video has no share in the statistics.
    mask=tf.reduce_any(mask, axis=1),
    scope="gates",
  )
  return tf.nn.l2_normalize(tf.sigmoid(gates) * sums, axis=1)


def _frame_units(frames, mask, num_clusters, activation, mode):
  """K units of each frame, in the scope `cluster`: float32 [B, T, K]."""
  if activation not in ACTIVATIONS:
    raise ValueError(
      f"Activation is one of {sorted(ACTIVATIONS)}, got {activation!r}."
    )
  units = linear_lib.linear_frames(
    frames, mask, num_clusters, mode=mode, scope="cluster"
  )
  return ACTIVATIONS[activation](units)


def _sums_and_maxima(frames, mask, num_clusters, mode):
  """Soft assignments over frames: two [B, K], the maxima of unit length."""
  assignments = netvlad_lib.soft_assignments(
    frames, mask, num_clusters=num_clusters, mode=mode, scope="cluster"
  )
  # They are 0 on padding and positive elsewhere. Without any frame the maximum
  # is minus infinity.
  maxima = tf.maximum(sums.highest(assignments, 1), 0.0)
  return sums.over(assignments, 1), tf.nn.l2_normalize(maxima, axis=1)
