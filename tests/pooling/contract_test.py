"""What every layer over frames keeps to, whatever it calculates.

Padding counts nowhere, batches may be empty, B and T may be unknown, gradients
are those of what was calculated. A new layer is added to `LAYERS`.

Axes: B videos, T frames, D features, K units or centres.
"""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import (
  attention_clusters,
  attention_pooling,
  averages,
  dbof,
  democratic,
  fisher,
  linear,
  moments,
  netvlad,
  nextvlad,
  recurrent,
  regularizers,
  second_moments,
  second_order,
  transformer,
  whitening,
)
from pooling.frames import zero_padding
from tests import layers
from tests.pooling import attention_pooling_test

_D, _K = 6, 4  # B and T are 4 and 5, or what `lengths` says.
_PLAIN = democratic.Config(False, False, 0)
_ENCODER = transformer.Config(
  head_size=2,
  feed_forward_factor=2,
  dropout=0.0,
  attention_dropout=0.0,
  batch_norm="projections",
  residual="zero_init",
)


def _linear(frames, mask, weights, mode, add_batch_norm=True):
  del weights
  mode = mode.with_batch_norm(add_batch_norm)
  return zero_padding(linear.linear_frames(frames, mask, _K, mode=mode), mask)


def _netvlad(frames, mask, weights, mode, method="softmax"):
  del weights
  assigned = netvlad.soft_assignments(
    frames, mask, num_clusters=_K, mode=mode, method=method
  )
  centres = netvlad.make_centres(_K, _D)
  sums = netvlad.vlad(frames, mask, assigned, centres, democratic=_PLAIN)
  return netvlad.descriptor(sums)


def _nextvlad(frames, mask, weights, mode, method="softmax"):
  del weights
  return nextvlad.nextvlad(
    frames,
    mask,
    num_clusters=_K,
    num_groups=3,
    expansion=2,
    mode=mode,
    method=method,
  )


def _dbof(frames, mask, weights, mode, method):
  del weights
  return dbof.dbof(
    frames,
    mask,
    num_clusters=_K,
    pooling_method=method,
    activation="sigmoid",
    mode=mode,
  )


def _bag(frames, mask, weights, mode, function, **kwargs):
  del weights
  return function(frames, mask, num_clusters=_K, mode=mode, **kwargs)


def _fisher(frames, mask, weights, mode):
  del mode
  centres = netvlad.make_centres(_K, _D)
  deviations = fisher.make_deviations(_K, _D)
  return fisher.fisher_vector(frames, mask, weights, centres, deviations)


def _recurrent(frames, mask, weights, mode, function, **kwargs):
  """Of two layers, what each frame has, or the end."""
  del weights, mode
  part = kwargs.pop("part")
  frames, *_ = function(frames, mask, units=3, scope="first")
  return function(frames, mask, units=_K, **kwargs)[part]


def _average(frames, mask, weights, mode, function):
  del weights, mode
  return function(frames, mask)


def _attention_mean(frames, mask, weights, mode):
  del weights
  return averages.attention_mean(frames, mask, mode=mode)


def _attention_clusters(frames, mask, weights, mode, hidden_size=0):
  del weights
  return attention_clusters.attention_clusters(
    frames, mask, num_clusters=_K, hidden_size=hidden_size, mode=mode
  )


def _attention_pooling(frames, mask, weights, mode, name):
  del weights
  pool, _, _ = attention_pooling_test.POOLINGS[name]
  return pool(attention_pooling.Tokens(frames, mask), mode)


def _encoder(frames, mask, weights, mode, output_size=None, **changes):
  del weights
  return transformer.encoder(
    frames,
    mask,
    config=dataclasses.replace(_ENCODER, **changes),
    mode=mode,
    output_size=output_size,
  )


def _whitened(frames, mask, weights, mode, group_size):
  centres = netvlad.make_centres(_K, _D)
  distances = moments.squared_distances(frames, mask, centres)
  return whitening.whitened_sum(
    frames,
    mask,
    weights,
    centres,
    distances,
    group_size=group_size,
    mode=mode,
  )


def _moment(frames, mask, weights, mode, function, **kwargs):
  del mode
  return function(frames, mask, weights, netvlad.make_centres(_K, _D), **kwargs)


def _democratic(frames, mask, weights, mode, order=1, projection_size=0):
  del mode
  config = democratic.Config(True, True, projection_size)
  centres = netvlad.make_centres(_K, _D)
  return democratic.reweigh(
    tf.abs(zero_padding(weights, mask)),
    frames,
    mask,
    weights,
    centres,
    config,
    order=order,
  )


def _penalties(frames, mask, weights, mode):
  """Those in which a gradient flows to all that is differentiated."""
  del mode
  given = (mask, weights, netvlad.make_centres(_K, _D))
  return tf.stack(
    [
      regularizers.coding(tf.stop_gradient(frames), *given),
      regularizers.locality(tf.stop_gradient(frames), *given),
    ]
  )


def _sketch(frames, mask, weights, centres, size):
  return second_order.TensorSketch(_D, size).second(
    frames, mask, weights, centres
  )


def _distances(frames, mask, weights, centres, power):
  distances = moments.squared_distances(frames, mask, centres)
  return moments.per_length(weights, distances, power)


_moments = {
  "first": moments.first,
  **{
    f"second {g}": functools.partial(second_moments.second, group_size=g)
    for g in (1, 3, _D)
  },
  **{f"gram {o}": functools.partial(moments.gram, order=o) for o in (1, 2)},
  **{f"sketch {s}": functools.partial(_sketch, size=s) for s in (4, 7)},
  **{f"length {p}": functools.partial(_distances, power=p) for p in (1, 2)},
}
LAYERS = {
  "linear": _linear,
  "linear with a bias": functools.partial(_linear, add_batch_norm=False),
  "netvlad": _netvlad,
  "nextvlad": _nextvlad,
  "nextvlad sinkhorn": functools.partial(_nextvlad, method="sinkhorn"),
  "netvlad sinkhorn": functools.partial(_netvlad, method="sinkhorn"),
  "dbof average": functools.partial(_dbof, method="average"),
  "dbof max": functools.partial(_dbof, method="max"),
  **{
    name: functools.partial(_average, function=getattr(averages, name))
    for name in ("mean", "generalised_mean")
  },
  "attention_mean": _attention_mean,
  "attention_clusters": functools.partial(_attention_clusters, hidden_size=2),
  "dbof soft": functools.partial(_bag, function=dbof.soft, with_max=True),
  "dbof gated": functools.partial(_bag, function=dbof.gated),
  "fisher": _fisher,
  "lstm": functools.partial(_recurrent, function=recurrent.lstm, part=1),
  "lstm backward": functools.partial(
    _recurrent, function=recurrent.lstm, part=0, reverse=True
  ),
  "gru": functools.partial(_recurrent, function=recurrent.gru, part=1),
  "gru backward": functools.partial(
    _recurrent, function=recurrent.gru, part=0, reverse=True
  ),
  **{
    name: functools.partial(_attention_pooling, name=name)
    for name in ("set transformer", "attentive probe", "bag of queries")
  },
  "encoder": _encoder,
  "encoder logits": functools.partial(_encoder, batch_norm="logits"),
  "encoder post_norm": functools.partial(_encoder, residual="post_norm"),
  "encoder to others": functools.partial(
    _encoder, output_size=5, batch_norm="none"
  ),
  **{
    f"whitened {g}": functools.partial(_whitened, group_size=g)
    for g in (1, 4, 7)
  },
  **{
    name: functools.partial(_moment, function=function)
    for name, function in _moments.items()
  },
  "democratic 1": _democratic,
  "democratic 2": functools.partial(_democratic, order=2),
  "democratic projected": functools.partial(_democratic, projection_size=3),
  "penalties": _penalties,
}
# What has averages.
_BY_MODE = [
  "attention_clusters",
  *("linear", "netvlad", "netvlad sinkhorn", "nextvlad"),
  *("dbof average", "dbof max", "encoder"),
  *("encoder logits", "encoder post_norm"),
  *("whitened 1", "whitened 4", "whitened 7"),
]
# Shifts that softmax over time, rounds of Sinkhorn or batch norm undo.
_CANCELLED = {
  "attention_clusters": ["attention_clusters/scores/batch_norm/beta"],
  "encoder": ["encoder/attention_norm/beta"],
  "netvlad sinkhorn": ["assign/batch_norm/beta", "dustbin"],
  "nextvlad sinkhorn": ["nextvlad/dustbin"],
}
_CASES = [
  *((name, True) for name in LAYERS),
  *((name, False) for name in _BY_MODE),
]
_every_case = pytest.mark.parametrize(("name", "is_training"), _CASES)


@functools.cache
def _layer(name, is_training=True, dtype="float32", decay=0.9):
  mode = layers.mode(is_training, decay)
  return layers.Layer(
    functools.partial(LAYERS[name], mode=mode),
    dtype=dtype,
    frames=[None, None, _D],
    mask=[None, None],
    weights=[None, None, _K],
  )


def _inputs(lengths, poison=layers.POISON, length=None, dtype="float32"):
  frames, mask = layers.pad(layers.random_videos(lengths, _D), poison, length)
  weights, _ = layers.pad(layers.random_weights(lengths, _K), poison, length)
  return {
    "frames": frames.astype(dtype),
    "mask": mask,
    "weights": weights.astype(dtype),
  }


def _everything(layer, inputs):
  """Outputs, gradients and averages after the update, from the same start."""
  layer.load(layer.initial)
  outputs, gradients, _ = layer.run(
    [layer.outputs, layer.gradients, layer.updates], **inputs
  )
  return outputs, gradients, layer.values()


@pytest.mark.parametrize("lengths", [[5, 2, 0, 1], [0, 4]])
@_every_case
def test_padding_changes_nothing(name, is_training, lengths):
  layer, real = _layer(name, is_training), max(lengths)
  expected = None
  for poison, longer in ((0.0, 0), (1e3, 2), (-1e30, 0), (1e30, 2)):
    inputs = _inputs(lengths, poison, real + longer)
    outputs, gradients, averages = _everything(layer, inputs)
    for source in {"frames", "weights"} & set(gradients):
      assert not gradients[source][~inputs["mask"]].any()
      gradients[source] = gradients[source][inputs["mask"]]
    sizes = layer.outputs.shape.as_list()
    if sizes[1:2] == [None]:  # A frame's, not a video's.
      assert not outputs[~inputs["mask"]].any()
      outputs = outputs[:, :real]
    if sizes[2:3] == [None]:
      outputs = outputs[:, :, :real]
    actual = {"outputs": outputs, **gradients, **averages}
    layers.assert_all_finite(actual)
    if expected is None:
      expected = actual
    for key, value in expected.items():
      # Sums of another length are rounded otherwise, relative to the terms.
      scale = max(1.0, np.abs(value).max(initial=0.0))
      layers.assert_close(
        actual[key] / scale, value / scale, rtol=1e-4, atol=2e-5
      )


@_every_case
def test_a_batch_without_frames_is_zero_and_leaves_the_averages(
  name, is_training
):
  layer = _layer(name, is_training)
  for lengths, length in (([0, 0], 3), ([0], 1)):
    outputs, gradients, averages = _everything(
      layer, _inputs(lengths, length=length)
    )
    assert not outputs.any()
    layers.assert_all_finite(gradients)
    for key, value in averages.items():
      assert value.tolist() == np.float32(layer.initial[key]).tolist()


@_every_case
def test_a_batch_may_have_no_video(name, is_training):
  inputs = {key: x[:0] for key, x in _inputs([3, 2]).items()}
  outputs, gradients, averages = _everything(_layer(name, is_training), inputs)
  assert name == "penalties" or len(outputs) == 0
  for key, gradient in gradients.items():
    assert np.isfinite(gradient).all() and not gradient.any(), key
  layers.assert_all_finite({"outputs": outputs, **averages})


@pytest.mark.slow
@_every_case
def test_gradients_are_the_difference_quotients(name, is_training):
  # With a decay of 0 averages are the batch's statistics.
  layer = _layer(name, is_training, "float64", 0.0)
  inputs = _inputs([4, 1, 0, 3], poison=0.5, dtype="float64")
  layer.load(layer.initial)
  gradients = layer.run(layer.gradients, **inputs)
  assert set(gradients) >= set(layer.trained)
  if name != "penalties":  # These stop the frames' gradient.
    assert "frames" in gradients
    gradients.setdefault("weights", np.zeros(1))  # Those it doesn't look at.
  rng, step = np.random.RandomState(7), 1e-6
  for key, gradient in gradients.items():
    start = {**layer.initial, **inputs}[key]
    direction = rng.randn(*start.shape)
    sides = []
    for sign in (1.0, -1.0):
      moved = {key: start + sign * step * direction}
      layer.load(layer.initial if key in inputs else moved)
      fed = {**inputs, **moved} if key in inputs else inputs
      sides.append(layer.run(layer.energy, **fed))
    layer.load(layer.initial)
    expected = (sides[0] - sides[1]) / (2.0 * step)
    # What float64 leaves of the energy, over the step.
    atol = 1e-9 * max(1.0, abs(sides[0]))
    assert np.sum(gradient * direction) == pytest.approx(
      expected, rel=1e-4, abs=atol
    ), key
    vanishes = np.abs(gradient).max() < 1e-6
    assert not vanishes or key in ("weights", *_CANCELLED.get(name, ())), key


@_every_case
def test_averages_move_by_the_update_alone_and_in_training_alone(
  name, is_training
):
  layer = _layer(name, is_training)
  layer.load(layer.initial)
  inputs = _inputs([3, 2])
  layer.run([layer.outputs, layer.gradients], **inputs)
  before = layer.values()
  layer.run(layer.updates, **inputs)
  averages = {key for key in before if key not in layer.trained}
  assert bool(layer.updates) == (is_training and bool(averages))
  for key, value in layer.values().items():
    assert before[key].tolist() == np.float32(layer.initial[key]).tolist()
    moves = is_training and key in averages
    assert (value.tolist() != before[key].tolist()) == moves, key


_STRICT = [
  "linear",
  "netvlad",
  "nextvlad",
  "dbof max",
  "encoder",
  "whitened 4",
  "second 3",
]


@pytest.mark.parametrize("name", _STRICT)
@pytest.mark.parametrize(
  ("shape", "message"),
  [
    ([_D], "rank 3"),
    ([2, _D], "rank 3"),
    ([2, 5, _D, 1], "rank 3"),
    ([2, 5, None], "Need static D"),
  ],
)
def test_frames_are_of_rank_3_and_known_depth(name, shape, message):
  with tf.Graph().as_default(), pytest.raises(ValueError, match=message):
    mask, weights = tf.ones([2, 5], tf.bool), tf.ones([2, 5, _K])
    frames = tf.placeholder(tf.float32, shape)
    if name.startswith("whitened"):
      whitening.whitened_sum(
        frames,
        mask,
        weights,
        tf.ones([_K, _D]),
        weights,
        group_size=4,
        mode=layers.mode(),
      )
    else:
      LAYERS[name](frames, mask, weights, layers.mode())
