"""Tests for vectors scaled by their lengths."""

import numpy as np
import tensorflow.compat.v1 as tf

from pooling import scaling


def _by_norms(squares):
  """Lengths 1, all of a video together too."""
  own = scaling.to_unit(squares)
  total = tf.reduce_sum(squares * tf.square(own), axis=1, keepdims=True)
  return own * scaling.to_unit(total)


def test_values_and_gradients_are_those_of_two_normalisations():
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=[3, 4, 5])
  vectors[1] = 0.0
  vectors[2, 1:] = 0.0
  weights = rng.normal(size=[3, 4, 5])
  found = []
  with tf.Graph().as_default(), tf.Session() as session:
    given = tf.constant(vectors)
    own = tf.nn.l2_normalize(given, axis=2)
    for scaled in (
      scaling.scaled(given, _by_norms),
      tf.nn.l2_normalize(own, axis=[1, 2]),
    ):
      found.append(
        session.run([scaled, tf.gradients(scaled, given, tf.constant(weights))])
      )
  for ours, plain in zip(*found):
    np.testing.assert_allclose(ours, plain, rtol=1e-9)


def test_unit_vectors_are_those_of_tensorflow():
  vectors = np.random.default_rng(0).normal(size=[3, 5]).astype(np.float32)
  vectors[1] = 0.0
  vectors[2] *= 1e-8
  with tf.Graph().as_default(), tf.Session() as session:
    given = tf.constant(vectors)
    ours, plain = session.run(
      [scaling.unit(given), tf.nn.l2_normalize(given, axis=1)]
    )
  np.testing.assert_allclose(ours, plain, rtol=1e-6)
