"""Tests of pooling/affine_frames.py, and of what takes such frames.

Axes: B videos, T frames, D features, K centres.
"""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import batch_norm as bn
from pooling import frames as frames_lib
from pooling import linear, moments, products, whitening
from pooling.affine_frames import AffineFrames, formed
from tests import layers

B, T, D, K = 3, 5, 7, 4
LENGTHS = [5, 2, 0]
MASK = np.arange(T) < np.array(LENGTHS)[:, np.newaxis]


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


RAW = np.where(MASK[:, :, np.newaxis], random(B, T, D), 1e3)
FACTOR, OFFSET = random(D, seed=1), random(D, seed=2)
FORMED = RAW * FACTOR + OFFSET


def variables(*arrays):
  return [tf.Variable(array) for array in arrays]


def both_ways(build):
  """What `build` makes of affine frames, and of formed ones.

  Returns:
    two lists: outputs, and their gradients (of a random weighted sum) for raw
    frames, factor and offset.
  """
  found = []
  for form in (lambda frames: frames, lambda frames: frames.formed):
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = variables(RAW, FACTOR, OFFSET)
      outputs = build(form(AffineFrames(*inputs)))
      weights = tf.constant(random(*outputs.shape.as_list(), seed=3))
      gradients = tf.gradients(tf.cast(outputs, tf.float64) * weights, inputs)
      session.run(tf.global_variables_initializer())
      found.append(session.run([outputs, *gradients]))
  return found


def test_is_formed_once_where_a_tensor_is_wanted():
  with tf.Graph().as_default(), tf.Session() as session:
    frames = AffineFrames(*map(tf.constant, (RAW, FACTOR, OFFSET)))
    assert frames.shape.as_list() == [B, T, D]
    assert formed(frames) is formed(frames)
    assert formed(frames.raw) is frames.raw
    np.testing.assert_allclose(session.run(formed(frames)), FORMED)


def test_splits_by_feature():
  with tf.Graph().as_default(), tf.Session() as session:
    frames = AffineFrames(*map(tf.constant, (RAW, FACTOR, OFFSET)))
    parts = frames.split([4, 1, 2])
    assert all(isinstance(part, AffineFrames) for part in parts)
    found = session.run([part.formed for part in parts])
  for part, expected in zip(found, np.split(FORMED, [4, 5], axis=2)):
    np.testing.assert_allclose(part, expected)


@pytest.mark.parametrize("with_centres", [False, True])
def test_residuals_are_summed_as_those_of_formed_frames(with_centres):
  centres = random(K, D, seed=4) if with_centres else None
  affine, formed = both_ways(
    lambda frames: moments.first(
      frames, tf.constant(MASK), tf.constant(random(B, T, K, seed=5)), centres
    )
  )
  for found, expected in zip(affine, formed):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
  assert not affine[0][2].any()  # Of the empty video.
  assert not affine[1][~MASK].any()  # Padding has no gradient.


def distances(frames):
  centres = tf.constant(random(K, D, seed=4))
  return moments.squared_distances(frames, tf.constant(MASK), centres)


def product(frames):
  real = tf.constant(np.float64(MASK))[:, :, tf.newaxis]
  return products.of_frames(frames, tf.constant(random(D, K, seed=4))) * real


def turned_product(frames):
  real = tf.constant(np.float64(MASK))[:, :, tf.newaxis]
  matrix = tf.constant(random(K, D, seed=4))
  return products.of_frames(frames, matrix, transpose_b=True) * real


@pytest.mark.parametrize("build", [distances, product, turned_product])
def test_distances_and_products_are_those_of_formed_frames(build):
  affine, formed = both_ways(build)
  for found, expected in zip(affine, formed):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
  assert not affine[1][~MASK].any()  # Padding has no gradient.


def test_padding_of_any_size_reaches_no_gradient_of_distances():
  padded = np.where(MASK[:, :, np.newaxis], RAW, 1e30).astype(np.float32)
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = variables(padded, np.float32(FACTOR), np.float32(OFFSET))
    found = moments.squared_distances(
      AffineFrames(*inputs), tf.constant(MASK), tf.ones([K, D])
    )
    gradients = tf.gradients(found, inputs)
    session.run(tf.global_variables_initializer())
    for gradient in session.run(gradients):
      assert np.isfinite(gradient).all()


@pytest.mark.parametrize("group_size", [1, 3, D])
@pytest.mark.parametrize("is_training", [False, True])
def test_whitened_sums_are_those_of_formed_frames(
  monkeypatch, group_size, is_training
):
  # The averages are float32 alone.
  monkeypatch.setattr(
    whitening.moving_average, "update", lambda _, batch, **unused: batch
  )

  def whitened(frames):
    with tf.variable_scope("any", dtype=frames.dtype):
      return whitening.whitened_sum(
        frames,
        tf.constant(MASK),
        tf.constant(random(B, T, K, seed=5)),
        tf.constant(random(K, D, seed=4)),
        distances(frames),
        group_size=group_size,
        mode=layers.mode(is_training),
      )

  affine, formed = both_ways(whitened)
  assert np.abs(affine[0]).max() > 0.1
  for found, expected in zip(affine, formed):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  assert not affine[0][2].any()  # Of the empty video.
  assert not affine[1][~MASK].any()  # Padding has no gradient.


@pytest.mark.parametrize("add_batch_norm", [False, True])
def test_linear_maps_see_the_formed_frames(add_batch_norm):
  results = []
  for form in (lambda frames: frames, lambda frames: frames.formed):
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = variables(
        *(array.astype(np.float32) for array in (RAW, FACTOR, OFFSET))
      )
      outputs = linear.linear_frames(
        form(AffineFrames(*inputs)),
        tf.constant(MASK),
        K,
        mode=layers.mode(add_batch_norm=add_batch_norm),
      )
      real = tf.boolean_mask(outputs, MASK)
      gradients = tf.gradients(real**2, tf.trainable_variables())
      session.run(tf.global_variables_initializer())
      layers.randomize(session, 6)
      session.run([v.initializer for v in inputs])
      results.append(session.run([real, *gradients]))
      if add_batch_norm:
        session.run(layers.updates())
        results[-1].append(
          session.run(
            [v for v in tf.global_variables() if "moving" in v.op.name]
          )[0]
        )
  assert len(results[0]) == (1 + 3 + 3 + 1 if add_batch_norm else 1 + 3 + 2)
  for found, expected in zip(*results):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mean", [0.0, 20.0, 1e3])
def test_a_mean_far_from_zero_costs_no_precision(mean):
  """Whether all is float32, or products of the frames are in bfloat16."""
  length = 50
  raw = (mean + random(B, length, D)).astype(np.float32)
  mask = np.ones([B, length], bool)
  weights = np.abs(random(B, length, K, seed=5)).astype(np.float32)

  def build(dtype):
    with tf.Graph().as_default(), tf.Session() as session:
      mode = layers.mode(dtype=dtype)
      frames = frames_lib.normalize_input(
        tf.constant(raw), tf.constant(mask), mode=mode
      )
      assert isinstance(frames, AffineFrames)
      sums = moments.first(
        frames, tf.constant(mask), weights, None, dtype=dtype
      )
      logits = linear.linear_frames(
        frames, tf.constant(mask), K, mode=mode.with_batch_norm(False)
      )
      session.run(tf.global_variables_initializer())
      layers.randomize(session, 6)
      return session.run([sums, logits, *tf.trainable_variables()])

  def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)

  exact = raw.astype(np.float64)
  exact = (exact - exact.mean((0, 1))) / np.sqrt(exact.var((0, 1)) + 1e-3)
  for dtype, tolerance in ((None, 1e-3), (tf.bfloat16, 1e-2)):
    sums, logits, beta, gamma, weight, bias = build(dtype)
    normalised = exact * gamma + beta
    expected = np.einsum("btk,btd->bkd", weights, normalised)
    assert error(sums, expected) < tolerance
    assert error(logits, normalised @ weight + bias) < tolerance


@pytest.mark.parametrize("is_training", [False, True])
def test_the_map_of_batch_norm_is_batch_norm(is_training):
  rows = random(6, D, seed=7).astype(np.float32)
  mask = np.array([True, True, False, True, True, False])
  results = []
  for fold in (False, True):
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = tf.constant(rows)
      settings = {"mode": layers.mode(is_training)}
      if fold:
        mean, factor, beta = bn.normalizing_map(inputs, mask, **settings)
        outputs = (inputs - mean) * factor + beta
      else:
        outputs = bn.batch_norm(inputs, mask=mask, **settings)
      session.run(tf.global_variables_initializer())
      layers.randomize(session, 8)
      found = [session.run(outputs)]
      session.run(layers.updates())
      stored = {v.op.name: v for v in tf.global_variables()}
      found += [session.run(stored[name]) for name in sorted(stored)]
      results.append((sorted(stored), found))
  assert results[0][0] == results[1][0]
  assert len(results[0][0]) == 5
  for found, expected in zip(results[1][1], results[0][1]):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
