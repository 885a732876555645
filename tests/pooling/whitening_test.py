"""Tests for whitening. Axes: B videos, T frames, D features, K centres.

N are the real frames of all videos, and g the features of a group.
"""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import moments, whitening
from tests import layers
from tests.references import layers as references
from tests.references import whitening as loops

_D, _K = 6, 3
_GROUPS = (1, 2, 4, 6, 7)  # 4 leaves a group of 2; 7 is more than there are.
# 16 frames that are enough for a covariance of 6 features, and 6 that are not;
# with empty videos, and with nothing else.
_LENGTHS = ([5, 7, 0, 4], [4, 2], [0, 0])


# How the layer is run.


class _Layer:
  """A whitened sum of unknown B and T in its own graph."""

  def __init__(
    self, group_size, is_training=True, depth=_D, num_centres=_K, decay=0.0
  ):
    self._group_size = group_size
    with tf.Graph().as_default() as graph:
      self._frames = tf.placeholder(
        tf.float32, [None, None, depth], name="frames"
      )
      self._mask = tf.placeholder(tf.bool, [None, None])
      self._weights = tf.placeholder(
        tf.float32, [None, None, num_centres], name="weights"
      )
      self._centres = tf.placeholder(
        tf.float32, [num_centres, depth], name="centres"
      )

      def build(is_training):
        return whitening.whitened_sum(
          self._frames,
          self._mask,
          self._weights,
          self._centres,
          moments.squared_distances(self._frames, self._mask, self._centres),
          group_size=group_size,
          mode=layers.mode(is_training, decay),
        )

      self.outputs = build(is_training)
      self.updates = layers.updates()
      self.variables = {v.op.name: v for v in tf.global_variables()}
      self.gradients = layers.gradients(
        self.outputs, [self._frames, self._weights, self._centres]
      )
      if is_training:
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
          self.evaluated = build(False)
      self._session = tf.Session(graph=graph)
      self._session.run(tf.global_variables_initializer())
      self._initial = self.values()

  def close(self):
    self._session.close()

  def reset(self):
    layers.load(self._session, self._initial)

  def load(self, means, covariances, num_updates=0.0):
    values = {
      "whitening/moving_mean": means,
      "whitening/moving_covariance": loops.blocks(
        covariances, self._group_size
      ),
      "whitening/num_updates": num_updates,
    }
    layers.load(self._session, values)
    return self.values()

  def values(self):
    return self._session.run(self.variables)

  def run(
    self, fetches, videos, weights, centres, poison=layers.POISON, length=None
  ):
    """Padding of frames and of weights holds `poison`."""
    frames, mask = layers.pad(videos, poison, length)
    weights, _ = layers.pad(weights, poison, length)
    return self._session.run(
      fetches,
      {
        self._frames: frames,
        self._mask: mask,
        self._weights: weights,
        self._centres: centres,
      },
    )


@pytest.fixture(name="make", scope="module")
def _make():
  """A layer, with its variables as they are at first; built once."""
  made = {}

  def make(group_size, is_training=True, **kwargs):
    key = (group_size, is_training, *sorted(kwargs.items()))
    if key not in made:
      made[key] = _Layer(group_size, is_training, **kwargs)
    made[key].reset()
    return made[key]

  yield make
  for layer in made.values():
    layer.close()


def _centres(depth=_D, num_centres=_K, seed=3):
  rng = np.random.RandomState(seed)
  return rng.randn(num_centres, depth).astype(np.float32)


def _batch(lengths, depth=_D, num_centres=_K, seed=1):
  """Videos, their weights of any sign, and centres."""
  return (
    layers.random_videos(lengths, depth, seed),
    layers.random_videos(lengths, num_centres, seed + 1),
    _centres(depth, num_centres),
  )


def _random_averages(depth=_D, num_centres=_K, seed=4):
  """Means [K, D] and well conditioned covariances [K, D, D]."""
  rng = np.random.RandomState(seed)
  roots = rng.randn(num_centres, depth, depth)
  covariances = [
    (root @ root.T / depth + 0.3 * np.eye(depth)) / depth for root in roots
  ]
  means = 0.3 * rng.randn(num_centres, depth)
  return np.float32(means).astype(float), np.float32(covariances).astype(float)


@pytest.mark.parametrize("group_size", _GROUPS)
class TestAgainstLoops:
  @pytest.mark.parametrize("lengths", _LENGTHS)
  def test_training_whitens_by_the_batch(self, make, group_size, lengths):
    batch = _batch(lengths)
    layer = make(group_size)
    assert layer.outputs.shape.as_list() == [None, _K, _D]
    actual = layer.run(layer.outputs, *batch)
    expected = loops.whitened_sum(*batch, group_size)
    if sum(lengths) == 6 and group_size > 4:
      # Six frames span five dimensions. Along the sixth whitening multiplies
      # rounding by 1 / sqrt(shrinkage), which is 550.
      layers.assert_close(actual, expected, rtol=1e-3, atol=1e-2)
    else:
      # Six or 16 frames leave eigenvalues of 1e-3 of the largest.
      layers.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    for row, n in zip(actual, lengths):
      assert row.any() == (n > 0)

  def test_training_whitens_by_averages_that_have_seen_the_batch(
    self, make, group_size
  ):
    batch, averages = _batch(_LENGTHS[0]), _random_averages()
    layer = make(group_size, decay=0.9)
    layer.load(*averages, num_updates=9.0)
    kept = (1 + 9) / (20 + 9)
    moved = [
      kept * old + (1 - kept) * new
      for old, new in zip(averages, loops.statistics(batch[0], batch[2]))
    ]
    actual = layer.run(layer.outputs, *batch)
    layers.assert_close(
      actual, loops.whitened_sum(*batch, group_size, moved), atol=1e-5
    )

  @pytest.mark.parametrize("lengths", _LENGTHS)
  def test_evaluation_whitens_by_the_averages(self, make, group_size, lengths):
    batch, averages = _batch(lengths), _random_averages()
    layer = make(group_size, is_training=False)
    layer.load(*averages)
    assert layer.outputs.shape.as_list() == [None, _K, _D]
    actual = layer.run(layer.outputs, *batch)
    layers.assert_close(
      actual, loops.whitened_sum(*batch, group_size, averages), atol=1e-5
    )
    for row, n in zip(actual, lengths):
      assert row.any() == (n > 0)


class TestWhite:
  """The residuals of frames far from white are white."""

  _N = 500

  def _frames(self):
    """[N, D] of mean 2 and a covariance of condition number 1e4."""
    rng = np.random.RandomState(0)
    rotation, _ = np.linalg.qr(rng.randn(_D, _D))
    spread = 4.0 * np.logspace(0, -2, _D)
    return np.float32(2.0 + rng.randn(self._N, _D) * spread @ rotation)

  def _whitened(self, layer, j):
    """[N, D], each frame a video, of weight 1 on one centre."""
    weights = np.zeros([self._N, 1, _K], np.float32)
    weights[:, :, j] = 1.0
    outputs = layer.run(
      layer.outputs,
      list(self._frames()[:, np.newaxis]),
      list(weights),
      _centres(),
    )
    for other in range(_K):
      assert outputs[:, other].any() == (other == j)
    return outputs[:, j].astype(float)

  @pytest.mark.parametrize("group_size", [1, 2, 4, 6])
  def test_their_mean_is_0_and_their_covariance_1(self, make, group_size):
    layer = make(group_size)
    for j in range(_K):
      white = self._whitened(layer, j)
      mean, covariance = loops.mean_and_covariance(white)
      np.testing.assert_allclose(mean, np.zeros(_D), atol=2e-4)
      for group in loops.groups(_D, group_size):
        # Shrinkage s takes s / (l + s) of a variance l: up to 2 % here.
        np.testing.assert_allclose(
          covariance[np.ix_(group, group)], np.eye(len(group)), atol=0.02
        )

  def test_features_of_different_groups_stay_correlated(self, make):
    white = self._whitened(make(2), 0)
    _, covariance = loops.mean_and_covariance(white)
    assert np.abs(covariance[:2, 2:]).max() > 0.1


class TestMovingAverages:
  @pytest.mark.parametrize("group_size", _GROUPS)
  def test_start_as_of_residuals_in_any_direction(self, make, group_size):
    values = make(group_size).values()
    size = min(group_size, _D)
    assert values["whitening/num_updates"] == 0.0
    assert not values["whitening/moving_mean"].any()
    blocks = values["whitening/moving_covariance"]
    for centre in blocks:
      for matrix, group in zip(
        centre, loops.groups(_D, group_size), strict=True
      ):
        # Behind the last group's features nothing varies.
        real = np.arange(size) < len(group)
        layers.assert_close(matrix, np.diag(real / _D))

  @pytest.mark.parametrize("group_size", _GROUPS)
  def test_follow_the_real_frames_with_the_decay_of_the_warm_up(
    self, make, group_size
  ):
    layer = make(group_size, decay=0.9)
    assert len(layer.updates) == 1
    expected = layer.values()
    for step in range(3):
      batch = _batch(_LENGTHS[0], seed=10 * step)
      layer.run(layer.updates, *batch)
      actual = layer.values()
      means, covariances = loops.statistics(batch[0], batch[2])
      kept = (1 + step) / (20 + step)
      for name, value in (
        ("whitening/moving_mean", means),
        ("whitening/moving_covariance", loops.blocks(covariances, group_size)),
      ):
        expected[name] = kept * expected[name] + (1 - kept) * np.array(value)
        layers.assert_close(actual[name], expected[name])
      assert actual["whitening/num_updates"] == step + 1

  @pytest.mark.parametrize("group_size", [1, 4, 6])
  def test_evaluate_a_batch_as_training_saw_it(self, make, group_size):
    layer, batch = make(group_size), _batch(_LENGTHS[0])
    trained = layer.run(layer.outputs, *batch)
    for _ in range(60):
      layer.run(layer.updates, *batch)
    evaluated = layer.run(layer.evaluated, *batch)
    layers.assert_close(evaluated, trained, rtol=1e-3, atol=1e-3)

  def test_few_videos_of_like_frames_are_whitened_as_in_evaluation(self, make):
    layer, centres = make(_D, decay=0.9), _centres()

    def batch(seed):
      """Four videos of ten frames that hardly differ, one frame a weight."""
      rng = np.random.RandomState(seed)
      means = rng.randn(4, 1, _D)
      videos = np.float32(means + 0.1 * rng.randn(4, 10, _D))
      return list(videos), [np.ones([10, _K], np.float32)] * 4, centres

    for seed in range(200):
      layer.run(layer.updates, *batch(seed))
    cosines = []
    for seed in range(1000, 1020):
      pair = layer.run([layer.outputs, layer.evaluated], *batch(seed))
      trained, evaluated = (
        x.reshape([4, -1]) / np.linalg.norm(x.reshape([4, -1]), axis=1)[:, None]
        for x in pair
      )
      cosines.append((trained * evaluated).sum(axis=1).mean())
    # By the four videos' own statistics it would be 0.7.
    assert np.mean(cosines) > 0.97


@pytest.mark.parametrize("group_size", [1, 4, 6])
def test_gradients_flow_as_if_the_batchs_statistics_had_been_used(
  make, group_size
):
  batch = _batch(_LENGTHS[0])
  found = []
  for decay in (0.0, 0.9):
    layer = make(group_size, decay=decay)
    # So that averages that have seen the batch are the batch's own.
    layer.load(*loops.statistics(batch[0], batch[2]), num_updates=50.0)
    found.append(layer.run([layer.outputs, layer.gradients], *batch))
  layers.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-4)
  for name, gradient in found[0][1].items():
    scale = np.abs(gradient).max()
    layers.assert_close(
      found[1][1][name] / scale, gradient / scale, rtol=1e-3, atol=1e-4
    )


class TestDegenerate:
  @pytest.mark.parametrize("group_size", [1, 4, 6])
  @pytest.mark.parametrize("is_training", [True, False])
  def test_a_frame_on_a_centre_has_no_direction(
    self, make, group_size, is_training
  ):
    videos, weights, centres = _batch(_LENGTHS[0])
    videos[0][2] = centres[1]
    layer = make(group_size, is_training)
    averages = None
    if not is_training:
      averages = _random_averages()
      layer.load(*averages)
    outputs, gradients = layer.run(
      [layer.outputs, layer.gradients], videos, weights, centres
    )
    layers.assert_close(
      outputs,
      loops.whitened_sum(videos, weights, centres, group_size, averages),
      rtol=1e-4,
      atol=1e-5,
    )
    layers.assert_all_finite(gradients)

  @pytest.mark.parametrize("group_size", [1, 2, 4, 6])
  def test_all_frames_on_one_centre_give_0(self, make, group_size):
    videos, weights, centres = _batch(_LENGTHS[0])
    for video in videos:
      video[:] = centres[1]
    layer = make(group_size)
    outputs, gradients = layer.run(
      [layer.outputs, layer.gradients], videos, weights, centres
    )
    # The other centres see one direction, which is its own mean: up to rounding
    # times 1 / sqrt(2e-6 g / D), or at most 1732.
    layers.assert_close(outputs, np.zeros(outputs.shape), atol=5e-3)
    assert not outputs[:, 1].any()
    layers.assert_all_finite(gradients)

  # The larger it is, the less float32 has left of its variance.
  @pytest.mark.parametrize("value", [0.0, 0.5, 3.0, 10.0, 30.0])
  @pytest.mark.parametrize("group_size", [1, 4, 6])
  def test_a_feature_that_never_varies_gives_0(self, make, group_size, value):
    videos, weights, centres = _batch(_LENGTHS[0])
    for array in (*videos, centres):
      array[:, 3] = value
    layer = make(group_size)
    outputs, gradients = layer.run(
      [layer.outputs, layer.gradients], videos, weights, centres
    )
    layers.assert_all_finite({"outputs": outputs, **gradients})
    # Rounding of `value`, times 1 / sqrt(2e-6 g / D), or at most 1732, and more
    # where rounding makes the variance less than that.
    atol = 5e-3 * (1.0 + value)
    layers.assert_close(outputs[:, :, 3], np.zeros([4, _K]), atol=atol)

  @pytest.mark.parametrize("group_size", [1, 4, 6])
  def test_one_frame_is_its_own_mean(self, make, group_size):
    batch = _batch([0, 1])
    layer = make(group_size)
    outputs, gradients = layer.run([layer.outputs, layer.gradients], *batch)
    layers.assert_close(outputs, np.zeros(outputs.shape), atol=5e-3)
    layers.assert_all_finite({"outputs": outputs, **gradients})

  # Only with so many features does rounding reach what shrinkage adds.
  @pytest.mark.parametrize("depth, group_size", [(128, 128), (256, 32)])
  def test_fewer_frames_than_features_match_float64(
    self, monkeypatch, depth, group_size
  ):
    # The averages are float32 alone.
    monkeypatch.setattr(
      whitening.moving_average, "update", lambda _, batch, **unused: batch
    )
    rng = np.random.RandomState(0)
    videos = rng.randn(2, 10, depth) + 3.0 * rng.randn(depth)
    videos /= np.linalg.norm(videos, axis=2, keepdims=True)
    # Like centres that have been learnt: among the frames.
    centres = videos[0, :2] + 0.3 * rng.randn(2, depth) * depth**-0.5
    weights = rng.rand(2, 10, 2)
    upstream = rng.randn(2, 2, depth)
    results = []
    for dtype in (tf.float32, tf.float64):
      with (
        tf.Graph().as_default(),
        tf.Session() as session,
        tf.variable_scope("any", dtype=dtype),
      ):
        frames, a, c = (
          tf.cast(np.float32(x), dtype) for x in (videos, weights, centres)
        )
        mask = tf.ones([2, 10], tf.bool)
        outputs = whitening.whitened_sum(
          frames,
          mask,
          a,
          c,
          moments.squared_distances(frames, mask, c),
          group_size=group_size,
          mode=layers.mode(),
        )
        gradients = tf.gradients(
          outputs, [frames, c], tf.constant(upstream, dtype)
        )
        results.append(session.run([outputs, *gradients]))
    for actual, expected in zip(*results):
      # 1e-7 of rounding over 1e-5 of shrinkage, times what numbers cancel.
      difference = np.linalg.norm(actual - expected)
      assert difference < 0.05 * np.linalg.norm(expected)


class TestInverseSquareRoot:
  _MATRICES = (
    ("identity", np.eye(3)),
    ("two_equal", np.diag([2.0, 2.0, 5.0])),
    ("one", np.array([[4.0]])),
    ("random", None),
  )

  def _matrices(self, matrix):
    if matrix is not None:
      return matrix
    roots = np.random.RandomState(0).randn(2, 3, 4, 4)
    return roots @ np.swapaxes(roots, -1, -2) + 0.5 * np.eye(4)

  def _expected(self, matrix):
    values, vectors = np.linalg.eigh(matrix)
    total = np.zeros(matrix.shape)
    for value, vector in zip(values, vectors.T):
      total += vector[:, None] * vector[None, :] / math.sqrt(value)
    return total

  @pytest.mark.parametrize("name, matrix", _MATRICES)
  @pytest.mark.parametrize("dtype", [np.float32, np.float64])
  def test_is_the_inverse_square_root(self, name, matrix, dtype):
    matrices = self._matrices(matrix)
    with tf.Graph().as_default(), tf.Session() as session:
      result = whitening.inverse_square_root(tf.constant(matrices, dtype))
      assert result.dtype == dtype
      actual = session.run(result)
    size = matrices.shape[-1]
    for root, matrix in zip(
      actual.reshape([-1, size, size]), matrices.reshape([-1, size, size])
    ):
      tolerance = 1e-4 if dtype == np.float32 else 1e-10
      layers.assert_close(root, root.T, atol=tolerance)
      layers.assert_close(root, self._expected(matrix), atol=tolerance)
      layers.assert_close(root @ matrix @ root, np.eye(size), atol=tolerance)

  def test_of_numbers(self):
    with tf.Graph().as_default(), tf.Session() as session:
      actual = session.run(
        whitening.inverse_square_root(
          tf.constant([[[4.0, 0.0], [0.0, 25.0]], [[2.5, 1.5], [1.5, 2.5]]])
        )
      )
    # The second has 4 along (1, 1) and 1 along (1, -1): 1/2 and 1.
    layers.assert_close(
      actual, [[[0.5, 0.0], [0.0, 0.2]], [[0.75, -0.25], [-0.25, 0.75]]]
    )

  @pytest.mark.parametrize("name, matrix", _MATRICES)
  def test_gradients_match_finite_differences(self, name, matrix):
    matrices = self._matrices(matrix)
    size = matrices.shape[-1]
    upstream = np.random.RandomState(1).randn(*matrices.shape)
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = tf.constant(matrices)
      symmetric = 0.5 * (inputs + tf.linalg.matrix_transpose(inputs))
      (gradient,) = tf.gradients(
        whitening.inverse_square_root(symmetric), inputs, tf.constant(upstream)
      )
      actual = session.run(gradient)
    step = 1e-5
    for matrix, weights, found in zip(
      matrices.reshape([-1, size, size]),
      upstream.reshape([-1, size, size]),
      actual.reshape([-1, size, size]),
    ):
      for i in range(size):
        for j in range(size):
          sides = []
          for sign in (1, -1):
            moved = matrix.copy()
            moved[i, j] += sign * step
            moved = self._expected((moved + moved.T) / 2)
            sides.append(references.dot(weights.ravel(), moved.ravel()))
          expected = (sides[0] - sides[1]) / (2 * step)
          # Central differences are off by step^2 and by 1e-16 / step.
          assert found[i, j] == pytest.approx(expected, rel=1e-5, abs=1e-8)

  def test_the_gradient_is_symmetric_whatever_comes_from_above(self):
    matrices = self._matrices(None)
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = tf.constant(matrices)
      (gradient,) = tf.gradients(
        whitening.inverse_square_root(inputs),
        inputs,
        tf.constant(np.random.RandomState(1).randn(*matrices.shape)),
      )
      actual = session.run(gradient)
    layers.assert_close(actual, np.swapaxes(actual, -1, -2), atol=1e-12)


class TestGraph:
  @pytest.mark.parametrize("is_training", [True, False])
  @pytest.mark.parametrize(
    "group_size, blocks",
    zip(_GROUPS, ([6, 1, 1], [3, 2, 2], [2, 4, 4], [1, 6, 6], [1, 6, 6])),
  )
  def test_variables_have_these_names_and_shapes(
    self, make, group_size, blocks, is_training
  ):
    layer = make(group_size, is_training)
    assert {n: v.shape.as_list() for n, v in layer.variables.items()} == {
      "whitening/moving_covariance": [_K, *blocks],
      "whitening/moving_mean": [_K, _D],
      "whitening/num_updates": [],
    }
    assert not any(v.trainable for v in layer.variables.values())

  def _build(self, frames=None, group_size=2, **kwargs):
    frames = tf.zeros([2, 5, _D]) if frames is None else frames
    return whitening.whitened_sum(
      frames,
      tf.ones([2, 5], tf.bool),
      tf.zeros([2, 5, _K]),
      tf.zeros([_K, _D]),
      tf.zeros([2, 5, _K]),
      group_size=group_size,
      mode=layers.mode(),
      **kwargs,
    )

  def test_the_scope_is_what_it_is_given(self):
    with tf.Graph().as_default():
      self._build(scope="other")
      assert layers.names() == [
        "other/moving_covariance",
        "other/moving_mean",
        "other/num_updates",
      ]

  @pytest.mark.parametrize("group_size", [0, -2])
  def test_refuses_a_group_of_less_than_one(self, group_size):
    with (
      tf.Graph().as_default(),
      pytest.raises(ValueError, match=f"got D=6, group_size={group_size}"),
    ):
      self._build(group_size=group_size)


def test_a_reduced_precision_does_not_reach_it():
  rng = np.random.RandomState(0)
  centres = rng.randn(_K, _D).astype(np.float32)
  # Close to a centre: what bfloat16 leaves of such residuals is mostly error.
  frames = centres[rng.randint(_K, size=[2, 9])] + 0.02 * rng.randn(2, 9, _D)

  def run(dtype):
    with tf.Graph().as_default(), tf.Session() as session:
      inputs = tf.constant(frames, tf.float32)
      mask = tf.ones([2, 9], tf.bool)
      distances = moments.squared_distances(inputs, mask, tf.constant(centres))
      outputs = whitening.whitened_sum(
        inputs,
        mask,
        tf.nn.softmax(-distances),
        tf.constant(centres),
        distances,
        group_size=2,
        mode=layers.mode(dtype=dtype),
      )
      session.run(tf.global_variables_initializer())
      found = session.run(outputs)
      session.run(layers.updates())
      return [found, *session.run(tf.global_variables())]

  for reduced, plain in zip(run(tf.bfloat16), run(None), strict=True):
    np.testing.assert_array_equal(reduced, plain)
