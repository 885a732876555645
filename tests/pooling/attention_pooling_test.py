"""Tests for attention pooling. Axes: B videos, T tokens, S queries, E size."""

import dataclasses
import math

import pytest
import tensorflow.compat.v1 as tf

from pooling import attention_pooling as attention
from tests import layers
from tests.references import attention_pooling as references

_D, _E, _h, _S, _U = 3, 4, 2, 3, 2
_LENGTHS = [5, 2, 0, 1]
_PLAIN = attention.Config(_E, _h, scale="width", layer_norm=False)
_NORMED = attention.Config(_E, _h)


def _projected(tokens, mode):
  # Its weights are the loops' too: what is learnt is attention.
  return attention.project(tokens, _E, mode=mode)


def _flat(rows):
  return [x for row in rows for x in row]


def _pma(config):
  def build(tokens, mode):
    tokens = attention.induced_block(tokens, 2, config=config, mode=mode)
    tokens = attention.pooled_by_attention(tokens, _S, config=config, mode=mode)
    return attention.flat(tokens)

  size = _E if config.scale == "width" else _h
  loop = (_h, math.sqrt(size), config.layer_norm)

  def reference(video, variables):
    tokens = references.induced(video, variables, "induced", *loop)
    return _flat(references.pma(tokens, variables, *loop))

  return build, reference


def _probe(config):
  def build(tokens, mode):
    tokens = _projected(tokens, mode)
    return attention.flat(
      attention.attentive_probe(tokens, _S, config=config, mode=mode)
    )

  return build


def _bag_of_queries(tokens, mode):
  bag = attention.bag_of_queries(
    _projected(tokens, mode), _S, config=_NORMED, mode=mode
  )
  return attention.mixed_queries(bag, _U, mode=mode)


def _project(video, variables):
  return references.layers.linear(video, variables, "project", False)


def _probe_loop(video, variables):
  tokens = _project(video, variables)
  return _flat(references.probe(tokens, variables, _h))


def _bag_loop(video, variables):
  bag = references.bag_of_queries(_project(video, variables), variables, _h)
  return references.mixed(bag, variables)


# Each, its loop over one video, and the length of the descriptor.
POOLINGS = {
  "set transformer": (*_pma(_NORMED), _S * _E),
  "set transformer as coded": (*_pma(_PLAIN), _S * _E),
  "attentive probe": (_probe(_NORMED), _probe_loop, _S * _E),
  "attentive probe as coded": (
    _probe(dataclasses.replace(_NORMED, layer_norm=False)),
    _probe_loop,
    _S * _E,
  ),
  "bag of queries": (_bag_of_queries, _bag_loop, _E * _U),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_matches_the_loop(name):
  pool, reference, size = POOLINGS[name]
  videos = layers.random_videos(_LENGTHS, _D)
  with layers.Layer(
    lambda frames, mask: pool(attention.Tokens(frames, mask), layers.mode()),
    dtype="float64",
    frames=[None, None, _D],
    mask=[None, None],
  ) as layer:
    assert layer.outputs.shape.as_list() == [None, size]
    actual = layer.run(layer.outputs, *layers.padded(videos, dtype="float64"))
    expected = [
      reference(video, layer.initial) if len(video) else [0.0] * size
      for video in videos
    ]
  layers.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_refuses_heads_that_do_not_fit_and_no_query():
  with pytest.raises(ValueError, match="multiple of the head size, got 5 and"):
    attention.Config(5, 2)
  with pytest.raises(ValueError, match="scale is one of .*'heads'"):
    attention.Config(4, 2, scale="heads")
  with tf.Graph().as_default(), pytest.raises(ValueError, match="query, got 0"):
    attention.seeds(0, 4, tf.ones([2, 3], tf.bool))
