"""Tests for dropout."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling.dropout import dropout
from tests import layers


@pytest.mark.parametrize(
  ("rate", "is_training"), [(0.0, True), (0.0, False), (0.5, False)]
)
def test_of_rate_0_or_in_evaluation_is_its_input(rate, is_training):
  with tf.Graph().as_default():
    inputs = tf.ones([2, 3])
    assert dropout(inputs, rate, is_training=is_training) is inputs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeroes_its_share_and_scales_up_the_rest(dtype):
  values = 1.0 + np.random.RandomState(0).rand(200, 100).astype(dtype)
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.constant(values)
    outputs = dropout(inputs, 0.25, is_training=True)
    assert outputs.dtype == dtype
    (gradient,) = tf.gradients(outputs, inputs)
    first, slopes = session.run([outputs, gradient])
    second = session.run(outputs)
  kept = first != 0.0
  # The share of 20000 is known to 0.3 %; six are 1.8 %.
  assert abs(kept.mean() - 0.75) < 0.018
  layers.assert_close(first[kept], values[kept] * 4 / 3)
  layers.assert_close(slopes, kept * 4 / 3)
  assert (first != second).any()


@pytest.mark.parametrize("rate", [-0.5, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("is_training", [True, False])
def test_refuses_a_rate_outside_0_and_1(rate, is_training):
  with tf.Graph().as_default(), pytest.raises(ValueError, match="dropout rate"):
    dropout(tf.ones([2, 3]), rate, is_training=is_training)
