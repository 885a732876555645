"""Averages over frames: what any other pooling has to beat.

Axes: B videos, T frames, D features, K units.
"""

import math

import tensorflow.compat.v1 as tf

from pooling import dbof, moments, observe
from pooling import linear as linear_lib
from pooling.affine_frames import formed
from pooling.frames import zero_padding

# What GeM takes for smaller numbers, and its power at the start.
_SMALLEST, _POWER = 1e-6, 3.0
# As a logit: no weight, and no inf - inf where every frame is padding.
_MASKED = -1e30


def mean(frames, mask):
  """The mean of each feature.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.

  Returns:
    float32 [B, D]; zeros for an empty video.
  """
  real = tf.cast(mask, frames.dtype)
  count = tf.reduce_sum(real, axis=1, keepdims=True)  # [B, 1]
  shares = (real / tf.maximum(count, 1.0))[:, :, tf.newaxis]
  return moments.first(frames, mask, shares, None)[:, 0]


def maximum(frames, mask):
  """The largest value of each feature: arguments and result as `mean`."""
  return dbof.pool_frames(formed(frames), mask, "max")


def generalised_mean(frames, mask, *, scope="gem"):
  """GeM: (mean_t max(x_t, 1e-6)^p)^(1/p), with a p that is learnt.

  Radenovic et al. 2019 (arXiv:1711.02512), equation (3): the mean at p = 1, the
  maximum as p grows. They pool what comes out of a ReLU; here the clamp is
  that ReLU, after the offset and the factor of the input's batch norm. Powers
  are taken of x over the video's largest value, so that none overflows.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    scope: variable scope; holds `log_power`, which keeps p positive; p is 3 at
      the start.

  Returns:
    float32 [B, D], at least 1e-6; zeros for an empty video.
  """
  frames = tf.maximum(zero_padding(formed(frames), mask), _SMALLEST)
  with tf.variable_scope(scope, values=[frames, mask]):
    log_power = tf.get_variable(
      "log_power", [], initializer=tf.constant_initializer(math.log(_POWER))
    )
  power = tf.exp(log_power)
  logs = tf.math.log(frames)
  # The result does not depend on it. Padding is no larger than any frame.
  highest = tf.stop_gradient(tf.reduce_max(logs, axis=1, keepdims=True))
  powers = mean(tf.exp(power * (logs - highest)), mask)
  some = tf.reduce_any(mask, axis=1, keepdims=True)
  # The logarithm of 0 would have no finite gradient.
  powers = tf.where_v2(some, powers, 1.0)
  means = tf.exp(highest[:, 0] + tf.math.log(powers) / power)
  return tf.where_v2(some, means, 0.0)


def attention_mean(frames, mask, *, mode, scope="attention"):
  """The mean of the frames, each weighted by a softmax of w.x over frames.

  w starts at 0, and the layer as the plain mean. A bias would cancel.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    mode: `Mode`; there is no batch norm.
    scope: variable scope; holds `weights`.

  Returns:
    float32 [B, D]; zeros for an empty video.
  """
  weights = frame_softmax(
    linear_lib.linear_frames(
      frames,
      mask,
      1,
      mode=mode.with_batch_norm(False),
      weights_stddev=0.0,
      biases_stddev=None,
      scope=scope,
    ),
    mask,
  )
  return moments.first(frames, mask, weights, None, dtype=mode.dtype)[:, 0]


def frame_softmax(logits, mask):
  """A softmax over the real frames of each video.

  Args:
    logits: float32 [B, T, K]; padding may hold anything.
    mask: bool [B, T], True on real frames.

  Returns:
    float32 [B, T, K]; 0 on padding, real frames' sum to 1 for each k.
  """
  logits = tf.where_v2(mask[:, :, tf.newaxis], logits, _MASKED)
  weights = zero_padding(tf.nn.softmax(logits, axis=1), mask)
  observe.note("weights", weights)
  return weights
