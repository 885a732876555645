"""Deep bag of frames (Abu-El-Haija et al. 2016, arXiv:1609.08675, sec. 4.1.2).

Axes: B videos, T frames, D features, K clusters.
"""

import tensorflow.compat.v1 as tf

from pooling import linear as linear_lib

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
    return tf.reduce_sum(kept, axis=1) / tf.maximum(count, 1.0)
  if method == "max":
    kept = tf.where_v2(present, activations, activations.dtype.min)
    highest = tf.reduce_max(kept, axis=1)
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
  if activation not in ACTIVATIONS:
    raise ValueError(
      f"Activation is one of {sorted(ACTIVATIONS)}, got {activation!r}."
    )
  with tf.variable_scope(scope, values=[frames, mask]):
    units = linear_lib.linear_frames(
      frames,
      mask,
      num_clusters,
      mode=mode,
      scope="cluster",
    )
    units = ACTIVATIONS[activation](units)
    return pool_frames(units, mask, pooling_method)
