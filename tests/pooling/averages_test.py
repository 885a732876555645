"""Tests for averages over frames. Axes: B videos, T frames, D features."""

import functools
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import averages
from pooling.affine_frames import AffineFrames
from tests import layers
from tests.references import averages as references
from tests.references import layers as layer_references

_D = 3
_LENGTHS = [5, 2, 0, 1]


def _generalised_mean(video, variables):
  power = math.exp(variables["gem/log_power"])
  return references.generalised_mean(video, _D, power)


def _attention_mean(video, variables):
  column = variables["attention/weights"][:, 0]
  scores = [layer_references.dot(x, column) for x in video]
  return references.attended(video, scores, _D)


# Each, and its loop over one video.
_AVERAGES = {
  "mean": (averages.mean, lambda video, _: references.mean(video, _D)),
  "maximum": (
    averages.maximum,
    lambda video, _: layer_references.pool_frames([video], _D, "max")[0],
  ),
  "generalised mean": (averages.generalised_mean, _generalised_mean),
  "attention": (
    functools.partial(averages.attention_mean, mode=layers.mode()),
    _attention_mean,
  ),
}


@pytest.mark.parametrize("name", _AVERAGES)
def test_matches_the_loop_for_formed_frames_and_others(name):
  function, reference = _AVERAGES[name]
  factor, offset = np.array([0.5, -2.0, 1.0]), np.array([0.0, 0.3, -0.1])

  def build(frames, mask):
    affine = AffineFrames(frames, *(tf.constant(x) for x in (factor, offset)))
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
      return function(frames, mask), function(affine, mask)

  videos = layers.random_videos(_LENGTHS, _D)
  sizes = {"frames": [None, None, _D], "mask": [None, None]}
  with layers.Layer(build, dtype="float64", **sizes) as layer:
    found = layer.run(layer.outputs, *layers.padded(videos, dtype="float64"))
    moved = [video * factor + offset for video in videos]
    for actual, given in zip(found, (videos, moved), strict=True):
      expected = [reference(video, layer.initial) for video in given]
      layers.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("largest", [1e-5, 1.0, 1e30])
@pytest.mark.parametrize("log_power", [-3.0, 0.0, 5.0])
def test_generalised_mean_overflows_for_no_power(largest, log_power):
  video = largest * np.array([[0.1, 1.0, -1.0], [1.0, 0.5, -0.1]])
  sizes = {"frames": [None, None, _D], "mask": [None, None]}
  with layers.Layer(averages.generalised_mean, **sizes) as layer:
    layer.load({"gem/log_power": log_power})
    actual, gradients = layer.run(
      [layer.outputs, layer.gradients], *layers.pad([video])
    )
  layers.assert_all_finite(gradients if largest < 1e20 else {"mean": actual})
  # In logarithms, as the loop would overflow itself.
  power, smallest = math.exp(log_power), math.log(1e-6)
  for d, value in enumerate(actual[0]):
    logs = [math.log(x) if x > 1e-6 else smallest for x in video[:, d]]
    terms = [math.exp(power * (log - max(logs))) for log in logs]
    log_mean = max(logs) + math.log(sum(terms) / len(terms)) / power
    assert math.log(value) == pytest.approx(log_mean, rel=1e-5, abs=1e-5)


def test_at_the_start_the_power_is_3_and_every_frame_counts_alike():
  video = np.array([[1.0, 2.0, 3.0], [3.0, 0.0, 4.0]])

  def build(frames, mask):
    return (
      averages.generalised_mean(frames, mask),
      averages.attention_mean(frames, mask, mode=layers.mode()),
    )

  sizes = {"frames": [None, None, _D], "mask": [None, None]}
  with layers.Layer(build, **sizes) as layer:
    layer.initialize()
    gem, attended = layer.run(layer.outputs, *layers.pad([video]))
  layers.assert_close(gem, [[14 ** (1 / 3), 4 ** (1 / 3), 45.5 ** (1 / 3)]])
  layers.assert_close(attended, [[2.0, 1.0, 3.5]])
