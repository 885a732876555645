"""Second-order terms of equation (7), as vectors: exact, or as a sketch.

Axes: B videos, T frames, D features, K centres, S sketch dimensions.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from pooling import sums as sums_lib
from pooling.frames import zero_padding

_ROOT_EPSILON = 1e-6
_LEAST_LENGTH = 1e-6


@tf.custom_gradient
def unit_signed_square_root(values):
  """Rows of unit length, then sign(u) sqrt(|u|) of each number, unit again.

  Power normalisation, which FAemb applies to what it aggregates (Do, Tran,
  Cheung, CVPR 2015). The root is u / sqrt(|u| + 1e-6), so that its gradient is
  bounded at 0. As a row's scale does not last, it is that of x / sqrt(|x| + e),
  e = 1e-6 |row|: one pass instead of three, and a gradient written out.

  Args:
    values: float [B, N].

  Returns:
    The same shape and type; zeros where a row is zeros.
  """
  lengths = _lengths(values)
  added = _ROOT_EPSILON * lengths
  slopes = tf.math.rsqrt(tf.abs(values) + added)
  roots = values * slopes
  inverse = 1.0 / _lengths(roots)
  unit = roots * inverse

  def gradient(upstream):
    along = tf.reduce_sum(unit * upstream, axis=1, keepdims=True)
    in_roots = (upstream - unit * along) * (0.5 * inverse)
    # Of roots x s: d(x s) = ((s + e s^3) dx - x s^3 de) / 2.
    first = in_roots * slopes
    third = first * tf.square(slopes)
    in_added = tf.reduce_sum(values * third, axis=1, keepdims=True)
    by_lengths = values * (in_added * _ROOT_EPSILON / lengths)
    return first + added * third - by_lengths

  return unit, gradient


def _lengths(rows):
  """Of rows [B, N]: [B, 1], at least 1e-6."""
  lengths = tf.math.reduce_euclidean_norm(rows, axis=1, keepdims=True)
  return tf.maximum(lengths, _LEAST_LENGTH)


class TensorSketch:
  """Random maps to S dimensions that keep squared dot products on average.

  Pham & Pagh 2013: with two count sketches CS1, CS2 of different hashes,
  TS(v) = CS1(v) * CS2(v), the circular convolution, is a sketch of v v^T:
  E[TS(v).TS(w)] = (v.w)^2. That it is unbiased rests on the random signs.
  Departure: places are not drawn one by one, which would make a count sketch a
  scatter. Feature i goes to place i of CS1; in CS2 the features, shuffled, are
  spread evenly over the S places. So no two features collide in a count sketch
  with S >= D, and each pair of features meets each place alike.

  The hashes follow from D, S and the seed: they are part of the model, and not
  stored in checkpoints.
  """

  def __init__(self, depth, size, seed=0):
    """Draws the hashes.

    Args:
      depth: int, D >= 1.
      size: int, S >= 1; with S < D places are taken modulo S.
      seed: int.

    Raises:
      ValueError: a size < 1.
    """
    if depth < 1 or size < 1:
      raise ValueError(f"Need D and S >= 1, got D={depth}, S={size}.")
    self._size = size
    rng = np.random.RandomState(seed)
    self._order = rng.permutation(depth)
    self._signs = rng.choice([-1.0, 1.0], size=[2, depth])
    self._stride = max(1, size // depth)

  def hashes(self):
    """Of CS1 and CS2, (int [D] place, float [D] sign) of each feature."""
    steps = np.arange(len(self._order))
    shuffled = np.argsort(self._order)  # The step at which a feature comes.
    return [
      (steps % self._size, self._signs[0]),
      (shuffled * self._stride % self._size, self._signs[1]),
    ]

  def count_sketches(self, vectors):
    """CS1 and CS2, linear maps.

    Args:
      vectors: float [..., D].

    Returns:
      Two float [..., S].
    """
    lead = tf.shape(vectors)[:-1]
    rows = tf.reshape(vectors, [-1, len(self._order)])
    signs = tf.constant(self._signs, rows.dtype)
    signed = tf.gather(rows * signs[1], self._order, axis=1)
    # After each feature as many zeros as the stride has.
    spread = tf.pad(
      signed[:, :, tf.newaxis], [[0, 0], [0, 0], [0, self._stride - 1]]
    )
    spread = tf.reshape(spread, [-1, len(self._order) * self._stride])
    shape = tf.concat([lead, [self._size]], axis=0)
    return [
      tf.reshape(self._fold(sketch), shape)
      for sketch in (rows * signs[0], spread)
    ]

  def _fold(self, rows):
    """Adds up places modulo S: float [N, any] to [N, S]."""
    width = rows.shape.as_list()[1]
    rows = tf.pad(rows, [[0, 0], [0, -width % self._size]])
    pieces = -(-width // self._size)
    return tf.add_n(tf.split(rows, pieces, axis=1)) if pieces > 1 else rows

  def second(self, frames, mask, weights, centres):
    """The sketch of sum_t w_tj v_tj v_tj^T, residuals never formed.

    CS is linear and convolution bilinear, so TS(x - c) is one sketch a frame,
    which does not depend on the centre, less what K centres need:

      sum_t w TS(x_t) - CS1(s1) * CS2(c) - CS1(c) * CS2(s1) + s0 TS(c),

    s0 = sum_t w, s1 = sum_t w x_t.

    Args:
      frames: float [B, T, D]; padding may hold any finite value.
      mask: bool [B, T], True on real frames.
      weights: float [B, T, K].
      centres: float [K, D], K static.

    Returns:
      float [B, K, S]; zeros for an empty video.
    """
    weights = zero_padding(weights, mask)
    frames = zero_padding(frames, mask)
    of_frames = circular_convolution(*self.count_sketches(frames))  # [B, T, S]
    sums = tf.matmul(weights, frames, transpose_a=True)  # [B, K, D]
    mass = sums_lib.over(weights, 1)[:, :, tf.newaxis]  # [B, K, 1]
    centres1, centres2 = self.count_sketches(centres)  # [K, S]
    # -CS1(s1) CS2(c) - CS1(c) CS2(s1) + s0 CS1(c) CS2(c)
    #   = -CS1(s1) CS2(c) + CS1(c) (s0 CS2(c) - CS2(s1)).
    sums1, sums2 = self.count_sketches(sums)  # [B, K, S]
    like_sums = tf.zeros_like(sums1)
    cross = circular_convolution(sums1, centres2 + like_sums)
    rest = circular_convolution(centres1 + like_sums, mass * centres2 - sums2)
    return tf.matmul(weights, of_frames, transpose_a=True) - cross + rest


@tf.custom_gradient
def circular_convolution(x, y):
  """z_s = sum_r x_r y_(s - r mod S), by real Fourier transforms.

  The gradient in x is the circular correlation of y with z's, likewise for y.
  Written out it saves 11 % of a training step of SecondOrderModel (sketches of
  4,096, 16 videos of 64 frames) over TensorFlow's own of the transforms.

  Args:
    x: float [..., S], S static.
    y: float [..., S] of the same shape.

  Returns:
    float [..., S].
  """
  size = [x.shape.as_list()[-1]]
  x_spectrum, y_spectrum = tf.signal.rfft(x), tf.signal.rfft(y)
  result = tf.signal.irfft(x_spectrum * y_spectrum, size)
  result = tf.ensure_shape(result, x.shape)

  def gradient(upstream):
    spectrum = tf.signal.rfft(upstream)
    return (
      tf.signal.irfft(spectrum * tf.math.conj(y_spectrum), size),
      tf.signal.irfft(spectrum * tf.math.conj(x_spectrum), size),
    )

  return result, gradient
