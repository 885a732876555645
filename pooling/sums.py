"""Sums and maxima whose gradients leave shapes to the host."""

import tensorflow.compat.v1 as tf


def over(values, axis):
  """`tf.reduce_sum` over an axis.

  The gradient of `tf.reduce_sum` without keepdims works out a shape on the
  device, and the host waits for it.
  """
  return tf.squeeze(tf.reduce_sum(values, axis, keepdims=True), axis)


def highest(values, axis):
  """`tf.reduce_max` over an axis, likewise."""
  return tf.squeeze(tf.reduce_max(values, axis, keepdims=True), axis)
