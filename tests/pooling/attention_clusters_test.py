"""Tests for attention clusters. Axes: B videos, T frames, D features, K."""

import functools

import pytest

from pooling import attention_clusters as clusters
from tests import layers
from tests.references import averages as references

_D, _K = 3, 4
_LENGTHS = [5, 2, 0, 1]


@pytest.mark.parametrize("hidden_size", [0, 2])
@pytest.mark.parametrize("is_training", [True, False])
def test_matches_equation_1(hidden_size, is_training):
  build = functools.partial(
    clusters.attention_clusters,
    num_clusters=_K,
    hidden_size=hidden_size,
    mode=layers.mode(is_training),
  )
  videos = layers.random_videos(_LENGTHS, _D)
  with layers.Layer(
    build, dtype="float64", frames=[None, None, _D], mask=[None, None]
  ) as layer:
    assert layer.outputs.shape.as_list() == [None, _K * _D]
    actual = layer.run(layer.outputs, *layers.padded(videos, dtype="float64"))
    expected = references.clusters(
      videos, layer.initial, "attention_clusters", is_training
    )
  layers.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
