"""Tests for whitening. Axes: B videos, T frames, D features, K centres.

N are the real frames of all videos, and g the features of a group.
"""

import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import moments, whitening
from tests import layers
from tests.references import whitening as loops

_D, _K = 6, 3
_GROUPS = (1, 2, 4, 6, 7)  # 4 leaves a group of 2; 7 is more than there are.
# 16 frames that are enough for a covariance of 6 features, and 6 that are not;
# with empty videos, and with nothing else.
_LENGTHS = ([5, 7, 0, 4], [4, 2], [0, 0])


# How the layer is run.


class _Layer(layers.Layer):
  """A whitened sum, its variables as they are at first."""

  def __init__(self, group_size, is_training=True, decay=0.0):
    self._group_size = group_size

    def whitened(training, frames, mask, weights, centres):
      return whitening.whitened_sum(
        frames,
        mask,
        weights,
        centres,
        moments.squared_distances(frames, mask, centres),
        group_size=group_size,
        mode=layers.mode(training, decay),
      )

    def build(**inputs):
      outputs = whitened(is_training, **inputs)
      with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        return outputs, whitened(False, **inputs)

    super().__init__(
      build,
      frames=[None, None, _D],
      mask=[None, None],
      weights=[None, None, _K],
      centres=[_K, _D],
    )
    self.outputs, self.evaluated = self.outputs
    self.initialize()

  def set(self, means, covariances, num_updates=0.0):
    self.load(
      {
        "whitening/moving_mean": means,
        "whitening/moving_covariance": loops.blocks(
          covariances, self._group_size
        ),
        "whitening/num_updates": num_updates,
      }
    )

  def run(self, fetches, videos, weights, centres):
    """Padding of frames and of weights holds poison."""
    frames, mask = layers.pad(videos)
    weights, _ = layers.pad(weights)
    return super().run(fetches, frames, mask, weights, centres)


@pytest.fixture(name="make", scope="module")
def _make():
  """A layer, with its variables as they are at first; built once."""
  made = functools.cache(_Layer)

  def make(*args, **kwargs):
    layer = made(*args, **kwargs)
    layer.initialize()
    return layer

  return make


def _batch(lengths, seed=1):
  """Videos, their weights of any sign, and centres."""
  return (
    layers.random_videos(lengths, _D, seed),
    layers.random_videos(lengths, _K, seed + 1),
    layers.random_centres(_K, _D),
  )


def _random_averages():
  """Means [K, D] and well conditioned covariances [K, D, D]."""
  rng = np.random.RandomState(4)
  roots = rng.randn(_K, _D, _D)
  covariances = [(root @ root.T / _D + 0.3 * np.eye(_D)) / _D for root in roots]
  means = 0.3 * rng.randn(_K, _D)
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
    layer.set(*averages, num_updates=9.0)
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
    layer.set(*averages)
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
      layers.random_centres(_K, _D),
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
        # After the last group's features nothing varies.
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
    layer, centres = make(_D, decay=0.9), layers.random_centres(_K, _D)

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
    layer.set(*loops.statistics(batch[0], batch[2]), num_updates=50.0)
    found.append(layer.run([layer.outputs, layer.gradients], *batch))
  layers.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-4)
  for name, gradient in found[0][1].items():
    scale = np.abs(gradient).max()
    layers.assert_close(
      found[1][1][name] / scale, gradient / scale, rtol=1e-3, atol=1e-4
    )


class TestOfLargeBatches:
  """The statistics are those of one of each part of the real frames."""

  _LENGTHS = (5, 7, 0, 4)

  def _chosen(self, lengths, most):
    """Rows of the padded batch, of one real frame in each of `most` parts."""
    real = [
      video * max(lengths) + place
      for video, length in enumerate(lengths)
      for place in range(length)
    ]
    if len(real) <= most:
      return real
    width = len(real) / most
    return [
      real[int((part + part * 0.618034 % 1.0) * width)] for part in range(most)
    ]

  @pytest.mark.parametrize("most", [1, 3, 7, 15, 16, 17, 28])
  def test_averages_follow_the_chosen_frames(self, monkeypatch, most):
    monkeypatch.setattr(whitening, "_MOST_FRAMES", most)
    layer = _Layer(_D)
    batch = _batch(self._LENGTHS)
    layer.run(layer.updates, *batch)
    chosen = self._chosen(self._LENGTHS, most)
    assert len(chosen) == min(most, 16)
    frames = layers.pad(batch[0])[0].reshape([-1, _D])[chosen]
    means, covariances = loops.statistics([frames], batch[2])
    # At decay 0 the averages are the statistics.
    values = layer.values()
    layers.assert_close(values["whitening/moving_mean"], means, atol=1e-5)
    layers.assert_close(
      values["whitening/moving_covariance"],
      loops.blocks(covariances, _D),
      atol=1e-5,
    )

  def test_gradients_reach_the_chosen_frames_through_the_statistics(
    self, monkeypatch
  ):
    monkeypatch.setattr(whitening, "_MOST_FRAMES", 7)
    layer = _Layer(2)
    videos, weights, centres = _batch(self._LENGTHS)
    # One video is summed; by way of the statistics it hangs on the others.
    weights = [np.zeros_like(video) for video in weights]
    weights[0][:] = 1.0
    gradients = layer.run(layer.gradients, videos, weights, centres)
    in_frames = gradients["frames"].reshape([-1, _D])
    reached = set(np.flatnonzero(np.abs(in_frames).max(axis=1)))
    assert reached == {*range(5), *self._chosen(self._LENGTHS, 7)}


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
      layer.set(*averages)
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


@pytest.mark.parametrize("group_size", [0, -2])
def test_refuses_a_group_of_less_than_one(group_size):
  with pytest.raises(ValueError, match=f"got D=6, group_size={group_size}"):
    _Layer(group_size)


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
