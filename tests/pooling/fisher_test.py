"""Tests for Fisher vectors. Axes: B videos, T frames, D features, K."""

import functools

import numpy as np
import pytest

from pooling import fisher, moments, netvlad, second_moments
from pooling.affine_frames import AffineFrames
from tests import layers
from tests.references import layers as references

_D, _K = 3, 4  # B and T are what `lengths` says.


def _fisher(frames, mask, weights, affine=False):
  if affine:
    frames = AffineFrames(frames, np.full(_D, 2.0), np.arange(_D) - 1.0)
  centres = netvlad.make_centres(_K, _D)
  deviations = fisher.make_deviations(_K, _D)
  return fisher.fisher_vector(frames, mask, weights, centres, deviations)


def _reference(video, weights, centres, roots):
  """F1 and F2 of one video, each number a sum over the frames."""
  first, second = [], []
  for k in range(_K):
    of_centre = []
    for d in range(_D):
      deviation = roots[k][d] ** 2 + 1e-6
      total = squares = 0.0
      for x, a in zip(video, weights):
        away = (float(x[d]) - centres[k][d]) / deviation
        total += float(a[k]) * away
        squares += float(a[k]) * (away**2 - 1.0)
      of_centre.append(total)
      second.append(squares)
    first += references.unit(of_centre)
  return references.unit(first) + references.unit(second)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
  ("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)]
)
def test_matches_the_loops(dtype, tolerance, affine):
  with layers.Layer(
    functools.partial(_fisher, affine=affine),
    dtype=dtype,
    frames=[None, None, _D],
    mask=[None, None],
    weights=[None, None, _K],
  ) as layer:
    assert layer.outputs.shape.as_list() == [None, 2 * _K * _D]
    assert layer.shapes == {"centres": [_K, _D], "deviations": [_K, _D]}
    for lengths in layers.LENGTHS:
      videos = layers.random_videos(lengths, _D)
      weights = [np.abs(w) for w in layers.random_weights(lengths, _K)]
      frames, mask = layers.padded(videos, layers.POISON, dtype)
      assigned, _ = layers.padded(weights, layers.POISON, dtype)
      actual = layer.run(layer.outputs, frames, mask, assigned)
      for found, video, rows in zip(actual, videos, weights):
        seen = 2.0 * video.astype(float) + np.arange(_D) - 1.0
        expected = _reference(
          seen if affine else video,
          rows,
          layer.initial["centres"],
          layer.initial["deviations"],
        )
        layers.assert_close(found, expected, rtol=0.0, atol=tolerance)
    layer.initialize()
    deviations = layer.values()["deviations"]
  assert np.mean(deviations) == pytest.approx(1.0, abs=0.5)


def test_squares_are_the_diagonals_of_the_second_moment():
  lengths = (5, 2, 0, 1)
  frames, mask = layers.padded(layers.random_videos(lengths, _D))
  weights, _ = layers.padded(layers.random_weights(lengths, _K))
  centres = layers.random_centres(_K, _D)

  def both(mask, frames, weights, centres):
    given = (frames, mask, weights, centres)
    _, squares = moments.first_and_squares(*given)
    return squares, second_moments.second(*given, group_size=1)

  squares, blocks = layers.evaluate(both, mask, frames, weights, centres)
  layers.assert_close(squares, blocks[..., 0, 0], atol=1e-5)
