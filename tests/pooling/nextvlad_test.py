"""Tests for NeXtVLAD.

Axes: B videos, T frames, D features, G groups, K centres.
"""

import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import nextvlad
from tests import layers
from tests.references import layers as references
from tests.references import nextvlad as loops

_D, _G, _K, _EXPANSION = 4, 3, 5, 6  # A group has 8 features.


def _layer(is_training=True, add_batch_norm=True, **sizes):
  sizes = {
    "num_groups": _G,
    "num_clusters": _K,
    "expansion": _EXPANSION,
    **sizes,
  }
  return layers.Layer(
    functools.partial(
      nextvlad.nextvlad,
      mode=layers.mode(is_training, add_batch_norm=add_batch_norm),
      **sizes,
    ),
    frames=[None, None, _D],
    mask=[None, None],
  )


@pytest.mark.parametrize("add_batch_norm", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_matches_the_loop(is_training, add_batch_norm):
  with _layer(is_training, add_batch_norm) as layer:
    assert layer.outputs.shape.as_list() == [None, 8 * _K]
    for lengths in ([5, 2], [0, 1, 6], [0, 0]):
      videos = layers.random_videos(lengths, _D)
      expected = loops.nextvlad(
        videos, layer.initial, "nextvlad", _G, is_training
      )
      actual = layer.run(layer.outputs, *layers.pad(videos))
      layers.assert_close(actual, expected, rtol=1e-4, atol=2e-5)
      if any(lengths):
        print("largest difference", np.abs(actual - expected).max())


def test_one_group_that_is_not_expanded_is_netvlad_of_unit_centres():
  videos = layers.random_videos([5, 2, 0], _D)
  with _layer(num_groups=1, expansion=1) as layer:
    layer.load(
      {
        "nextvlad/expand/weights": np.eye(_D),
        "nextvlad/expand/biases": np.zeros(_D),
        "nextvlad/attention/weights": np.zeros([_D, 1]),
        "nextvlad/attention/biases": [40.0],  # Its sigmoid is 1.
      }
    )
    actual = layer.run(layer.outputs, *layers.pad(videos))
    expected = references.netvlad(videos, layer.initial, "nextvlad", True, True)
  # K units of length 1 have the length sqrt(K), which NetVLAD divides by.
  expected = np.reshape(expected, [-1, _K, _D]) * _K**0.5
  layers.assert_close(
    np.reshape(actual, [-1, _D, _K]), expected.transpose(0, 2, 1), atol=1e-5
  )


def test_variables_have_these_names_and_shapes():
  with _layer() as layer:
    width = _EXPANSION * _D
    assert {n: s for n, s in layer.shapes.items() if n in layer.trained} == {
      "nextvlad/expand/weights": [_D, width],
      "nextvlad/expand/biases": [width],
      "nextvlad/attention/weights": [width, _G],
      "nextvlad/attention/biases": [_G],
      "nextvlad/assign/weights": [width, _G * _K],
      "nextvlad/assign/batch_norm/beta": [_G * _K],
      "nextvlad/assign/batch_norm/gamma": [_G * _K],
      "nextvlad/centres": [_K, width // _G],
    }


@pytest.mark.parametrize(
  "sizes", [{"num_groups": 5}, {"num_groups": 0}, {"expansion": 0}]
)
def test_refuses_groups_that_do_not_divide_by_name(sizes):
  given = {"num_groups": _G, "expansion": _EXPANSION, **sizes}
  with (
    tf.Graph().as_default(),
    pytest.raises(
      ValueError,
      match="expansion={expansion}, D=4, groups={num_groups}".format(**given),
    ),
  ):
    nextvlad.nextvlad(
      tf.zeros([2, 5, _D]),
      tf.ones([2, 5], tf.bool),
      num_clusters=_K,
      mode=layers.mode(),
      **given,
    )
