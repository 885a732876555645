"""Dropout (Srivastava et al. 2014, Journal of Machine Learning Research 15)."""

import tensorflow.compat.v1 as tf


def dropout(inputs, rate, *, is_training):
  """Zeroes a share of the inputs at random in training, and scales up the rest.

  Args:
    inputs: float, any shape.
    rate: float in [0, 1).
    is_training: bool; False returns the inputs as they are.

  Returns:
    The same shape and type.

  Raises:
    ValueError: rate outside [0, 1).
  """
  if not 0.0 <= rate < 1.0:
    raise ValueError(f"Need a dropout rate in [0, 1), got {rate}.")
  if not (is_training and rate):
    return inputs
  return tf.nn.dropout(inputs, rate=rate)
