"""Tests for recurrent layers. Axes: B videos, T frames, D features, H units.

Gradients are in contract_test.py.
"""

import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import recurrent
from tests import layers
from tests.references import recurrent as references

_D, _H = 3, 4
_LAYERS = {"lstm": recurrent.lstm, "gru": recurrent.gru}
_TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def _layer(name, dtype="float32", **kwargs):
  return layers.Layer(
    functools.partial(_LAYERS[name], units=_H, scope="rnn", **kwargs),
    dtype=dtype,
    frames=[None, None, _D],
    mask=[None, None],
  )


def _reference(name, video, variables):
  if name == "lstm":
    return references.lstm(
      video, variables["rnn/weights"], variables["rnn/biases"]
    )
  return references.gru(
    video,
    *(
      variables[f"rnn/{part}/{kind}"]
      for part in ("gates", "candidate")
      for kind in ("weights", "biases")
    ),
  )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", _TOLERANCE)
@pytest.mark.parametrize("name", _LAYERS)
def test_matches_the_loop(name, dtype, reverse):
  with _layer(name, dtype, reverse=reverse) as layer:
    for lengths in layers.LENGTHS:
      videos = layers.random_videos(lengths, _D)
      for poison in layers.POISONS:
        frames, mask = layers.padded(videos, poison, dtype)
        outputs, *ends = layer.run(layer.outputs, frames, mask)
        assert not outputs[~mask].any()
        for b, video in enumerate(videos):
          # A video's end is its first frame, and outputs keep the order.
          step = -1 if reverse else 1
          expected, *states = _reference(name, video[::step], layer.initial)
          found = [outputs[b, : len(video)], *(end[b] for end in ends)]
          for actual, wanted in zip(found, [expected[::step], *states]):
            layers.assert_close(
              actual,
              np.reshape(wanted, actual.shape),
              rtol=0.0,
              atol=_TOLERANCE[dtype],
            )


def test_variables_are_those_of_the_published_cells():
  with _layer("lstm") as layer:
    assert layer.shapes == {
      "rnn/weights": [_D + _H, 4 * _H],
      "rnn/biases": [4 * _H],
    }
  with _layer("gru") as layer:
    assert layer.shapes == {
      "rnn/gates/weights": [_D + _H, 2 * _H],
      "rnn/gates/biases": [2 * _H],
      "rnn/candidate/weights": [_D + _H, _H],
      "rnn/candidate/biases": [_H],
    }
    layer.initialize()
    found = layer.values()
  assert found["rnn/gates/biases"].tolist() == [1.0] * (2 * _H)
  assert found["rnn/candidate/biases"].tolist() == [0.0] * _H


@pytest.mark.parametrize("name", _LAYERS)
def test_refuses_no_unit(name):
  with tf.Graph().as_default(), pytest.raises(ValueError, match="D=3, H=0"):
    _LAYERS[name](tf.zeros([2, 5, _D]), tf.ones([2, 5], tf.bool), units=0)
