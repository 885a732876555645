"""Tests for penalties. Axes: B videos, T frames, D features, K centres."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import regularizers
from tests import layers
from tests.references import layers as references
from tests.references import moments as moment_references

_D, _K = 6, 4  # B is 3 or 2 and T 5, 2 or 0, or what `lengths` says.
_CENTRES = layers.random_centres(_K, _D)
_LENGTHS = ([5, 2, 0], [0, 2], [0, 0])
_NAMES = ("orthogonality", "coding", "locality")


def _inputs(lengths, poison=layers.POISON, dtype="float32"):
  """Of random videos: mask, frames, assignments of either sign, centres."""
  frames, mask = layers.padded(layers.random_videos(lengths, _D), poison, dtype)
  assigned, _ = layers.padded(layers.random_weights(lengths, _K), poison, dtype)
  return mask, frames, assigned, _CENTRES.astype(dtype)


def _all(mask, frames, assigned, centres):
  return {
    "orthogonality": regularizers.orthogonality(centres),
    "coding": regularizers.coding(frames, mask, assigned, centres),
    "locality": regularizers.locality(frames, mask, assigned, centres),
  }


def _cosine(c, d):
  return references.dot(c, d) / math.sqrt(
    references.dot(c, c) * references.dot(d, d)
  )


def _orthogonality_loop(centres):
  squares = [
    _cosine(c, d) ** 2 for i, c in enumerate(centres) for d in centres[i + 1 :]
  ]
  return sum(squares) / len(squares)


def _coding_loop(videos, assignments, centres):
  ratios = []
  for video, assigned in zip(videos, assignments):
    error = 0.0
    for x, row in zip(video, assigned):
      for i in range(len(x)):
        coded = sum(float(a) * float(c[i]) for a, c in zip(row, centres))
        error += (float(x[i]) - coded) ** 2 / 2.0
    ratios.append(error / _sum_of_lengths(video, 2) if len(video) else 0.0)
  return sum(ratios) / len(ratios)


def _sum_of_lengths(video, power):
  """The sum over frames of |x|^power."""
  return sum(math.sqrt(references.dot(x, x)) ** power for x in video)


def _locality_loop(videos, assignments, centres):
  ratios = []
  for video, assigned in zip(videos, assignments):
    total = 0.0
    for x, row in zip(video, assigned):
      for a, c in zip(row, centres):
        total += (
          abs(float(a))
          * math.sqrt(moment_references.squared_distance(x, c)) ** 3
        )
    ratios.append(total / _sum_of_lengths(video, 3) if len(video) else 0.0)
  return sum(ratios) / len(ratios)


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-6), ("float64", 1e-14)])
def test_match_the_loops(dtype, rtol):
  graph = layers.Graph(_all, *_inputs([0], dtype=dtype)[1:])
  for lengths in _LENGTHS:
    given = (
      layers.random_videos(lengths, _D),
      layers.random_weights(lengths, _K),
      _CENTRES,
    )
    expected = {
      "orthogonality": _orthogonality_loop(_CENTRES),
      "coding": _coding_loop(*given),
      "locality": _locality_loop(*given),
    }
    for poison in layers.POISONS:
      found = graph(*_inputs(lengths, poison, dtype))
      for name in _NAMES:
        assert found[name].dtype == dtype and found[name].shape == ()
        assert found[name] == pytest.approx(expected[name], rel=rtol, abs=0.0)


@pytest.mark.parametrize("name", ["coding", "locality"])
def test_of_a_batch_are_the_mean_of_those_of_its_halves(name):
  mask, frames, assigned, centres = _inputs([5, 2, 0, 3])
  graph = layers.Graph(_all, frames, assigned, centres)
  whole = graph(mask, frames, assigned, centres)[name]
  halves = [
    graph(mask[part], frames[part], assigned[part], centres)[name]
    for part in (slice(0, 2), slice(2, 4))
  ]
  assert halves[0] != pytest.approx(halves[1], rel=0.01)
  assert whole == pytest.approx(sum(halves) / 2.0, rel=1e-6)


class TestOrthogonality:
  def _of(self, centres):
    return layers.evaluate(
      lambda mask, c: regularizers.orthogonality(c), [[True]], np.array(centres)
    )

  def test_is_zero_for_orthogonal_centres_of_any_length(self):
    assert self._of([[1e-3, 0.0, 0.0], [0.0, 0.0, -70.0], [0.0, 2.0, 0.0]]) == 0

  def test_is_one_for_parallel_centres_of_any_length_and_sign(self):
    direction = np.random.RandomState(0).randn(5)
    found = self._of([direction * length for length in (1e-3, -2.0, 70.0)])
    assert found == pytest.approx(1.0, rel=1e-14)

  def test_is_zero_for_one_centre(self):
    assert self._of([[3.0, 4.0]]) == 0.0

  def test_of_a_centre_of_zero_is_that_of_an_orthogonal_one(self):
    assert self._of([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]) == pytest.approx(
      1.0 / 3, rel=1e-14
    )

  @pytest.mark.parametrize("num_centres", [1, 3])
  def test_the_gradient_is_finite_for_centres_of_zero(self, num_centres):
    gradient = layers.evaluate(
      lambda mask, c: tf.gradients(regularizers.orthogonality(c), c)[0],
      [[True]],
      np.zeros([num_centres, 5], np.float32),
    )
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("factor", [1e-3, 30.0])
def test_do_not_depend_on_the_scale_of_frames_and_centres(factor):
  mask, frames, assigned, centres = _inputs([5, 2, 0])
  found = layers.evaluate(_all, mask, frames, assigned, centres)
  other = layers.evaluate(
    _all, mask, frames * factor, assigned, centres * factor
  )
  for name in _NAMES:
    assert other[name] == pytest.approx(found[name], rel=1e-5)


@pytest.mark.parametrize("number", range(3))
def test_a_weight_below_0_is_refused(number):
  weights = [0.0, 0.0, 0.0]
  weights[number] = -1.0
  with pytest.raises(ValueError, match="Need weights >= 0"):
    regularizers.Weights(*weights)


class TestPenalties:
  @pytest.mark.parametrize("factors", [(2.0, 3.0, 5.0), (0.0, 3.0, 0.0)])
  def test_are_those_with_a_weight_times_it(self, factors):
    weights = regularizers.Weights(*factors)

    def function(mask, *arrays):
      frames, assigned, centres = arrays
      found = regularizers.penalties(frames, mask, assigned, centres, weights)
      return found, _all(mask, *arrays)

    found, unweighted = layers.evaluate(function, *_inputs([5, 2, 0]))
    assert sorted(found) == sorted(n for n, f in zip(_NAMES, factors) if f)
    for name, value in found.items():
      expected = getattr(weights, name) * unweighted[name]
      assert value == pytest.approx(expected, rel=1e-6)

  def test_are_none_and_add_nothing_to_the_graph_without_weights(self):
    with tf.Graph().as_default() as graph:
      mask, frames, *others = [tf.constant(array) for array in _inputs([5])]
      before = len(graph.get_operations())
      nothing = regularizers.Weights(0.0, 0.0, 0.0)
      found = regularizers.penalties(frames, mask, *others, nothing)
      assert found == {}
      assert len(graph.get_operations()) == before

  def test_are_none_without_centres(self):
    mask, frames, assigned, _ = _inputs([5])
    weights = regularizers.Weights(1.0, 1.0, 1.0)
    assert regularizers.penalties(frames, mask, assigned, None, weights) == {}

  def test_have_the_names_of_weights(self):
    fields = dataclasses.fields(regularizers.Weights)
    assert tuple(field.name for field in fields) == _NAMES


def _gradients(mask, *inputs):
  return {
    name: tf.gradients(
      value, list(inputs), unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    for name, value in _all(mask, *inputs).items()
  }


class TestGradients:
  def test_none_flows_to_the_frames_which_could_shrink(self):
    found = layers.evaluate(_gradients, *_inputs([5, 2, 0]))
    for name in _NAMES:
      assert not found[name][0].any()
    # In assignments and centres there is one.
    for name in ("coding", "locality"):
      assert found[name][1].any() and found[name][2].any()

  def test_are_finite_where_frames_coincide_with_centres(self):
    mask, frames, assigned, centres = _inputs([5, 2, 0])
    frames[0, :_K] = centres
    frames[1, 0] = centres[1] * (1.0 + 1e-7)
    found = layers.evaluate(_gradients, mask, frames, assigned, centres)
    for name in _NAMES:
      layers.assert_all_finite(dict(enumerate(found[name])))
    # |v|^3 grows from 0 with a slope of 0: as if the centre was not there.
    assigned[0, range(_K), range(_K)] = 0.0
    assigned[1, 0, 1] = 0.0
    other = layers.evaluate(_gradients, mask, frames, assigned, centres)
    for i in (0, 2):  # Frames and centres.
      np.testing.assert_array_equal(found["locality"][i], other["locality"][i])
