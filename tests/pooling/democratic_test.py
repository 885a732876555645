"""Tests for democratic weights. Axes: B videos, T frames, D features, K."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import democratic, moments
from tests import layers
from tests.references import layers as references
from tests.references import moments as moment_references

_D, _K = 6, 4  # B is 3 or 2 and T 5, 4 or 2, or what `lengths` says.
_CENTRES = layers.random_centres(_K, _D)
_LENGTHS = ([5, 2, 0], [0, 4], [0, 0])


def _config(enabled=True, let_gradients_through=False, projection_size=0):
  return democratic.Config(
    enabled=enabled,
    let_gradients_through=let_gradients_through,
    projection_size=projection_size,
  )


def _inputs(lengths, poison=layers.POISON, dtype="float32"):
  """Of random videos: mask, assignments >= 0, frames, weights, centres."""
  frames, mask = layers.padded(layers.random_videos(lengths, _D), poison, dtype)
  assigned, _ = layers.padded(_assignments(lengths), poison, dtype)
  weights, _ = layers.padded(_weights(lengths), poison, dtype)
  return mask, assigned, frames, weights, _CENTRES.astype(dtype)


def _assignments(lengths):
  return [np.abs(a) for a in layers.random_weights(lengths, _K, seed=5)]


def _weights(lengths):
  return layers.random_weights(lengths, _K, seed=6)


def _solve_loop(gram, rounds=20):
  """Jégou & Zisserman, algorithm 1, on the clipped matrix of one video."""
  gram = [[max(entry, 0.0) for entry in row] for row in gram]
  found = [1.0] * len(gram)
  for _ in range(rounds):
    agreements = [
      found[i] * references.dot(gram[i], found) for i in range(len(gram))
    ]
    found = [
      value / math.sqrt(agreement) if agreement > 0.0 else 0.0
      for value, agreement in zip(found, agreements)
    ]
  return found


def _reweigh(config, order=1, with_centres=True):
  """`reweigh` as a function of what `_inputs` gives."""

  def function(mask, assignments, frames, weights, centres):
    return democratic.reweigh(
      assignments,
      frames,
      mask,
      weights,
      centres if with_centres else None,
      config,
      order=order,
    )

  return function


class TestAgainstLoops:
  @pytest.mark.parametrize("dtype", ["float32", "float64"])
  @pytest.mark.parametrize("order", [1, 2])
  @pytest.mark.parametrize("with_centres", [True, False])
  def test_the_weights_are_those_of_explicit_embeddings(
    self, dtype, order, with_centres
  ):
    graph = layers.Graph(
      _reweigh(_config(), order, with_centres),
      *_inputs([0], dtype=dtype)[1:],
    )
    centres = _CENTRES if with_centres else moment_references.origin(_K, _D)
    # Seen: 5e-8 and 2e-16.
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype]
    for lengths in _LENGTHS:
      for poison in layers.POISONS:
        mask, *arrays = _inputs(lengths, poison, dtype)
        actual = graph(mask, *arrays)
        assert actual.dtype == dtype
        assert actual.shape == arrays[0].shape
        assert not actual[~mask].any()
        for b, (video, assigned, weights) in enumerate(
          zip(
            layers.random_videos(lengths, _D),
            _assignments(lengths),
            _weights(lengths),
          )
        ):
          found = _solve_loop(
            moment_references.gram(video, weights, centres, order)
          )
          expected = [
            [value * float(a) for a in row]
            for value, row in zip(found, assigned)
          ]
          layers.assert_close(
            actual[b, : len(video)],
            np.reshape(expected, [len(video), _K]),
            rtol=tolerance,
            atol=tolerance,
          )

  @pytest.mark.parametrize("rounds", [1, 2, 7])
  def test_solve_runs_that_many_rounds(self, rounds):
    gram = np.random.RandomState(0).rand(2, 5, 5).astype(np.float32)
    gram += np.swapaxes(gram, 1, 2) - 0.3  # Some below 0.
    actual = layers.evaluate(
      lambda mask, gram: democratic.solve(gram, mask, rounds),
      np.ones([2, 5], bool),
      gram,
    )
    for found, matrix in zip(actual, gram):
      layers.assert_close(found, _solve_loop(matrix, rounds))

  def test_the_order_of_frames_does_not_matter(self):
    mask, *arrays = _inputs([5, 5, 5])
    graph = layers.Graph(_reweigh(_config()), *arrays)
    assigned, frames, weights, centres = arrays
    order = [3, 0, 4, 2, 1]
    layers.assert_close(
      graph(
        mask, assigned[:, order], frames[:, order], weights[:, order], centres
      ),
      graph(mask, *arrays)[:, order],
    )

  def test_disabled_returns_the_assignments_themselves(self):
    with tf.Graph().as_default():
      mask, *arrays = [tf.constant(array) for array in _inputs([5, 2, 0])]
      assert _reweigh(_config(enabled=False))(mask, *arrays) is arrays[0]
      # The mask's constant, theirs, and nothing else.
      assert len(tf.get_default_graph().get_operations()) == len(arrays) + 1


_COSINES = [(1.0, 0.76, 0.84), (32.0, 0.33, 0.72)]


def _softmax(logits):
  mass = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return mass / mass.sum(axis=-1, keepdims=True)


def _real_sized(lengths, depth=1024, num_centres=64, seed=0):
  """Frames of unit length, softmaxes of random logits, centres near 1."""
  rng = np.random.RandomState(seed)
  frames = rng.randn(len(lengths), max(lengths), depth)
  frames /= np.linalg.norm(frames, axis=2, keepdims=True)
  assigned = _softmax(rng.randn(*frames.shape[:2], num_centres))
  centres = rng.randn(num_centres, depth) / depth**0.5
  mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
  frames[~mask] = layers.POISON
  return mask, *(a.astype(np.float32) for a in (assigned, frames, centres))


def _embedding_weights(mask, assigned, frames, centres, power):
  """a, or a / |v|^power."""
  if not power:
    return assigned
  distances = moments.squared_distances(frames, mask, centres)
  return moments.per_length(assigned, distances, power)


class TestRealSizes:
  @pytest.mark.parametrize("power", [0, 1])
  def test_each_frame_contributes_the_same(self, power):
    def function(mask, *arrays):
      _, frames, centres = arrays
      weights = _embedding_weights(mask, *arrays, power)
      gram = tf.nn.relu(moments.gram(frames, mask, weights, centres))
      found = democratic.solve(gram, mask)
      return found, found * tf.linalg.matvec(gram, found)

    mask, *arrays = _real_sized([256, 131])
    found, contributions = layers.evaluate(function, mask, *arrays)
    # Seen: 4e-5; of sharper assignments to centres, and of frames that come in
    # shots, up to 5e-4.
    np.testing.assert_allclose(contributions[mask], 1.0, rtol=0.0, atol=1e-4)
    assert (found[mask] > 0.0).all()
    assert not found[~mask].any()

  def test_a_projection_keeps_dot_products_as_the_docstring_says(self):
    rng = np.random.RandomState(1)
    x = rng.randn(2, 64, 1024).astype(np.float32)
    lengths = np.linalg.norm(x, axis=2)
    errors = {}  # Seen: 0.182, 0.087, 0.045.
    with tf.Graph().as_default(), tf.Session() as session:
      for size in (32, 128, 512):
        frames, centres = session.run(
          democratic._project(tf.constant(x), tf.constant(x[1]), size)
        )
        assert frames.shape == (2, 64, size)
        layers.assert_close(frames[1], centres, atol=1e-4)
        found = np.float64(frames[0]) @ np.float64(frames[1]).T
        found -= np.float64(x[0]) @ np.float64(x[1]).T
        found /= np.outer(lengths[0], lengths[1])
        errors[size] = np.sqrt(np.mean(found**2))
        # Of vectors of no likeness half of the largest variance.
        assert errors[size] < 1.1 * (1 / size) ** 0.5
        # Of a vector and itself, signs make it less than the bound too.
        own = np.square(frames).sum(axis=2) / lengths**2 - 1.0
        assert np.sqrt(np.mean(own**2)) < 1.2 * (2 / size) ** 0.5
    assert errors[32] / errors[128] == pytest.approx(2.0, rel=0.1)
    assert errors[128] / errors[512] == pytest.approx(2.0, rel=0.1)

  @pytest.mark.parametrize("power", [0, 1])
  def test_projected_weights_are_near_the_exact_ones(self, power):
    # Size to bounds of the relative errors of the Gram matrix, by norm, and of
    # the weights: root mean square and largest. Seen, whatever the power:
    # 0.098, 0.023, 0.070; 0.071, 0.017, 0.048; 0.051, 0.014, 0.055.
    bounds = {
      128: (0.13, 0.03, 0.1),
      256: (0.09, 0.022, 0.08),
      512: (0.065, 0.018, 0.08),
    }

    def function(mask, assigned, frames, centres):
      weights = _embedding_weights(mask, assigned, frames, centres, power)

      def found(size):
        around = frames, centres
        if size:
          around = democratic._project(frames, centres, size)
        gram = moments.gram(around[0], mask, weights, around[1])
        weighed = democratic.reweigh(
          tf.ones_like(assigned),
          frames,
          mask,
          weights,
          centres,
          _config(projection_size=size),
        )
        return gram, weighed[:, :, 0]

      return {size: found(size) for size in (0, *bounds)}

    found = layers.evaluate(function, *_real_sized([256]))
    exact_gram, exact = found[0]
    for size, (of_gram, root_mean_square, largest) in bounds.items():
      gram, weights = found[size]
      error = np.linalg.norm(gram - exact_gram) / np.linalg.norm(exact_gram)
      assert 0.5 * of_gram < error < of_gram
      ratios = weights / exact
      assert np.mean(ratios) == pytest.approx(1.0, abs=0.02)
      ratios /= np.mean(ratios)  # One factor for all frames is no matter.
      assert np.std(ratios) < root_mean_square
      assert np.abs(ratios - 1.0).max() < largest


class TestTheIdea:
  def test_copies_share_the_weight_of_one(self):
    mask, *arrays = _inputs([5, 4])
    assigned, frames, weights, centres = arrays

    def function(mask, assigned, frames, weights, centres):
      given = (assigned, frames, weights, centres)
      found = _reweigh(_config())(mask, *given)
      sums = moments.first(frames, mask, found, centres)
      return found, tf.nn.l2_normalize(sums, axis=[1, 2])

    graph = layers.Graph(function, *arrays)
    once, descriptor = graph(mask, *arrays)
    twice, same_descriptor = graph(
      np.repeat(mask, 2, axis=1),
      *(np.repeat(a, 2, axis=1) for a in (assigned, frames, weights)),
      centres,
    )
    layers.assert_close(twice, np.repeat(once, 2, axis=1) / 2**0.5)
    layers.assert_close(same_descriptor, descriptor)

  # Cosines seen of the descriptors with and without the burst: 0.76 without
  # democratic weights and 0.84 with them where the frames are as short as the
  # centres, which they all have in common; 0.33 and 0.72 where they are as long
  # as batch-normalised ones. The same for both powers.
  @pytest.mark.parametrize("length, plain, weighed", _COSINES)
  @pytest.mark.parametrize("power", [0, 1])
  def test_a_burst_does_not_dominate(self, power, length, plain, weighed):
    mask, assigned, frames, centres = _real_sized([60], num_centres=16)
    frames *= length
    # Frames 21 to 59 are frame 20 with a little noise.
    rng = np.random.RandomState(1)
    noise = rng.randn(39, 1024) / 1024**0.5
    frames[0, 21:] = frames[0, 20] + 0.05 * length * noise
    assigned[0, 21:] = _softmax(
      np.log(assigned[0, 20]) + 0.05 * rng.randn(39, 16)
    )

    def function(mask, *arrays):
      _, frames, centres = arrays
      weights = _embedding_weights(mask, *arrays, power)
      found = democratic.reweigh(
        weights, frames, mask, weights, centres, _config()
      )
      return [
        tf.nn.l2_normalize(moments.first(frames, mask, w, centres), axis=[1, 2])
        for w in (weights, found)
      ]

    graph = layers.Graph(function, assigned, frames, centres)
    burst = graph(mask, assigned, frames, centres)
    without = graph(mask[:, :21], assigned[:, :21], frames[:, :21], centres)
    cosines = [np.sum(a * b) for a, b in zip(burst, without)]
    np.testing.assert_allclose(cosines, [plain, weighed], rtol=0.0, atol=0.03)

  def test_a_long_embedding_does_not_dominate(self):
    # Of two frames that have nothing in common, one is five times as long.
    frames = np.array([[[5.0, 0.0], [0.0, 1.0]]])
    ones = np.ones([1, 2, 1])
    weighed = layers.evaluate(
      lambda mask, ones, frames: democratic.reweigh(
        ones, frames, mask, ones, None, _config()
      ),
      np.ones([1, 2], bool),
      ones,
      frames,
    )
    np.testing.assert_allclose(weighed, [[[1 / 5.0], [1.0]]], rtol=1e-12)


class TestFramesOfNoEmbedding:
  def test_get_no_weight_without_centres(self):
    mask, assigned, frames, _ = _real_sized([16], num_centres=3)
    frames[0, ::2] = 0.0
    found = layers.evaluate(
      lambda mask, assigned, frames: democratic.reweigh(
        assigned, frames, mask, assigned, None, _config()
      ),
      mask,
      assigned,
      frames,
    )
    assert not found[0, ::2].any()
    assert (found[0, 1::2] > 0.0).all()

  @pytest.mark.parametrize("order", [1, 2])
  @pytest.mark.parametrize("length", [1.0, 29.0])
  def test_get_no_weight_at_their_own_length(self, order, length):
    # Every other frame is the one centre that it is assigned to.
    mask, assigned, frames, centres = _real_sized([16], num_centres=8)
    frames, centres = length * frames, length * centres
    for t in range(16):
      assigned[0, t] = np.eye(8)[t // 2]
      if t % 2 == 0:
        frames[0, t] = centres[t // 2]

    def function(mask, *arrays):
      assigned, frames, centres = arrays
      return democratic.reweigh(
        assigned, frames, mask, assigned, centres, _config(), order=order
      )

    found = layers.evaluate(function, mask, assigned, frames, centres)
    assert not found[0, ::2].any()
    assert (found[0, 1::2].sum(axis=1) > 0.0).all()


class TestGradients:
  @pytest.mark.parametrize("let_gradients_through", [True, False])
  def test_reach_what_the_weights_follow_from_only_if_let_through(
    self, let_gradients_through
  ):
    config = _config(let_gradients_through=let_gradients_through)

    def function(mask, *inputs):
      outputs = _reweigh(config)(mask, *inputs)
      found = tf.gradients(outputs, list(inputs))
      for gradient in found[1:]:
        assert (gradient is not None) == let_gradients_through
      ones = [tf.ones_like(inputs[0]), *inputs[1:]]
      # The assignments are multiplied: theirs is lambda in either case.
      return found[0], _reweigh(_config())(mask, *ones)

    mask, *arrays = _inputs([5, 2, 0])
    gradient, weights = layers.evaluate(function, mask, *arrays)
    layers.assert_close(gradient, weights)


@pytest.mark.parametrize("rounds", [0, -1])
def test_refuses_fewer_than_one_round(rounds):
  with pytest.raises(ValueError, match=f"rounds >= 1, got {rounds}"):
    democratic.solve(tf.ones([2, 5, 5]), tf.ones([2, 5], tf.bool), rounds)
