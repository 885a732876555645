"""Vectors scaled by what their lengths say. Axes: D features."""

import tensorflow.compat.v1 as tf

_LEAST_SQUARE = 1e-12


def scaled(vectors, factors_of):
  """Vectors times factors that depend on their squared lengths.

  Written out, the gradient goes over the vectors three times, and needs none
  but these. TensorFlow's own, of two scalings one after the other, goes over
  them a dozen times and holds what is between the two.

  Args:
    vectors: float [..., D].
    factors_of: function of the squared lengths [..., 1] that returns the
      factors, of the same shape. It may look at all of them.

  Returns:
    float [..., D].
  """

  @tf.custom_gradient
  def product(vectors):
    squares = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    factors = factors_of(squares)

    def gradient(upstream):
      along = tf.reduce_sum(vectors * upstream, axis=-1, keepdims=True)
      (slopes,) = tf.gradients(factors, squares, along)
      return factors * upstream + 2.0 * slopes * vectors

    return vectors * factors, gradient

  return product(vectors)


def unit(vectors):
  """Vectors of length 1: what `tf.nn.l2_normalize` makes, with few temporaries.

  The squares of the numbers are never all there: of all frames of a batch they
  are as large as the frames. For inputs: a vector of zeros has no gradient.

  Args:
    vectors: float [..., D].

  Returns:
    float [..., D]; vectors shorter than 1e-6 stay shorter than 1.
  """
  lengths = tf.math.reduce_euclidean_norm(vectors, axis=-1, keepdims=True)
  return vectors / tf.maximum(lengths, _LEAST_SQUARE**0.5)


def to_unit(squares):
  """Factors that bring vectors of these squared lengths to length 1.

  As `tf.nn.l2_normalize`: vectors shorter than 1e-6 stay shorter than 1.
  """
  return tf.math.rsqrt(tf.maximum(squares, _LEAST_SQUARE))
