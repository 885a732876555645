"""Pooling layers of `benchmark.py` against those of `baseline_layers`.

Axes: B videos, T frames, D features, K centres, H heads of h dimensions.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import program
from pooling import democratic, moments, netvlad, transformer, whitening
from scripts import baseline_layers, benchmark_training
from scripts import benchmark_tools as tools
from scripts.benchmark_units import GIGA, Rows, Settings, run_forked


class _Layer(NamedTuple):
  """A layer and its baseline.

  Attributes:
    inputs: function of settings and B: list of tensors, variables among them.
    ours: function of those.
    direct: function of those.
  """

  inputs: Callable
  ours: Callable
  direct: Callable


def _variable(name, shape):
  """Random numbers that a gradient is asked for."""
  return tf.get_variable(
    name, shape, initializer=tf.random_normal_initializer(stddev=0.1)
  )


def _codebook(settings, batch_size, depth=None, num_clusters=None):
  """Frames [B, T, D], mask [B, T], weights [B, T, K], centres [K, D]."""
  depth = depth or settings.feature_sizes[0]
  num_clusters = num_clusters or settings.clusters
  shape = [batch_size, settings.frames]
  return [
    tf.identity(_variable("frames", [*shape, depth])),
    tf.ones(shape, tf.bool),
    tf.nn.softmax(_variable("logits", [*shape, num_clusters])),
    tf.identity(_variable("centres", [num_clusters, depth])),
  ]


def _projected(settings, batch_size):
  """`_codebook` of the second order's size: 64 dimensions, fewer centres."""
  return _codebook(
    settings,
    batch_size,
    min(_PROJECTION, settings.feature_sizes[0]),
    max(1, settings.clusters // 4),
  )


def _heads(settings, batch_size):
  """Queries, keys, values [B, H, T, h], mask [B, T], of four times T frames."""
  length = 4 * settings.frames
  num_heads = max(1, settings.feature_sizes[0] // _HEAD_SIZE)
  shape = [batch_size, num_heads, length, _HEAD_SIZE]
  return [
    *(tf.identity(_variable(name, shape)) for name in "qkv"),
    tf.ones([batch_size, length], tf.bool),
  ]


def _vlad(*inputs):
  return netvlad.vlad(*inputs, democratic=democratic.Config(False, False, 0))


def _unit_residual_sums(frames, mask, weights, centres):
  distances = moments.squared_distances(frames, mask, centres)
  weights = moments.per_length(weights, distances, 1)
  return moments.first(frames, mask, weights, centres)


def _whitened_sum(frames, mask, weights, centres):
  distances = moments.squared_distances(frames, mask, centres)
  return whitening.whitened_sum(
    frames,
    mask,
    weights,
    centres,
    distances,
    group_size=_GROUP_SIZE,
    is_training=True,
    decay=0.0,  # By the batch alone, as the baseline.
  )


def _second(frames, mask, weights, centres):
  depth = frames.shape.as_list()[2]
  return moments.second(frames, mask, weights, centres, group_size=depth)


_HEAD_SIZE, _GROUP_SIZE, _PROJECTION = 16, 16, 64
LAYERS = {
  "VLAD (3)": _Layer(_codebook, _vlad, baseline_layers.vlad),
  "unit residuals": _Layer(
    _codebook, _unit_residual_sums, baseline_layers.unit_residual_sums
  ),
  "whitened (5)": _Layer(
    _codebook,
    _whitened_sum,
    functools.partial(baseline_layers.whitened_sum, group_size=_GROUP_SIZE),
  ),
  "second order (7)": _Layer(_projected, _second, baseline_layers.second),
  "Gram matrix (4)": _Layer(_codebook, moments.gram, baseline_layers.gram),
  "attention (2)": _Layer(
    _heads, transformer.attention, baseline_layers.attention
  ),
}
MODEL = "AttentionNetVLADModel"
_WAYS = ("ours", "direct")


@contextlib.contextmanager
def _layer(settings, name, way, batch_size):
  """(function that runs a layer, one that runs its gradient as well)."""
  layer = LAYERS[name]
  with tf.Graph().as_default():
    tf.set_random_seed(0)
    output = getattr(layer, way)(*layer.inputs(settings, batch_size))
    # The gradient of half the sum of squares.
    backward = tf.gradients(output, tf.trainable_variables(), output)
    both = benchmark_training.operations_of([output, *backward])
    with tf.Session(config=program.session_config()) as session:
      session.run(tf.global_variables_initializer())
      yield lambda: session.run(output.op), lambda: session.run(both)


@contextlib.contextmanager
def _model(settings, way, batch_size):
  """(None, function that runs a step of the model)."""
  by_residuals = way == "direct"
  with (
    baseline_layers.materialised_vlad()
    if by_residuals
    else contextlib.nullcontext()
  ):
    given = benchmark_training.train_flags(
      settings, MODEL, batch_size=batch_size
    )
    with benchmark_training.open_training(given) as training:
      yield None, training.fed


def _runs_of(settings, name, way, batch_size):
  if name == MODEL:
    return _model(settings, way, batch_size)
  return _layer(settings, name, way, batch_size)


def pooling(settings: Settings, layer: str) -> Rows:
  """A layer, or the model with it, against its baseline: time and memory.

  Args:
    settings: sizes and budgets.
    layer: a key of `LAYERS`, or `MODEL`.
  """
  figures = {}
  for way in _WAYS:
    figures |= _memory_apart(settings, layer, way, settings.batch_size)
  for kind in ("peak", "step"):
    ours, direct = (figures[f"{way}_{kind}_gb"] for way in _WAYS)
    figures[f"{kind}_saving"] = direct / max(ours, 1e-3)
  with contextlib.ExitStack() as stack:
    variants = {}
    for way in _WAYS:
      forward, both = stack.enter_context(
        _runs_of(settings, layer, way, settings.batch_size)
      )
      if forward:
        variants[f"{way}_forward"] = forward
      variants[f"{way}_both"] = both
    rounds = tools.measure(variants, **settings.budget)
  times = {}
  for kind in ("forward", "both"):
    if f"ours_{kind}" in variants:
      for way in _WAYS:
        times[f"{way}_{kind}_ms"] = 1e3 * rounds.median(f"{way}_{kind}")
      times[f"{kind}_speedup"] = rounds.ratio(f"direct_{kind}", f"ours_{kind}")
  return {"": {**times, **figures, "repeats": rounds.repeats}}


def _memory_apart(settings, layer, way, batch_size):
  return run_forked(
    _memory, settings, layer=layer, way=way, batch_size=batch_size
  )


def _memory(settings, layer, way, batch_size):
  """Peak memory of this process, and what the runs added to it."""
  with _runs_of(settings, layer, way, batch_size) as (_, both):
    before = tools.current_bytes()
    for _ in range(2):
      both()
  peak = tools.peak_bytes()
  return {
    f"{way}_peak_gb": peak / GIGA,
    f"{way}_step_gb": (peak - before) / GIGA,
  }


def largest_batch(settings: Settings, layer: str) -> Rows:
  """The largest batch, by doubling, whose peak stays below --memory_gb."""
  figures = {}
  for way in _WAYS:
    figures[f"{way}_batch"], figures[f"{way}_peak_gb"] = _double(
      settings, layer, way
    )
  figures["batch_saving"] = figures["ours_batch"] / max(
    1, figures["direct_batch"]
  )
  return {"": figures}


def _double(settings, layer, way):
  """(largest B, its peak in GB) of those that were tried; (0, 0) if none."""
  best, best_peak, batch_size = 0, 0.0, settings.batch_size
  expected = 0.0
  while expected < settings.memory_gb:
    figures = _memory_apart(settings, layer, way, batch_size)
    peak = figures[f"{way}_peak_gb"]
    if peak >= settings.memory_gb:
      break
    # What B videos added, 2 B add once more; at first all counts as added.
    expected = peak + 2 * max(0.0, peak - best_peak) if best else peak
    best, best_peak, batch_size = batch_size, peak, 2 * batch_size
  return best, best_peak
