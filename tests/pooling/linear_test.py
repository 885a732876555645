"""Tests for the linear layer. Axes: N rows, B videos, T frames, D, K."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import linear
from tests import layers
from tests.references import layers as references

_N, _D, _K = 6, 3, 5


def _kwargs(add_batch_norm, is_training):
  return {"mode": layers.mode(is_training, add_batch_norm=add_batch_norm)}


@pytest.mark.parametrize("add_batch_norm", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
class TestAgainstLoops:
  def test_rows_match(self, add_batch_norm, is_training):
    rows = np.random.RandomState(0).randn(_N, _D).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = tf.placeholder(tf.float32, [None, _D])
      outputs = linear.linear(
        inputs, _K, **_kwargs(add_batch_norm, is_training)
      )
      assert outputs.shape.as_list() == [None, _K]
      variables = layers.randomize(session)
      actual = session.run(outputs, {inputs: rows})
      none = session.run(outputs, {inputs: rows[:0]})
    layers.assert_close(
      actual, references.linear(rows, variables, "linear", is_training)
    )
    assert none.shape == (0, _K)

  def test_masked_rows_count_in_no_statistic(self, add_batch_norm, is_training):
    rows = np.random.RandomState(0).randn(_N, _D).astype(np.float32)
    mask = np.array([True, False, True, True, True, False])
    real = rows[mask].copy()
    rows[~mask] = layers.POISON
    with tf.Graph().as_default(), tf.Session() as session:
      outputs = linear.linear(
        tf.constant(rows),
        _K,
        mask=tf.constant(mask),
        **_kwargs(add_batch_norm, is_training),
      )
      variables = layers.randomize(session)
      actual = session.run(outputs)[mask]
    layers.assert_close(
      actual, references.linear(real, variables, "linear", is_training)
    )

  def test_frames_match(self, add_batch_norm, is_training):
    with tf.Graph().as_default(), tf.Session() as session:
      frames = tf.placeholder(tf.float32, [None, None, _D])
      mask = tf.placeholder(tf.bool, [None, None])
      outputs = linear.linear_frames(
        frames, mask, _K, **_kwargs(add_batch_norm, is_training)
      )
      assert outputs.shape.as_list() == [None, None, _K]
      gradients = layers.gradients(
        tf.where_v2(mask[:, :, tf.newaxis], outputs, 0.0)
      )
      variables = layers.randomize(session)
      for lengths in ([4, 4], [4, 0, 2], [0, 1], [0, 0]):
        videos = layers.random_videos(lengths, _D)
        padded, real = layers.pad(videos)
        actual, found = session.run(
          [outputs, gradients], {frames: padded, mask: real}
        )
        assert actual.shape == (*real.shape, _K)
        expected = references.per_frame(
          references.linear, videos, variables, "linear", is_training
        )
        for b, n in enumerate(lengths):
          layers.assert_close(actual[b, :n], np.reshape(expected[b], [n, _K]))
        layers.assert_all_finite(found)


def test_weights_start_so_that_unit_inputs_give_unit_outputs():
  depth, units = 400, 50
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(0)
    linear.linear(tf.zeros([2, depth]), units, **_kwargs(False, True))
    session.run(tf.global_variables_initializer())
    weights, biases = session.run(tf.global_variables())
  # Of 20000 draws the spread is known to 0.5 %; 3 % is six of them.
  assert abs(weights.std() * depth**0.5 - 1.0) < 0.03
  assert biases.tolist() == [0.0] * units


class TestErrors:
  @pytest.mark.parametrize("shape", [[3], [2, 4, 3]])
  def test_refuses_rows_of_another_rank(self, shape):
    with tf.Graph().as_default(), pytest.raises(ValueError, match="rank 2"):
      linear.linear(tf.zeros(shape), 5, **_kwargs(True, True))

  def test_refuses_an_unknown_depth(self):
    with tf.Graph().as_default():
      rows = tf.placeholder(tf.float32, [2, None])
      with pytest.raises(ValueError, match="got D=None, K=5"):
        linear.linear(rows, 5, **_kwargs(True, True))
      frames = tf.placeholder(tf.float32, [2, 4, None])
      with pytest.raises(ValueError, match=r"got frames of shape \(2, 4, "):
        linear.linear_frames(
          frames, tf.ones([2, 4], tf.bool), 5, **_kwargs(True, True)
        )

  @pytest.mark.parametrize("units", [0, -2])
  def test_refuses_fewer_than_one_unit(self, units):
    with tf.Graph().as_default():
      with pytest.raises(ValueError, match=f"got D=3, K={units}"):
        linear.linear(tf.zeros([2, 3]), units, **_kwargs(True, True))
      with pytest.raises(ValueError, match=f"got D=3, K={units}"):
        linear.linear_frames(
          tf.zeros([2, 4, 3]),
          tf.ones([2, 4], tf.bool),
          units,
          **_kwargs(True, True),
        )


@pytest.mark.parametrize(
  ("depth", "units", "parts"),
  [(8192, 8192, 1), (16384, 4096, 1), (16384, 4104, 2), (16383, 8192, 1)],
)
def test_wide_weights_of_over_256_mb_train_in_parts(depth, units, parts):
  for is_training, count in ((True, parts), (False, 1)):
    with tf.Graph().as_default():
      linear.linear(
        tf.zeros([1, depth]),
        units,
        biases_stddev=None,
        **_kwargs(False, is_training),
      )
      assert len(tf.trainable_variables()) == count


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("has_biases", [True, False])
def test_penalised_weights_are_starter_codes(l2, has_biases):
  depth, units = 40, 60
  rows = np.random.RandomState(0).randn(_N, depth).astype(np.float32)
  with tf.Graph().as_default(), tf.Session() as session:
    for reuse in (False, True):  # As towers do.
      with tf.variable_scope("any", reuse=reuse):
        outputs = linear.penalised(
          tf.constant(rows), units, l2=l2, has_biases=has_biases, scope="linear"
        )
    session.run(tf.global_variables_initializer())
    first = session.run(tf.trainable_variables("any/linear/weights"))[0]
    variables = layers.randomize(session)
    actual = session.run(outputs)
    losses = session.run(tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES))
  weights = variables["any/linear/weights"]
  biases = variables["any/linear/biases"] if has_biases else 0.0
  assert len(variables) == 1 + has_biases
  layers.assert_close(actual, rows @ weights + biases, rtol=1e-4, atol=1e-4)
  expected = [l2 / 2.0 * np.sum(weights.astype(float) ** 2)] if l2 else []
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  # Glorot & Bengio 2010, equation (16).
  limit = (6.0 / (depth + units)) ** 0.5
  assert 0.99 * limit < np.abs(first).max() <= limit
  assert np.std(first) == pytest.approx(limit / 3.0**0.5, rel=0.05)


def test_only_weights_of_videos_have_a_gradient_of_their_own():
  def has_one(build):
    with tf.Graph().as_default() as graph:
      build(mode=layers.mode(add_batch_norm=False))
      # What TensorFlow makes of a function with a gradient.
      return "IdentityN" in {op.type for op in graph.get_operations()}

  assert has_one(lambda mode: linear.linear(tf.ones([2, 3]), 256, mode=mode))
  assert not has_one(
    lambda mode: linear.linear_frames(
      tf.ones([2, 4, 3]), tf.ones([2, 4], tf.bool), 256, mode=mode
    )
  )
