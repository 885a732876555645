"""Plain code for what `benchmark.py` measures, to compare ours with.

Axes: B videos, T frames, D features, K centres, C classes, M mixtures.
"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from pooling.slim_compat import slim

# Starter code: the decay of all moving averages.
_BATCH_NORM_DECAY = 0.999
_CROSS_ENTROPY_EPSILON = 1e-5


class Records(NamedTuple):
  """What is read: files of frame-level records, their features, C, and T."""

  paths: Sequence[str]
  feature_names: Sequence[str]
  feature_sizes: Sequence[int]
  num_classes: int
  max_frames: int


def queue_batches(records, *, batch_size, num_readers, num_epochs=None):
  """Batches as the YouTube-8M starter code makes them.

  Queues that threads of Python fill record by record: one of file names, and
  one that shuffles, of the starter code's size, five batches.

  Returns:
    Dict of the next batch's tensors, like `plain_batches`', for a session with
    `running_queues`.
  """
  files = tf.train.string_input_producer(list(records.paths), num_epochs)
  parsed = []
  for _ in range(num_readers):
    _, serialized = tf.TFRecordReader().read(files)
    one = _parse(records, serialized)
    parsed.append({name: tf.expand_dims(one[name], 0) for name in one})
  return tf.train.shuffle_batch_join(
    parsed,
    batch_size=batch_size,
    capacity=5 * batch_size,
    min_after_dequeue=batch_size,
    enqueue_many=True,
    allow_smaller_final_batch=True,
  )


@contextlib.contextmanager
def running_queues(session):
  """Starts what `queue_batches` needs in a session, and stops it."""
  session.run(tf.local_variables_initializer())
  coordinator = tf.train.Coordinator()
  threads = tf.train.start_queue_runners(session, coordinator)
  try:
    yield
  finally:
    coordinator.request_stop()
    coordinator.join(threads)


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


def gated_netvlad(
  features,
  labels,
  *,
  feature_sizes,
  num_frames,
  num_clusters,
  hidden_size,
  l2_penalty,
  num_mixtures=2,
):
  """Gated NetVLAD with gated mixture of experts, written down without care.

  What `NetVLADModelLF` of --gating, --moe_prob_gating and no --netvlad_relu
  computes, as the published code of Miech et al. 2017 goes about it: all
  stored frames become floats before some are chosen, assignments and sums are
  transposed to and fro, classes run slowest in the mixture, and `slim` does
  the rest. Padding counts as frames, as it does there.

  Args:
    features: uint8 [B, T, D], padded.
    labels: bool [B, C], C static.
    feature_sizes: list of int that sum to D; the first is the widest.
    num_frames: int, frames to draw of each video; 0 for all.
    num_clusters: int, K of the first feature; the others have half.
    hidden_size: int.
    l2_penalty: float, of the mixture's weights.
    num_mixtures: int, M.

  Returns:
    (float32 [B, C] predictions, float32 scalar loss).
  """
  frames = tf.nn.l2_normalize(_dequantize(features), axis=2)
  if num_frames:
    frames = _sample(frames, num_frames)
  depth, length = sum(feature_sizes), tf.shape(frames)[1]
  rows = _batch_norm(tf.reshape(frames, [-1, depth]), "input_bn")
  descriptors = []
  for i, part in enumerate(tf.split(rows, feature_sizes, axis=1)):
    with tf.variable_scope(f"netvlad_{i}"):
      centres = num_clusters if i == 0 else num_clusters // 2
      descriptors.append(_netvlad(part, length, centres))
  joined = tf.concat(descriptors, axis=1)
  size = joined.shape.as_list()[1]
  hidden = tf.matmul(joined, _weights("hidden1_weights", [size, hidden_size]))
  hidden += tf.get_variable(
    "hidden1_biases", [hidden_size], initializer=tf.zeros_initializer()
  )
  hidden *= _gates(hidden, "gating")
  predictions = _mixture(
    hidden, labels.shape.as_list()[1], num_mixtures, l2_penalty
  )
  truth = tf.cast(labels, tf.float32)
  log_likelihood = truth * tf.log(predictions + _CROSS_ENTROPY_EPSILON)
  log_likelihood += (1 - truth) * tf.log(
    1 - predictions + _CROSS_ENTROPY_EPSILON
  )
  loss = -tf.reduce_mean(tf.reduce_sum(log_likelihood, axis=1))
  return predictions, loss + tf.losses.get_regularization_loss()


def train_op(loss, learning_rate=1e-4, max_norm=1.0):
  """Adam on gradients clipped one by one, after all batch-norm updates."""
  optimizer = tf.train.AdamOptimizer(learning_rate)
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    gradients = optimizer.compute_gradients(loss)
  return optimizer.apply_gradients(
    [(tf.clip_by_norm(gradient, max_norm), v) for gradient, v in gradients]
  )


def _sample(frames, num_samples):
  """Draws frames [B, num_samples, D] of padded ones."""
  shape = tf.shape(frames)
  steps = tf.random.uniform([shape[0], num_samples], 0, shape[1], tf.int32)
  videos = tf.tile(tf.range(shape[0])[:, tf.newaxis], [1, num_samples])
  return tf.gather_nd(frames, tf.stack([videos, steps], axis=2))


def _weights(name, shape):
  initializer = tf.random_normal_initializer(stddev=shape[-2] ** -0.5)
  return tf.get_variable(name, shape, initializer=initializer)


def _batch_norm(inputs, scope):
  return slim.batch_norm(
    inputs, scale=True, decay=_BATCH_NORM_DECAY, scope=scope
  )


def _gates(inputs, name):
  size = inputs.shape.as_list()[1]
  logits = tf.matmul(inputs, _weights(f"{name}_weights", [size, size]))
  return tf.sigmoid(_batch_norm(logits, f"{name}_bn"))


def _netvlad(rows, length, num_clusters):
  """NetVLAD of rows [B T, D]: float32 [B, D K], K fastest."""
  depth = rows.shape.as_list()[1]
  logits = tf.matmul(rows, _weights("cluster_weights", [depth, num_clusters]))
  assignments = tf.nn.softmax(_batch_norm(logits, "cluster_bn"))
  assignments = tf.reshape(assignments, [-1, length, num_clusters])
  centres = _weights("cluster_weights2", [1, depth, num_clusters])
  offsets = tf.reduce_sum(assignments, axis=1, keepdims=True) * centres
  sums = tf.matmul(
    tf.transpose(assignments, [0, 2, 1]), tf.reshape(rows, [-1, length, depth])
  )
  sums = tf.nn.l2_normalize(tf.transpose(sums, [0, 2, 1]) - offsets, axis=1)
  return tf.nn.l2_normalize(
    tf.reshape(sums, [-1, depth * num_clusters]), axis=1
  )


def _mixture(inputs, num_classes, num_mixtures, l2_penalty):
  """A gated mixture of experts: float32 [B, C]."""

  def logits(num_each, scope, biases=None):
    units = slim.fully_connected(
      inputs,
      num_classes * num_each,
      activation_fn=None,
      biases_initializer=biases,
      weights_regularizer=slim.l2_regularizer(l2_penalty),
      scope=scope,
    )
    return tf.reshape(units, [-1, num_each])

  gates = tf.nn.softmax(logits(num_mixtures + 1, "gates"))
  experts = logits(num_mixtures, "experts", tf.zeros_initializer())
  mixed = tf.reduce_sum(gates[:, :num_mixtures] * tf.sigmoid(experts), axis=1)
  predictions = tf.reshape(mixed, [-1, num_classes])
  return predictions * _gates(predictions, "gating_prob")
