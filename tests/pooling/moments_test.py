"""Tests for moments. Axes: B videos, T frames, D features, K centres."""

import functools
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import moments, second_moments
from tests import layers
from tests.references import layers as references
from tests.references import moments as moment_references

_D, _K = 6, 7  # B is 4 and T 5, or what `lengths` says.
_CENTRES = layers.random_centres(_K, _D)
_LENGTHS = tuple(tuple(lengths) for lengths in layers.LENGTHS)
# Of the largest number expected, since sums cancel. Seen: 1.3e-7 and 6e-16.
_TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def _functions(mask, frames, weights, centres):
  """All that the module calculates: dict of name to tensor."""
  distances = moments.squared_distances(frames, mask, centres)
  given = (frames, mask, weights)
  return {
    "squared_distances": distances,
    "per_length 1": moments.per_length(weights, distances, 1),
    "per_length 2": moments.per_length(weights, distances, 2),
    "zeroth": moments.zeroth(mask, weights),
    "first": moments.first(*given, centres),
    "first without centres": moments.first(*given, None),
    "second 1": second_moments.second(*given, centres, group_size=1),
    "second 3": second_moments.second(*given, centres, group_size=3),
    "second 6": second_moments.second(*given, centres, group_size=_D),
    "gram 1": moments.gram(*given, centres, order=1),
    "gram 2": moments.gram(*given, centres, order=2),
    "gram 1 without centres": moments.gram(*given, None, order=1),
    "gram 2 without centres": moments.gram(*given, None, order=2),
  }


_NAMES = (
  *("squared_distances", "per_length 1", "per_length 2", "zeroth", "first"),
  *("first without centres", "second 1", "second 3", "second 6", "gram 1"),
  *("gram 2", "gram 1 without centres", "gram 2 without centres"),
)


def _functions_and_gradients(mask, *inputs):
  """(outputs, gradients): dicts of name to tensor and to three tensors."""
  outputs = _functions(mask, *inputs)
  assert tuple(outputs) == _NAMES
  gradients = {
    name: tf.gradients(
      tf.reduce_sum(tf.square(tensor)),
      list(inputs),
      unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    for name, tensor in outputs.items()
  }
  return outputs, gradients


def _inputs(lengths, poison, dtype):
  frames, mask = layers.padded(layers.random_videos(lengths, _D), poison, dtype)
  weights, _ = layers.padded(layers.random_weights(lengths, _K), poison, dtype)
  return mask, frames, weights, _CENTRES.astype(dtype)


@functools.cache
def _graph(dtype):
  _, *arrays = _inputs([0], 0.0, dtype)
  return layers.Graph(_functions_and_gradients, *arrays)


@functools.cache
def _computed(lengths, poison, dtype):
  return _graph(dtype)(*_inputs(lengths, poison, dtype))


def _assert_close(actual, expected, dtype="float32"):
  assert actual.dtype == dtype
  expected = np.reshape(expected, actual.shape)
  scale = max(1.0, np.abs(expected).max(initial=0.0))
  np.testing.assert_allclose(
    actual, expected, rtol=0.0, atol=_TOLERANCE[dtype] * scale
  )


def _expected(name, video, weights):
  """What the loops make of one video."""
  centres = _CENTRES
  if name.endswith(" without centres"):
    centres = moment_references.origin(_K, _D)
  kind, *number = name.removesuffix(" without centres").split()
  distances = [
    [moment_references.squared_distance(x, c) for c in centres] for x in video
  ]
  if kind == "squared_distances":
    return distances
  if kind == "per_length":
    power = int(number[0])
    return [
      [float(a) / math.sqrt(d) ** power for a, d in zip(*pair)]
      for pair in zip(weights, distances)
    ]
  if kind == "zeroth":
    return moment_references.zeroth(weights, _K)
  function = getattr(moment_references, kind)
  return function(video, weights, centres, *map(int, number))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("poison", layers.POISONS)
@pytest.mark.parametrize("lengths", _LENGTHS)
class TestAgainstLoops:
  @pytest.mark.parametrize("name", _NAMES)
  def test_matches(self, lengths, poison, dtype, name):
    actual = _computed(lengths, poison, dtype)[0][name]
    mask = _inputs(lengths, poison, dtype)[0]
    videos = layers.random_videos(lengths, _D)
    weights = layers.random_weights(lengths, _K)
    if name.startswith("gram"):
      assert actual.shape == (len(lengths), max(lengths), max(lengths))
      assert not actual[~(mask[:, :, None] & mask[:, None])].any()
      actual = [m[: len(v), : len(v)] for m, v in zip(actual, videos)]
    elif name.startswith(("squared", "per_length")):  # Of each frame.
      assert not actual[~mask].any()
      actual = [rows[: len(v)] for rows, v in zip(actual, videos)]
    else:
      assert not actual[np.array(lengths) == 0].any()
    for found, video, rows in zip(actual, videos, weights, strict=True):
      _assert_close(found, _expected(name, video, rows), dtype)


def _near_frames(frame_length, centre_length):
  """16 frames of 1024 features, of which 10 lie near one of 8 centres.

  Returns:
    (float32 frames [T, D], centres [K, D], distance of each frame from the
    centre whose number is its own modulo K, in lengths of the centre; None for
    those that are anywhere.)
  """
  rng = np.random.RandomState(4)

  def directions(number):
    rows = rng.randn(number, 1024)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  away = [0.0, 0.0, 1e-6, 1e-6, 1e-3, 1e-3, 5e-3, 5e-3, 1e-2, 1e-2, *[None] * 6]
  frames, centres = frame_length * directions(16), centre_length * directions(8)
  for t, (step, distance) in enumerate(zip(directions(16), away)):
    if distance is not None:
      frames[t] = centres[t % 8] + distance * centre_length * step
  return frames.astype(np.float32), centres.astype(np.float32), away


# Distance from the centre: largest error of |v|^2, of directions, and of
# their gradients in frames, each relative.
_NEAR_BOUNDS = {
  5e-3: (8e-2, 4e-2, 8e-2),
  1e-2: (2e-2, 1e-2, 2e-2),
  None: (1e-6, 1e-6, 1e-6),
}


@pytest.mark.parametrize(
  "frame_length, centre_length",
  [(1.0, 1.0), (31.0, 1.3), (31.0, 29.0)],
  ids=["unit length", "long frames", "long frames and centres"],
)
class TestCoincidence:
  """Real sizes in float32. A direction is w v / |v|, its size at most w < 1.

  |v|^2 was seen to be off by 8e-7 of |x|^2 + |c|^2, whatever the scale. So of a
  frame that is 0.5 % of a length away from a centre, |v|^2 is right within 4 %
  and v / |v| within 2 %; at 1 % within 1 % and 0.4 %; far away within 2e-7.
  """

  def test_coinciding_counts_as_zero_and_the_rest_is_right(
    self, frame_length, centre_length
  ):
    frames, centres, away = _near_frames(frame_length, centre_length)
    rng = np.random.RandomState(5)
    weights = rng.rand(16, 8).astype(np.float32)
    upstream = rng.randn(16, 8, 1024).astype(np.float32)

    def function(mask, frames, weights, centres):
      distances = moments.squared_distances(frames, mask, centres)
      directions = moments.first(
        frames, mask, moments.per_length(weights, distances, 1), centres
      )
      inputs = [frames, weights, centres]
      return (
        distances[:, 0],
        directions,
        tf.gradients(directions, inputs, grad_ys=upstream),
        tf.gradients(distances, [frames, centres]),
      )

    # One frame a video: then a sum is the direction of one frame.
    distances, directions, gradients, of_distances = layers.evaluate(
      function,
      np.ones([16, 1], bool),
      frames[:, None],
      weights[:, None],
      centres,
    )
    layers.assert_all_finite(dict(enumerate(gradients + of_distances)))
    for t, x in enumerate(frames):
      gradient, distances_gradient = np.zeros([2, 1024])
      loosest = None
      for j, c in enumerate(centres):
        distance = away[t] if t % 8 == j else None
        if distance is not None and distance <= 1e-3:
          assert distances[t, j] == 0.0
          assert not directions[t, j].any()
          assert gradients[1][t, 0, j] == 0.0
          continue
        v = np.array(moment_references.residual(x, c))
        length = math.sqrt(references.dot(v, v))
        of_length, of_direction, _ = _NEAR_BOUNDS[distance]
        assert distances[t, j] == pytest.approx(length**2, rel=of_length)
        expected = weights[t, j] * v / length
        assert np.linalg.norm(directions[t, j] - expected) < of_direction
        # Of w v / |v|: what of the upstream is across v, times w / |v|.
        along = references.dot(upstream[t, j], v) / length
        assert gradients[1][t, 0, j] == pytest.approx(
          along, rel=of_direction, abs=1e-4
        )
        across = upstream[t, j] - along * v / length
        gradient += weights[t, j] / length * across
        distances_gradient += 2.0 * v
        if distance is not None:
          loosest = distance
      error = np.linalg.norm(gradients[0][t, 0] - gradient)
      assert error < _NEAR_BOUNDS[loosest][2] * np.linalg.norm(gradient)
      error = np.linalg.norm(of_distances[0][t, 0] - distances_gradient)
      assert error < 1e-6 * np.linalg.norm(distances_gradient)

  @pytest.mark.parametrize("power", [1, 2])
  def test_sums_that_coinciding_frames_take_part_in_are_finite(
    self, frame_length, centre_length, power
  ):
    frames, centres, _ = _near_frames(frame_length, centre_length)
    weights = np.random.RandomState(5).rand(16, 8).astype(np.float32)

    def function(mask, *inputs):
      frames, weights, centres = inputs
      distances = moments.squared_distances(frames, mask, centres)
      weights = moments.per_length(weights, distances, power)
      given = (frames, mask, weights, centres)
      sums = second_moments.second(*given, group_size=2)
      gram = moments.gram(*given, order=power)
      return {
        "second": sums,
        "gram": gram,
        **{
          f"gradient of {name} {i}": gradient
          for name, tensor in (("second", sums), ("gram", gram))
          for i, gradient in enumerate(
            tf.gradients(tf.reduce_sum(tf.square(tensor)), list(inputs))
          )
        },
      }

    found = layers.evaluate(
      function, np.ones([1, 16], bool), frames[None], weights[None], centres
    )
    layers.assert_all_finite(found)


def test_distances_are_not_rounded_to_tf32():
  switch = tf.config.experimental
  switch.enable_tensor_float_32_execution(True)
  with tf.Graph().as_default():
    moments.squared_distances(
      tf.zeros([1, 2, 3]), tf.ones([1, 2], tf.bool), tf.zeros([4, 3])
    )
  assert not switch.tensor_float_32_execution_enabled()


def test_frames_and_centres_of_zero_coincide():
  def function(mask, *inputs):
    frames, weights, centres = inputs
    distances = moments.squared_distances(frames, mask, centres)
    scaled = moments.per_length(weights, distances, 2)
    return scaled, tf.gradients(scaled, list(inputs))

  mask, _, weights, _ = _inputs([5, 2], 0.0, "float32")
  found, gradients = layers.evaluate(
    function,
    mask,
    np.zeros([2, 5, _D], np.float32),
    weights,
    np.zeros([_K, _D], np.float32),
  )
  assert not found.any()
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


class TestErrors:
  @pytest.mark.parametrize("power", [0, 3, -1, 0.5])
  def test_per_length_refuses_another_power(self, power):
    with pytest.raises(ValueError, match=f"power 1 or 2, got {power}"):
      moments.per_length(1.0, tf.ones([2, 5, 3]), power)

  @pytest.mark.parametrize("order", [0, 3, -1])
  def test_gram_refuses_another_order(self, order):
    ones = tf.ones([2, 5, 3])
    with pytest.raises(ValueError, match=f"order 1 or 2, got {order}"):
      moments.gram(ones, tf.ones([2, 5], tf.bool), ones, None, order=order)

  @pytest.mark.parametrize("group_size", [0, -2, 4, 5, 12])
  def test_second_refuses_a_group_size_that_does_not_divide(self, group_size):
    mask, *inputs = _inputs([5, 2], 0.0, "float32")
    frames, weights, centres = inputs
    with pytest.raises(ValueError, match=f"D=6, group_size={group_size}"):
      second_moments.second(
        tf.constant(frames), mask, weights, centres, group_size=group_size
      )
