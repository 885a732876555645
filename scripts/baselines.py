"""What `benchmark.py` measures against: each job done the direct way.

Layers as their equations read, with the residuals of every frame to every
centre held in memory, as published NetVLAD layers for variable assignments
have them; a training step, a reader and metrics in the manner of the code that
the field trains YouTube-8M with. Each yields the numbers of the part of this
codebase that it is compared with (`tests/benchmark_test.py`), so that nothing
but the way there differs.

Axes: B videos, T frames, D features, K centres, G groups of g features,
H heads of h dimensions, C classes, M mixtures.
"""

import contextlib
import heapq
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from pooling import netvlad, whitening
from slim_compat import slim

# As `pooling/whitening.py` documents it.
_SHRINKAGE = 2e-6
_CROSS_ENTROPY_EPSILON = 1e-5
# Starter code: the decay of all moving averages.
_BATCH_NORM_DECAY = 0.999


# Layers.


def residuals(frames, centres):
  """v_tj = x_t - c_j, equation (8): float32 [B, T, K, D]."""
  return frames[:, :, tf.newaxis, :] - centres


def _masked(weights, mask):
  return weights * tf.cast(mask, weights.dtype)[:, :, tf.newaxis]


def _weighted_sum(weights, vectors):
  """sum_t w_tj u_tj, the product w u held in memory: float32 [B, K, D]."""
  return tf.reduce_sum(weights[..., tf.newaxis] * vectors, axis=1)


def vlad(frames, mask, assignments, centres, *, democratic=None):
  """`netvlad.vlad`, equation (3), from residuals.

  How the equation reads, and how a NetVLAD is written when assignments are no
  linear map of the frames.

  Args:
    frames: float32 [B, T, D], or what becomes such a tensor.
    mask: bool [B, T], True on real frames.
    assignments: float32 [B, T, K].
    centres: float32 [K, D].
    democratic: a `democratic.Config` that is not enabled, or None.

  Returns:
    float32 [B, K, D].

  Raises:
    ValueError: democratic weights are asked for.
  """
  if democratic and democratic.enabled:
    raise ValueError("The baseline has no democratic weights.")
  # Models may give `AffineFrames`.
  vectors = residuals(tf.convert_to_tensor(frames), centres)
  sums = _weighted_sum(_masked(assignments, mask), vectors)
  return tf.nn.l2_normalize(sums, axis=2)


@contextlib.contextmanager
def materialised_vlad():
  """Lets models that are built in the `with` block pool by `vlad` above."""
  with mock.patch.object(netvlad, "vlad", vlad):
    yield


def unit_residual_sums(frames, mask, weights, centres):
  """sum_t w_tj v_tj / |v_tj|, section 2.3: float32 [B, K, D]."""
  units = tf.nn.l2_normalize(residuals(frames, centres), axis=3)
  return _weighted_sum(_masked(weights, mask), units)


def whitened_sum(frames, mask, weights, centres, *, group_size):
  """`whitening.whitened_sum` in training, equations (5) and (6).

  Every unit residual is freed of the mean and whitened, then summed.

  Args:
    frames: float32 [B, T, D], D static.
    mask: bool [B, T], True on real frames.
    weights: float32 [B, T, K].
    centres: float32 [K, D], K static.
    group_size: int, g, a divisor of D.

  Returns:
    float32 [B, K, D].
  """
  num_centres, depth = centres.shape.as_list()
  shape = tf.shape(frames)
  units = tf.nn.l2_normalize(residuals(frames, centres), axis=3)
  real = tf.cast(mask, frames.dtype)[:, :, tf.newaxis, tf.newaxis]
  share = real / tf.reduce_sum(real)
  centred = units - tf.reduce_sum(share * units, axis=[0, 1])
  blocks = tf.reshape(
    centred,
    [shape[0], shape[1], num_centres, depth // group_size, group_size],
  )
  covariance = tf.einsum(
    "btkgi,btkgj->kgij", share[..., tf.newaxis] * blocks, blocks
  )
  variances = tf.linalg.diag_part(covariance)
  total = tf.reduce_sum(variances, axis=-1, keepdims=True) + group_size / depth
  covariance = tf.linalg.set_diag(covariance, variances + _SHRINKAGE * total)
  whitener = whitening.inverse_square_root(covariance)
  whitened = tf.einsum("btkgi,kgij->btkgj", blocks, whitener)
  return _weighted_sum(
    _masked(weights, mask), tf.reshape(whitened, tf.shape(units))
  )


def second(frames, mask, weights, centres):
  """`moments.second` of all of D: sum_t w v v^T, equation (7).

  Returns:
    float32 [B, K, 1, D, D].
  """
  by_centre = tf.transpose(residuals(frames, centres), [0, 2, 1, 3])
  by_weight = tf.transpose(_masked(weights, mask), [0, 2, 1])
  weighted = by_weight[..., tf.newaxis] * by_centre
  return tf.matmul(weighted, by_centre, transpose_a=True)[:, :, tf.newaxis]


def gram(frames, mask, weights, centres):
  """`moments.gram` of equation (4), the [T, K D] embeddings formed.

  Returns:
    float32 [B, T, T].
  """
  num_centres, depth = centres.shape.as_list()
  shape = tf.shape(frames)
  embedded = _masked(weights, mask)[..., tf.newaxis] * residuals(
    frames, centres
  )
  flat = tf.reshape(embedded, [shape[0], shape[1], num_centres * depth])
  return tf.matmul(flat, flat, transpose_b=True)


def attention(queries, keys, values, mask):
  """`transformer.attention`, equation (2), all T x T weights kept.

  As Transformers are commonly written.

  Args:
    queries: float32 [B, H, T, h], already divided by alpha.
    keys: float32 [B, H, T, h].
    values: float32 [B, H, T, h].
    mask: bool [B, T], True on real tokens.

  Returns:
    float32 [B, H, T, h].
  """
  logits = tf.matmul(queries, keys, transpose_b=True)
  logits += tf.where_v2(mask, 0.0, -1e30)[:, tf.newaxis, tf.newaxis, :]
  return tf.matmul(tf.nn.softmax(logits), values)


# The training step.


def plain_gated_netvlad(
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
  frames = tf.cast(features, tf.float32) * (4.0 / 255.0) + (4.0 / 512.0 - 2.0)
  frames = tf.nn.l2_normalize(frames, axis=2)
  if num_frames:
    frames = _sample(frames, num_frames)
  depth, length = sum(feature_sizes), tf.shape(frames)[1]
  rows = _slim_batch_norm(tf.reshape(frames, [-1, depth]), "input_bn")
  descriptors = []
  for i, part in enumerate(tf.split(rows, feature_sizes, axis=1)):
    with tf.variable_scope(f"netvlad_{i}"):
      centres = num_clusters if i == 0 else num_clusters // 2
      descriptors.append(_plain_netvlad(part, length, centres))
  hidden = tf.matmul(
    tf.concat(descriptors, axis=1),
    _weights(
      "hidden1_weights",
      [sum(d.shape.as_list()[1] for d in descriptors), hidden_size],
    ),
  )
  hidden = _slim_batch_norm(hidden, "hidden1_bn")
  gates = tf.matmul(
    hidden, _weights("gating_weights", [hidden_size, hidden_size])
  )
  hidden *= tf.sigmoid(_slim_batch_norm(gates, "gating_bn"))
  predictions = _plain_mixture(
    hidden, labels.shape.as_list()[1], num_mixtures, l2_penalty
  )
  truth = tf.cast(labels, tf.float32)
  epsilon = _CROSS_ENTROPY_EPSILON
  cross_entropy = truth * tf.log(predictions + epsilon)
  cross_entropy += (1 - truth) * tf.log(1 - predictions + epsilon)
  loss = -tf.reduce_mean(tf.reduce_sum(cross_entropy, axis=1))
  return predictions, loss + tf.losses.get_regularization_loss()


def plain_train_op(loss, learning_rate=1e-4, max_norm=1.0):
  """Adam on gradients clipped one by one, behind all batch-norm updates."""
  optimizer = tf.train.AdamOptimizer(learning_rate)
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    gradients = optimizer.compute_gradients(loss)
  clipped = [
    (tf.clip_by_norm(gradient, max_norm), variable)
    for gradient, variable in gradients
  ]
  return optimizer.apply_gradients(clipped)


def _sample(frames, num_samples):
  """Draws frames [B, num_samples, D] of padded ones."""
  shape = tf.shape(frames)
  steps = tf.random.uniform([shape[0], num_samples], 0, shape[1], tf.int32)
  videos = tf.tile(tf.range(shape[0])[:, tf.newaxis], [1, num_samples])
  return tf.gather_nd(frames, tf.stack([videos, steps], axis=2))


def _weights(name, shape):
  return tf.get_variable(
    name,
    shape,
    initializer=tf.random_normal_initializer(stddev=shape[-2] ** -0.5),
  )


def _slim_batch_norm(inputs, scope):
  return slim.batch_norm(
    inputs,
    center=True,
    scale=True,
    is_training=True,
    decay=_BATCH_NORM_DECAY,
    scope=scope,
  )


def _plain_netvlad(rows, length, num_clusters):
  """NetVLAD of rows [B T, D]: float32 [B, D K], K fastest."""
  depth = rows.shape.as_list()[1]
  logits = tf.matmul(rows, _weights("cluster_weights", [depth, num_clusters]))
  assignments = tf.nn.softmax(_slim_batch_norm(logits, "cluster_bn"))
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


def _plain_mixture(inputs, num_classes, num_mixtures, l2_penalty):
  """A gated mixture of experts: float32 [B, C]."""

  def logits(units, scope, biases=None):
    return slim.fully_connected(
      inputs,
      units,
      activation_fn=None,
      biases_initializer=biases,
      weights_regularizer=slim.l2_regularizer(l2_penalty),
      scope=scope,
    )

  gates = logits(num_classes * (num_mixtures + 1), "gates")
  experts = logits(
    num_classes * num_mixtures, "experts", tf.zeros_initializer()
  )
  gates = tf.nn.softmax(tf.reshape(gates, [-1, num_mixtures + 1]))
  experts = tf.sigmoid(tf.reshape(experts, [-1, num_mixtures]))
  mixed = tf.reduce_sum(gates[:, :num_mixtures] * experts, axis=1)
  predictions = tf.reshape(mixed, [-1, num_classes])
  prob_gates = tf.matmul(
    predictions, _weights("gating_prob_weights", [num_classes, num_classes])
  )
  return predictions * tf.sigmoid(
    _slim_batch_norm(prob_gates, "gating_prob_bn")
  )


# The reader.


def plain_batches(
  paths,
  *,
  feature_names,
  feature_sizes,
  num_classes,
  batch_size,
  max_frames=300,
  num_readers=8,
  shuffle_buffer=1024,
):
  """Batches as the starter code makes them, one pass over the files.

  Record by record: parsed alone, dequantised to float32, padded to
  `max_frames`; such records wait in the shuffle buffer, and are stacked.

  Args:
    paths: list of str.
    feature_names: list of str.
    feature_sizes: list of int.
    num_classes: int, C.
    batch_size: int, B.
    max_frames: int, T.
    num_readers: int, records parsed, and files read, at the same time.
    shuffle_buffer: int.

  Returns:
    `tf.data.Dataset` of a dict: `video_ids` string [B], `features` float32
    [B, T, D] with zeros behind a video's frames, `num_frames` int32 [B],
    `labels` bool [B, C].
  """

  def parse(record):
    context, lists = tf.io.parse_single_sequence_example(
      record,
      context_features={
        "id": tf.io.FixedLenFeature([], tf.string),
        "labels": tf.io.VarLenFeature(tf.int64),
      },
      sequence_features={
        name: tf.io.FixedLenSequenceFeature([], tf.string)
        for name in feature_names
      },
    )
    features = []
    for name, size in zip(feature_names, feature_sizes):
      bytes_of = tf.reshape(tf.io.decode_raw(lists[name], tf.uint8), [-1, size])
      floats = tf.cast(bytes_of, tf.float32) * (4.0 / 255.0)
      features.append((floats + (4.0 / 512.0 - 2.0))[:max_frames])
    frames = tf.concat(features, axis=1)
    num_frames = tf.shape(frames)[0]
    labels = context["labels"].values[:, tf.newaxis]
    return {
      "video_ids": context["id"],
      "features": tf.ensure_shape(
        tf.pad(frames, [[0, max_frames - num_frames], [0, 0]]),
        [max_frames, sum(feature_sizes)],
      ),
      "num_frames": num_frames,
      "labels": tf.scatter_nd(
        labels, tf.ones_like(labels[:, 0], tf.int32), [num_classes]
      )
      > 0,
    }

  data = tf.data.Dataset.from_tensor_slices(paths)
  data = data.interleave(
    tf.data.TFRecordDataset,
    cycle_length=num_readers,
    num_parallel_calls=num_readers,
    deterministic=False,
  )
  data = data.map(parse, num_parallel_calls=num_readers, deterministic=False)
  data = data.shuffle(shuffle_buffer)
  return data.batch(batch_size).prefetch(2)


# Metrics.


class HeapMetrics:
  """`eval_util.EvaluationMetrics` in the manner of the starter code.

  Video by video in Python: a heap of (prediction, label) for each class, and
  one for all; average precision from the heaps' sorted content. The starter
  code shuffles what it sorts; here equal predictions keep their order.
  """

  def __init__(self, num_class, top_k):
    """Starts empty: num_class is C, top_k the pairs that a video adds."""
    self._top_k = top_k
    self._class_heaps = [[] for _ in range(num_class)]
    self._class_positives = [0] * num_class
    self._all_pairs = []
    self._hits, self._perrs = [], []

  def accumulate(self, predictions, labels):
    """Adds a batch: float [B, C], bool [B, C]."""
    for scores, truth in zip(predictions, labels):
      self._hits.append(bool(truth[np.argmax(scores)]))
      self._add_perr(scores, truth)
      self._add_pairs(scores, truth)

  def _add_perr(self, scores, truth):
    count = int(np.sum(truth))
    if not count:
      return
    best = np.argpartition(scores, -count)[-count:]
    found = sum(1 for j in best if truth[j] and scores[j] > 0)
    self._perrs.append(found / count)

  def _add_pairs(self, scores, truth):
    for j in np.argpartition(scores, -self._top_k)[-self._top_k :]:
      pair = (float(scores[j]), bool(truth[j]))
      heapq.heappush(self._class_heaps[j], pair)
      heapq.heappush(self._all_pairs, pair)
    for j in np.flatnonzero(truth):
      self._class_positives[j] += 1

  def get(self):
    """`avg_hit_at_one`, `avg_perr`, `aps` of classes with positives, `gap`."""
    return {
      "avg_hit_at_one": sum(self._hits) / len(self._hits),
      "avg_perr": sum(self._perrs) / max(1, len(self._perrs)),
      "aps": [
        _average_precision(heap, positives)
        for heap, positives in zip(self._class_heaps, self._class_positives)
        if positives
      ],
      "gap": _average_precision(self._all_pairs, sum(self._class_positives)),
    }


def _average_precision(pairs, num_positives):
  """Of (prediction, is positive) pairs, in a loop."""
  found, area = 0, 0.0
  ranked = sorted(pairs, key=lambda pair: pair[0], reverse=True)
  for rank, (_, is_positive) in enumerate(ranked, start=1):
    if is_positive:
      found += 1
      area += found / rank
  return area / num_positives if num_positives else 0.0
