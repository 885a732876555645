"""Plain code for what `benchmark.py` measures, to compare ours with.

Axes: B videos, T frames, D features, K centres, C classes.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from models import pooled
from pooling.affine_frames import formed
from pooling.slim_compat import slim


class Records(NamedTuple):
  """What is read: files of frame-level records, their features, C, and T."""

  paths: Sequence[str]
  feature_names: Sequence[str]
  feature_sizes: Sequence[int]
  num_classes: int
  max_frames: int


def plain_batches(
  records, *, batch_size, num_readers, num_epochs=None, shuffle_buffer=1024
):
  """Batches by `tf.data`, one record at a time.

  Returns:
    `tf.data.Dataset` of a dict: `video_ids` string [B], `features` float32
    [B, T, D] with zeros after a video's frames, `num_frames` int32 [B],
    `labels` bool [B, C].
  """
  data = tf.data.Dataset.from_tensor_slices(list(records.paths))
  data = data.repeat(num_epochs).interleave(
    tf.data.TFRecordDataset,
    cycle_length=num_readers,
    num_parallel_calls=num_readers,
    deterministic=False,
  )
  data = data.map(
    lambda serialized: _parse(records, serialized),
    num_parallel_calls=num_readers,
    deterministic=False,
  )
  return data.shuffle(shuffle_buffer).batch(batch_size).prefetch(2)


def _parse(records, serialized):
  """A record, dequantised and padded: dict of tensors without the axis B."""
  context, lists = tf.io.parse_single_sequence_example(
    serialized,
    context_features={
      "id": tf.io.FixedLenFeature([], tf.string),
      "labels": tf.io.VarLenFeature(tf.int64),
    },
    sequence_features={
      name: tf.io.FixedLenSequenceFeature([], tf.string)
      for name in records.feature_names
    },
  )
  features = []
  for name, size in zip(records.feature_names, records.feature_sizes):
    stored = tf.reshape(tf.io.decode_raw(lists[name], tf.uint8), [-1, size])
    frames = _dequantize(stored)[: records.max_frames]
    num_frames = tf.shape(frames)[0]
    padding = tf.zeros([records.max_frames - num_frames, size])
    features.append(tf.concat([frames, padding], axis=0))
  labels = context["labels"].values[:, tf.newaxis]
  indicator = tf.scatter_nd(
    labels, tf.ones_like(labels[:, 0], tf.int32), [records.num_classes]
  )
  shape = [records.max_frames, sum(records.feature_sizes)]
  return {
    "video_ids": context["id"],
    "features": tf.ensure_shape(tf.concat(features, axis=1), shape),
    "num_frames": num_frames,
    "labels": indicator > 0,
  }


def _dequantize(stored):
  return tf.cast(stored, tf.float32) * (4.0 / 255.0) + (4.0 / 512.0 - 2.0)


def plain_model(model):
  """A model with the pooling of `POOLINGS` in place of its own.

  Args:
    model: `models.BaseModel` of one of their names.

  Returns:
    `models.BaseModel`.
  """
  own_class: Any = type(model)
  pool: Any = POOLINGS[own_class.__name__]

  class Plain(own_class):
    """The model."""

    def _pool(self, frames, mask, name, mode):
      frames = tf.where_v2(mask[:, :, tf.newaxis], formed(frames), 0.0)
      with tf.variable_scope(pooled.feature_scope("plain", name)):
        return pool(self, frames, mask, name, mode), []

    def _states(self, frames, mask, dtype):
      del dtype
      return pool(self, frames, mask)

  return Plain(
    model.config, features=model.features, classifier=model.classifier
  )


def _linear(inputs, size, mode, scope, add_batch_norm=False):
  """A linear layer of the last axis, with biases or batch norm, by `slim`."""
  outputs = slim.fully_connected(
    tf.reshape(inputs, [-1, inputs.shape.as_list()[-1]]),
    size,
    activation_fn=None,
    normalizer_fn=slim.batch_norm if add_batch_norm else None,
    normalizer_params={"is_training": mode.is_training, "scale": True},
    scope=scope,
  )
  return tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [size]], axis=0))


def _flatten(values):
  return tf.reshape(values, [-1, values.shape[1:].num_elements()])


def _weights(name, shape):
  initializer = tf.random_normal_initializer(stddev=shape[-1] ** -0.5)
  return tf.get_variable(name, shape, initializer=initializer)


def _assign(frames, mask, num_clusters, mode):
  """Soft assignments [B, T, K], 0 in padding."""
  logits = _linear(frames, num_clusters, mode, "assign", add_batch_norm=True)
  return tf.nn.softmax(logits) * tf.cast(mask, tf.float32)[:, :, tf.newaxis]


def _vlad(frames, assignments, name="centres"):
  """Sums [B, D, K], transposed to and fro as Miech et al. 2017 published it."""
  shape = [frames.shape.as_list()[2], assignments.shape.as_list()[2]]
  offsets = tf.reduce_sum(assignments, axis=1, keepdims=True)
  sums = tf.matmul(tf.transpose(assignments, [0, 2, 1]), frames)
  return tf.transpose(sums, [0, 2, 1]) - offsets * _weights(name, shape)


def _netvlad(model, frames, mask, name, mode):
  assignments = _assign(frames, mask, model.clusters[name], mode)
  sums = tf.nn.l2_normalize(_vlad(frames, assignments), axis=1)
  return tf.nn.l2_normalize(_flatten(sums), axis=1)


def _nextvlad(model, frames, mask, name, mode):
  """As its authors published it (Lin, Xiao, Fan 2018)."""
  depth, length = frames.shape.as_list()[2], tf.shape(frames)[1]
  clusters, groups = model._clusters[name], model._groups[name]
  width = model.config.expansion * depth
  expanded = _linear(frames, width, mode, "expand")
  attention = tf.sigmoid(_linear(expanded, groups, mode, "attention"))
  attention *= tf.cast(mask, tf.float32)[:, :, tf.newaxis]
  logits = _linear(expanded, groups * clusters, mode, "assign", True)

  def of_groups(values, size):
    return tf.reshape(values, [-1, length * groups, size])

  assignments = tf.nn.softmax(of_groups(logits, clusters))
  assignments *= of_groups(attention, 1)
  sums = _vlad(of_groups(expanded, width // groups), assignments)
  sums = _flatten(tf.nn.l2_normalize(sums, axis=1))
  return slim.batch_norm(sums, is_training=mode.is_training, scale=True)


def _netfv(model, frames, mask, name, mode):
  """Residuals over deviations are held, [B, T, K, D]."""
  shape = [model.clusters[name], frames.shape.as_list()[2]]
  weights = _assign(frames, mask, shape[0], mode)[:, :, :, tf.newaxis]
  held = frames[:, :, tf.newaxis] - _weights("centres", shape)
  held /= tf.square(1.0 + _weights("deviations", shape)) + 1e-6
  first = tf.nn.l2_normalize(tf.reduce_sum(weights * held, axis=1), axis=2)
  second = tf.reduce_sum(weights * (tf.square(held) - 1.0), axis=1)
  parts = [_flatten(part) for part in (first, second)]
  return tf.concat([tf.nn.l2_normalize(x, axis=1) for x in parts], axis=1)


def _second_order(model, frames, mask, name, mode):
  """Equation (7) of residuals that are held, [B, T, K, D], not whitened."""
  config, parts = model.config, []

  def residuals(frames, num_clusters):
    weights = _assign(frames, mask, num_clusters, mode)
    centres = _weights("centres", [num_clusters, frames.shape.as_list()[2]])
    held = frames[:, :, tf.newaxis] - centres
    return held, weights[:, :, :, tf.newaxis]

  with tf.variable_scope("first"):
    held, weights = residuals(frames, model.clusters[name])
    first = tf.reduce_sum(weights * tf.nn.l2_normalize(held, axis=3), axis=1)
    parts += [tf.reduce_sum(weights, axis=1), first]
  with tf.variable_scope("second"):
    size = config.projection_size(frames.shape.as_list()[2])
    frames = _linear(frames, size, mode, "projection")
    held, weights = residuals(frames, model._second_order_clusters[name])
    second = tf.matmul(held[..., tf.newaxis], held[..., tf.newaxis, :])
    second = tf.reduce_sum(weights[..., tf.newaxis] * second, axis=1)
    parts += [tf.reduce_sum(weights, axis=1), second]
  flat = [_flatten(part) for part in parts]
  return tf.concat([tf.nn.l2_normalize(x, axis=1) for x in flat], axis=1)


def _attend(queries, tokens, mask, size, head_size, mode, scope):
  """What heads find, all attention weights held: [B, S, size]."""

  def heads(tokens, name):
    found = _linear(tokens, size, mode, name)
    shape = [-1, tf.shape(tokens)[1], size // head_size, head_size]
    return tf.transpose(tf.reshape(found, shape), [0, 2, 1, 3])

  with tf.variable_scope(scope):
    query = heads(queries, "queries") * head_size**-0.5
    logits = tf.matmul(query, heads(tokens, "keys"), transpose_b=True)
    logits -= 1e9 * (1.0 - tf.cast(mask, tf.float32)[:, tf.newaxis, tf.newaxis])
    found = tf.matmul(tf.nn.softmax(logits), heads(tokens, "values"))
    found = tf.transpose(found, [0, 2, 1, 3])
    return tf.reshape(found, [-1, tf.shape(queries)[1], size])


def _encode(model, frames, mask, mode, scope, output_size=None):
  """A Transformer's encoder: [B, T, D or output_size]."""
  config, depth = model.config, frames.shape.as_list()[2]
  head_size = config.transformer_head_size
  size = depth // head_size * head_size
  with tf.variable_scope(scope):
    attended = _attend(frames, frames, mask, size, head_size, mode, "heads")
    frames += _linear(attended, depth, mode, "output")
    frames = slim.layer_norm(frames, begin_norm_axis=2)
    inner = config.transformer_feed_forward_factor * depth
    hidden = tf.nn.relu(_linear(frames, inner, mode, "inner"))
    output = _linear(hidden, output_size or depth, mode, "outer")
    return output if output_size else frames + output


def _bag(model, frames, mask, name, mode):
  """Mean and maximum of ReLU6 units."""
  units = _linear(frames, model.clusters[name], mode, "units", True)
  units = tf.nn.relu6(units) * tf.cast(mask, tf.float32)[:, :, tf.newaxis]
  count = tf.reduce_sum(tf.cast(mask, tf.float32), axis=1, keepdims=True)
  mean = tf.reduce_sum(units, axis=1) / tf.maximum(count, 1.0)
  parts = mean, tf.reduce_max(units, axis=1)
  return tf.concat([tf.nn.l2_normalize(x, axis=1) for x in parts], axis=1)


def _soft_bag(model, frames, mask, name, mode):
  assignments = _assign(frames, mask, model.clusters[name], mode)
  return tf.nn.l2_normalize(tf.reduce_sum(assignments, axis=1), axis=1)


def _gated_bag(model, frames, mask, name, mode):
  """Gates of the widest feature, as WILLOW published them."""
  if name != max(model.features, key=lambda feature: feature.size).name:
    return _soft_bag(model, frames, mask, name, mode)
  assignments = _assign(frames, mask, model.clusters[name], mode)
  maxima = tf.nn.l2_normalize(tf.reduce_max(assignments, axis=1), axis=1)
  shape = [model.clusters[name], frames.shape.as_list()[2]]
  gates = tf.matmul(maxima, _weights("reduction", shape))
  gates = tf.sigmoid(_linear(gates, shape[0], mode, "gates", True))
  return tf.nn.l2_normalize(gates * tf.reduce_sum(assignments, axis=1), axis=1)


def _attention_clusters(model, frames, mask, name, mode):
  clusters = model.clusters[name]
  scores = _linear(frames, clusters, mode, "scores", add_batch_norm=True)
  scores -= 1e9 * (1.0 - tf.cast(mask, tf.float32)[:, :, tf.newaxis])
  weights = tf.nn.softmax(scores, axis=1)
  means = tf.matmul(tf.transpose(weights, [0, 2, 1]), frames)
  shape = [clusters, 1]
  units = _weights("alpha", shape) * means + _weights("beta", shape)
  return _flatten(tf.nn.l2_normalize(units, axis=2)) * clusters**-0.5


def _attention_enhanced(model, frames, mask, name, mode):
  frames = _encode(model, frames, mask, mode, "frames")
  assignments = _assign(frames, mask, model.clusters[name], mode)
  sums = tf.transpose(_vlad(frames, assignments), [0, 2, 1])
  sums = tf.nn.l2_normalize(sums, axis=2)
  some = tf.ones(tf.shape(sums)[:2], tf.bool)
  return _flatten(_encode(model, sums, some, mode, "sums"))


def _attention_netvlad(model, frames, mask, name, mode):
  attended = _encode(model, frames, mask, mode, "encoder1")
  clusters = model.clusters[name]
  logits = _encode(model, attended, mask, mode, "encoder2", clusters)
  assignments = tf.nn.softmax(logits)
  assignments *= tf.cast(mask, tf.float32)[:, :, tf.newaxis]
  sums = tf.nn.l2_normalize(_vlad(frames, assignments), axis=1)
  return tf.nn.l2_normalize(_flatten(sums), axis=1)


def _block(model, queries, tokens, mask, mode, scope):
  """MAB of the Set Transformer, as its authors' code has it."""
  attention = model.attention
  with tf.variable_scope(scope):
    found = _linear(queries, attention.size, mode, "residual") + _attend(
      queries, tokens, mask, attention.size, attention.head_size, mode, "heads"
    )
    found = slim.layer_norm(found, begin_norm_axis=2)
    found += tf.nn.relu(_linear(found, attention.size, mode, "output"))
    return slim.layer_norm(found, begin_norm_axis=2)


def _queries(model, frames, number, scope):
  """Learnt ones, the same of each video: [B, number, size]."""
  queries = _weights(scope, [number, model.attention.size])
  return tf.tile(queries[tf.newaxis], [tf.shape(frames)[0], 1, 1])


def _pma(model, frames, mask, name, mode):
  config, tokens = model.config, frames
  for i in range(config.pma_frame_blocks):
    points = _queries(model, frames, config.pma_inducing_points, f"points{i}")
    points = _block(model, points, tokens, mask, mode, f"to_points{i}")
    real = tf.ones(tf.shape(points)[:2], tf.bool)
    tokens = _block(model, tokens, points, real, mode, f"back{i}")
  seeds = _queries(model, frames, config.attention_queries, "seeds")
  seeds = _block(model, seeds, tokens, mask, mode, "pma")
  for i in range(config.pma_seed_blocks):
    real = tf.ones(tf.shape(seeds)[:2], tf.bool)
    seeds = _block(model, seeds, seeds, real, mode, f"seeds{i}")
  return _flatten(seeds)


def _probe(model, frames, mask, name, mode):
  attention = model.attention
  size = attention.size
  tokens = _linear(frames, size, mode, "project")
  tokens = slim.layer_norm(tokens, begin_norm_axis=2)
  queries = _queries(model, frames, model.config.attention_queries, "queries")
  queries += _linear(
    _attend(queries, tokens, mask, size, attention.head_size, mode, "heads"),
    size,
    mode,
    "output",
  )
  hidden = slim.layer_norm(queries, begin_norm_axis=2)
  hidden = _linear(hidden, attention.feed_forward_factor * size, mode, "inner")
  hidden *= 0.5 * (1.0 + tf.math.erf(hidden * 0.5**0.5))
  queries += _linear(hidden, size, mode, "outer")
  return _flatten(slim.layer_norm(queries, begin_norm_axis=2))


def _boq(model, frames, mask, name, mode):
  config, size = model.config, model.attention.size
  found, tokens = [], _linear(frames, size, mode, "project")
  tokens = slim.layer_norm(tokens, begin_norm_axis=2)
  for i in range(config.boq_layers):
    tokens = _encode(model, tokens, mask, mode, f"encoder{i}")
    queries = _queries(model, frames, config.attention_queries, f"queries{i}")
    for others, real, scope in (
      (queries, tf.ones(tf.shape(queries)[:2], tf.bool), "self"),
      (tokens, mask, "cross"),
    ):
      with tf.variable_scope(f"{scope}{i}"):
        heads = size, model.attention.head_size, mode, "heads"
        attended = _attend(queries, others, real, *heads)
        attended = _linear(attended, size, mode, "output")
        queries = attended + (queries if scope == "self" else 0.0)
        queries = slim.layer_norm(queries, begin_norm_axis=2)
    found.append(queries)
  columns = tf.transpose(tf.concat(found, axis=1), [0, 2, 1])
  rows = _linear(columns, config.boq_row_size, mode, "rows")
  return tf.nn.l2_normalize(_flatten(rows), axis=1)


def _scan(cell, frames, mask, units, num_states, reverse=False):
  """A cell over time: (its last state of each frame, states at the end)."""

  def one(states, seen):
    frame, real = seen
    found = cell(frame, *states)
    return tuple(
      tf.where_v2(real[:, tf.newaxis], new, old)
      for new, old in zip(found, states)
    )

  states = tf.scan(
    one,
    (tf.transpose(frames, [1, 0, 2]), tf.transpose(mask)),
    (tf.zeros([tf.shape(frames)[0], units]),) * num_states,
    reverse=reverse,
  )
  last = [state[0 if reverse else -1] for state in states]
  return tf.transpose(states[-1], [1, 0, 2]), last


def _lstm(frames, mask, units, scope, reverse=False):
  with tf.variable_scope(scope):
    size = frames.shape.as_list()[2] + units
    weights = _weights("weights", [size, 4 * units])
    biases = _weights("biases", [4 * units])

  def cell(frame, state, output):
    gates = tf.matmul(tf.concat([frame, output], axis=1), weights) + biases
    gate, new, forget, shown = tf.split(gates, 4, axis=1)
    state = state * tf.sigmoid(forget + 1.0) + tf.sigmoid(gate) * tf.tanh(new)
    return state, tf.tanh(state) * tf.sigmoid(shown)

  return _scan(cell, frames, mask, units, 2, reverse)


def _gru(frames, mask, units, scope, reverse=False):
  with tf.variable_scope(scope):
    size = frames.shape.as_list()[2] + units
    weights = _weights("weights", [size, 2 * units])
    biases = _weights("biases", [2 * units])
    of_candidate = _weights("candidate", [size, units])
    bias = _weights("bias", [units])

  def cell(frame, state):
    gates = tf.matmul(tf.concat([frame, state], axis=1), weights) + biases
    reset, update = tf.split(tf.sigmoid(gates), 2, axis=1)
    seen = tf.concat([frame, reset * state], axis=1)
    new = tf.tanh(tf.matmul(seen, of_candidate) + bias)
    return (update * state + (1.0 - update) * new,)

  return _scan(cell, frames, mask, units, 1, reverse)


def _stack(layer, units, layers, model, frames, mask):
  found = []
  for i in range(getattr(model.config, layers)):
    size = getattr(model.config, units)
    frames, states = layer(frames, mask, size, f"layer{i}")
    found += states
  return tf.concat(found, axis=1)


def _both_ways(layer, units, model, frames, mask):
  size = getattr(model.config, units)
  both = [
    layer(frames, mask, max(1, size // 2), f"way{i}", reverse=bool(i))[0]
    for i in range(2)
  ]
  return layer(tf.concat(both, axis=2), mask, size, "last")[1][0]


# As published, where code was; else the equation as it stands.
POOLINGS = {
  "NetVLADModelLF": _netvlad,
  "NeXtVLADModel": _nextvlad,
  "NetFVModelLF": _netfv,
  "SecondOrderModel": _second_order,
  "AttentionEnhancedNetVLADModel": _attention_enhanced,
  "AttentionNetVLADModel": _attention_netvlad,
  "DbofModelLF": _bag,
  "SoftDbofModelLF": _soft_bag,
  "GatedDbofModelLF": _gated_bag,
  "AttentionClustersModel": _attention_clusters,
  "PmaModel": _pma,
  "AttentiveProbeModel": _probe,
  "BoqModel": _boq,
  "LstmModel": functools.partial(_stack, _lstm, "lstm_cells", "lstm_layers"),
  "GruModel": functools.partial(_stack, _gru, "gru_cells", "gru_layers"),
  "BiLstmModel": functools.partial(_both_ways, _lstm, "lstm_cells"),
  "BiGruModel": functools.partial(_both_ways, _gru, "gru_cells"),
}
