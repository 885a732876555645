"""The models that pool frames around centres: the paper's four.

Each feature (rgb, audio, ...) is pooled on its own; the descriptors are
concatenated and classified through a hidden layer with context gating. The
models differ in `_pool`, and the equations are in `pooling/`.

Axes: B videos, T frames, D features, K centres, C classes.
"""

import abc
import functools
import re
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import frame_level_models
from pooling import democratic as democratic_lib
from pooling import gating as gating_lib
from pooling import linear as linear_lib
from pooling import moments, regularizers, second_order, transformer, whitening
from pooling import netvlad as netvlad_lib
from pooling.affine_frames import AffineFrames
from pooling.dropout import dropout

# Of the hidden layer's biases at the start, in WILLOW's code.
_BIASES_STDDEV = 0.01

WHITENINGS = ("group", "diagonal", "none")
SIMILARITIES = ("softmax", "relu")


class Codebook(NamedTuple):
  """Centres, and what was assigned to them: what penalties look at.

  Attributes:
    frames: float32 [B, T, D], or `AffineFrames`.
    assignments: float32 [B, T, K].
    centres: float32 [K, D], or None.
  """

  frames: Any
  assignments: Any
  centres: Any


class PooledModel(frame_level_models.SampledFramesModel, abc.ABC):
  """What the models of this file share: all but `_pool`."""

  # The part of the widest feature's centres that the other features get.
  cluster_divisor = 4

  def __init__(
    self,
    *,
    classifier,
    feature_names,
    feature_sizes,
    iterations,
    frame_sampling_method,
    cluster_sizes,
    hidden_size,
    hidden_batch_norm,
    relu,
    gating,
    gating_remove_diag,
    add_batch_norm,
    batch_norm_decay,
    descriptor_dropout,
    democratic,
    penalties,
  ):
    """Keeps the configuration.

    Args:
      classifier: video-level model on the gated hidden layer.
      feature_names: list of str, the features in the order of D.
      feature_sizes: list of int, their sizes, which sum to D.
      iterations: see `SampledFramesModel`.
      frame_sampling_method: see `SampledFramesModel`.
      cluster_sizes: list of int, centres for each feature; one number is that
        of the widest feature, the others having the `cluster_divisor`th part
        of it, at least 1.
      hidden_size: int >= 1, units of the layer after pooling.
      hidden_batch_norm: bool, batch norm on that layer; else, or without
        add_batch_norm, WILLOW's layer: weights of deviation 1 / sqrt(K), K the
        most centres of a feature, and biases of deviation 0.01.
      relu: bool, ReLU6 on the hidden layer.
      gating: bool, context gating on the hidden layer.
      gating_remove_diag: bool, see `context_gating`.
      add_batch_norm: bool, on the input, the assignments and the gates, and on
        the hidden layer with hidden_batch_norm.
      batch_norm_decay: float, see `batch_norm`.
      descriptor_dropout: float in [0, 1), of the pooled descriptor.
      democratic: `democratic.Config`.
      penalties: `regularizers.Weights`.

    Raises:
      ValueError: features whose names make the same scope, or cluster sizes
        that do not fit the features.
    """
    super().__init__(
      iterations=iterations, frame_sampling_method=frame_sampling_method
    )
    scopes = {feature_scope("", name) for name in feature_names}
    if len(scopes) < len(feature_names):
      raise ValueError(
        "Need feature names that differ in letters, digits, _, - or ., got "
        f"{feature_names}."
      )
    self._classifier = classifier
    self._feature_names = feature_names
    self._feature_sizes = feature_sizes
    self._cluster_sizes = share_clusters(
      cluster_sizes, feature_sizes, divisor=self.cluster_divisor
    )
    self._hidden_size = hidden_size
    self._hidden_batch_norm = add_batch_norm and hidden_batch_norm
    self._relu = relu
    self._gating = gating
    self._gating_remove_diag = gating_remove_diag
    self._descriptor_dropout = descriptor_dropout
    self._democratic = democratic
    self._penalties = penalties
    self._batch_norm = {
      "add_batch_norm": add_batch_norm,
      "batch_norm_decay": batch_norm_decay,
    }

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    **unused_params,
  ):
    """See `BaseModel.create_model`."""
    mask = frame_level_models.frame_mask(model_input, num_frames)
    frames = frame_level_models.normalize_input(
      model_input, mask, is_training=is_training, **self._batch_norm
    )
    descriptors, penalties = [], {}
    for name, feature, num_clusters in zip(
      self._feature_names,
      split_features(frames, self._feature_sizes),
      self._cluster_sizes,
      strict=True,
    ):
      descriptor, codebooks = self._pool(
        feature, mask, name, num_clusters, is_training
      )
      descriptors.append(descriptor)
      for book in codebooks:
        found = regularizers.penalties(
          book.frames, mask, book.assignments, book.centres, self._penalties
        )
        for kind, value in found.items():
          penalties[kind] = penalties.get(kind, 0.0) + value
    hidden = self._hidden(tf.concat(descriptors, axis=1), is_training)
    if self._gating:
      hidden = gating_lib.context_gating(
        hidden,
        remove_diag=self._gating_remove_diag,
        is_training=is_training,
        **self._batch_norm,
      )
    result = self._classifier.create_model(
      hidden, vocab_size, is_training=is_training
    )
    if penalties:
      result["regularization_losses"] = penalties
    return result

  def _hidden(self, descriptor, is_training):
    """The layer after pooling: float32 [B, hidden_size]."""
    weights_stddev = None
    if not self._hidden_batch_norm:
      weights_stddev = max(self._cluster_sizes) ** -0.5
    hidden = linear_lib.linear(
      dropout(descriptor, self._descriptor_dropout, is_training=is_training),
      self._hidden_size,
      add_batch_norm=self._hidden_batch_norm,
      batch_norm_decay=self._batch_norm["batch_norm_decay"],
      is_training=is_training,
      weights_stddev=weights_stddev,
      biases_stddev=_BIASES_STDDEV,
      scope="hidden1",
    )
    return tf.nn.relu6(hidden) if self._relu else hidden

  @abc.abstractmethod
  def _pool(self, frames, mask, name, num_clusters, is_training):
    """Pools one feature.

    Args:
      frames: float32 [B, T, D] of the feature, or `AffineFrames` of it, which
        TensorFlow's functions take as a tensor.
      mask: bool [B, T], True on real frames.
      name: str, the feature's.
      num_clusters: int, its K.
      is_training: bool.

    Returns:
      (float32 [B, any] descriptor, list of `Codebook`).
    """

  def _assign(self, frames, mask, num_clusters, is_training):
    """NetVLAD's assignments, float32 [B, T, K]; see `soft_assignments`."""
    return netvlad_lib.soft_assignments(
      frames,
      mask,
      num_clusters=num_clusters,
      is_training=is_training,
      **self._batch_norm,
    )

  def _encoder_of(self, config, is_training):
    """`transformer.encoder` of a configuration."""
    return functools.partial(
      transformer.encoder,
      config=config,
      is_training=is_training,
      batch_norm_decay=self._batch_norm["batch_norm_decay"],
    )

  def _vlad(self, frames, mask, assignments, residuals=True):
    """VLAD around centres of its own: (float32 [B, K, D], `Codebook`)."""
    centres = None
    if residuals:
      centres = netvlad_lib.make_centres(
        assignments.shape.as_list()[2], frames.shape.as_list()[2]
      )
    sums = netvlad_lib.vlad(
      frames, mask, assignments, centres, democratic=self._democratic
    )
    return sums, Codebook(frames, assignments, centres)


class NetVLADModelLF(PooledModel):
  """Gated NetVLAD with late fusion (Miech, Laptev, Sivic 2017).

  The paper's baseline, 0.870 in its table 1: NetVLAD on each feature,
  concatenated, a hidden layer, context gating, mixture of experts.
  """

  cluster_divisor = 2

  def __init__(self, *, residuals, **pooled):
    """Keeps the configuration.

    Args:
      residuals: bool; False leaves the centres out: NetRVLAD.
      **pooled: see `PooledModel`.
    """
    super().__init__(**pooled)
    self._residuals = residuals

  def _pool(self, frames, mask, name, num_clusters, is_training):
    with tf.variable_scope(feature_scope("netvlad", name)):
      assignments = self._assign(frames, mask, num_clusters, is_training)
      sums, book = self._vlad(frames, mask, assignments, self._residuals)
    return netvlad_lib.descriptor(sums), [book]


class AttentionEnhancedNetVLADModel(PooledModel):
  """NetVLAD between two Transformer encoders (section 3.1, figure 1).

  The first encoder maps frames [T, D] to [T, D], the second the K centres'
  sums [K, D] to [K, D]. `NetVladV1` in the authors' repository; 0.856 in the
  paper's table 1.

  Encoders of residual "zero_init" start as the identity, and the model as
  NetVLAD: an untrained post-norm encoder is noise before the pooling. Of 600
  synthetic videos told apart by their covariance, 400 steps made a GAP of 0.13
  with "post_norm", 0.82 without encoders, 0.87 with "zero_init".
  """

  def __init__(self, *, encoder, **pooled):
    """Keeps the configuration.

    Args:
      encoder: `transformer.Config`, of both encoders.
      **pooled: see `PooledModel`.
    """
    super().__init__(**pooled)
    self._encoder = encoder

  def _pool(self, frames, mask, name, num_clusters, is_training):
    encode = self._encoder_of(self._encoder, is_training)
    frames = encode(frames, mask, scope=feature_scope("frame_encoder", name))
    with tf.variable_scope(feature_scope("netvlad", name)):
      assignments = self._assign(frames, mask, num_clusters, is_training)
      sums, book = self._vlad(frames, mask, assignments)
    sums = tf.nn.l2_normalize(sums, axis=2)
    if self._encoder.residual == "zero_init":
      # Of variance 1, as what the encoder adds to them.
      sums *= sums.shape.as_list()[2] ** 0.5
    # Of an empty video there are no sums to attend to.
    some = tf.reduce_any(mask, axis=1, keepdims=True)
    sums = encode(
      sums,
      tf.tile(some, [1, num_clusters]),
      scope=feature_scope("cluster_encoder", name),
    )
    return netvlad_lib.flatten(sums), [book]


class AttentionNetVLADModel(PooledModel):
  """NetVLAD with attention-based cluster similarities (section 3.2, figure 2).

  Encoder g1 maps frames [T, D] to [T, D]; encoder g2, whose feed-forward part
  ends in K units without a residual, maps those to the similarities [T, K] that
  assign the frames themselves to centres. `NetVladV2` in the authors'
  repository; 0.867 in the paper's table 1.
  """

  def __init__(self, *, encoder, similarity, **pooled):
    """Keeps the configuration.

    Args:
      encoder: `transformer.Config`, of both encoders.
      similarity: "softmax" over K of g2's output, or its "relu", as the
        authors' code has it.
      **pooled: see `PooledModel`.

    Raises:
      ValueError: unknown similarity, or post_norm with fewer than 3 centres.
    """
    super().__init__(**pooled)
    if similarity not in SIMILARITIES:
      raise ValueError(
        f"similarity is one of {SIMILARITIES}, got {similarity!r}."
      )
    if encoder.residual == "post_norm" and min(self._cluster_sizes) < 3:
      raise ValueError(
        "--transformer_residual=post_norm needs 3 centres for each feature, as "
        "a layer normalised over two leaves nothing but a sign; "
        f"--netvlad_cluster_size gives {self._cluster_sizes}."
      )
    self._encoder = encoder
    self._similarity = similarity

  def _pool(self, frames, mask, name, num_clusters, is_training):
    encode = self._encoder_of(self._encoder, is_training)
    attended = encode(frames, mask, scope=feature_scope("encoder1", name))
    logits = encode(
      attended,
      mask,
      output_size=num_clusters,
      scope=feature_scope("encoder2", name),
    )
    similarity = getattr(tf.nn, self._similarity)
    assignments = moments.zero_padding(similarity(logits), mask)
    with tf.variable_scope(feature_scope("netvlad", name)):
      sums, book = self._vlad(frames, mask, assignments)
    return netvlad_lib.descriptor(sums), [book]


class SecondOrderModel(PooledModel):
  """Regularised function approximation (section 3.3, figure 3).

  The embedding of equation (7): of each centre the mass a_j, the sum of its
  whitened unit residuals (equations 5, 6, 8), and the sum of outer products of
  residuals. The latter have centres and assignments of their own, around
  linearly projected frames as in the paper, or as a sketch of the unprojected
  ones, which the paper could not afford. 0.865 in the paper's table 1.

  Where the paper is silent, each part is brought to unit length on its own, so
  that none drowns the others: the masses as they are, the first order centre by
  centre as in NetVLAD, the second order as a whole behind its signed square
  root. Democratic weights are those of the residuals before whitening, whose
  Gram matrix has a closed form, and weigh the masses too.
  """

  def __init__(
    self,
    *,
    residual_whitening,
    whitening_group_size,
    second_order_cluster_sizes,
    projection_size,
    sketch_size,
    signed_square_root,
    **pooled,
  ):
    """Keeps the configuration.

    Args:
      residual_whitening: one of `WHITENINGS`: decorrelate within groups of
        features, scale each feature, or neither.
      whitening_group_size: int >= 1, features in a group.
      second_order_cluster_sizes: as `cluster_sizes`, of the second order.
      projection_size: int >= 1, dimensions that frames are projected to, at
        most the feature's own; unused with a sketch.
      sketch_size: int, dimensions of the Tensor Sketch of unprojected
        residuals; 0 for the projection. A feature of D dimensions whose
        D (D + 1) / 2 products are no more than that has them as they are.
      signed_square_root: bool, power-normalise the second order.
      **pooled: see `PooledModel`.

    Raises:
      ValueError: unknown residual_whitening.
    """
    super().__init__(**pooled)
    if residual_whitening not in WHITENINGS:
      raise ValueError(
        f"residual_whitening is one of {WHITENINGS}, got "
        f"{residual_whitening!r}."
      )
    self._group_size = {
      "group": whitening_group_size,
      "diagonal": 1,
      "none": None,
    }[residual_whitening]
    self._second_order_cluster_sizes = dict(
      zip(
        self._feature_names,
        share_clusters(
          second_order_cluster_sizes,
          self._feature_sizes,
          divisor=self.cluster_divisor,
        ),
        strict=True,
      )
    )
    self._projection_size = projection_size
    self._sketch_size = sketch_size
    self._signed_square_root = signed_square_root

  def _pool(self, frames, mask, name, num_clusters, is_training):
    with tf.variable_scope(feature_scope("first_order", name)):
      mass, first, first_book = self._first_order(
        frames, mask, num_clusters, is_training
      )
    with tf.variable_scope(feature_scope("second_order", name)):
      second_mass, second, second_book = self._second_order(
        frames, mask, self._second_order_cluster_sizes[name], is_training
      )
    descriptor = tf.concat(
      [
        tf.nn.l2_normalize(mass, axis=1),
        netvlad_lib.descriptor(first),
        tf.nn.l2_normalize(second_mass, axis=1),
        second,
      ],
      axis=1,
    )
    return descriptor, [first_book, second_book]

  def _first_order(self, frames, mask, num_clusters, is_training):
    """Masses [B, K], sums of whitened unit residuals [B, K, D], `Codebook`."""
    assignments = self._assign(frames, mask, num_clusters, is_training)
    centres = netvlad_lib.make_centres(num_clusters, frames.shape.as_list()[2])
    distances = moments.squared_distances(frames, mask, centres)
    weights = democratic_lib.reweigh(
      assignments,
      frames,
      mask,
      moments.per_length(assignments, distances, 1),
      centres,
      self._democratic,
    )
    if self._group_size is None:
      first = moments.first(
        frames, mask, moments.per_length(weights, distances, 1), centres
      )
    else:
      first = whitening.whitened_sum(
        frames,
        mask,
        weights,
        centres,
        distances,
        group_size=self._group_size,
        is_training=is_training,
        decay=self._batch_norm["batch_norm_decay"],
      )
    mass = moments.zeroth(mask, weights)
    return mass, first, Codebook(frames, assignments, centres)

  def _second_order(self, frames, mask, num_clusters, is_training):
    """Masses [B, K], second moments [B, any] of unit length, `Codebook`."""
    depth = frames.shape.as_list()[2]
    is_sketched = 0 < self._sketch_size < depth * (depth + 1) // 2
    if not self._sketch_size:
      size = min(self._projection_size, depth)
      projection = tf.get_variable(
        "projection",
        [depth, size],
        initializer=tf.random_normal_initializer(stddev=depth**-0.5),
      )
      frames = linear_lib.product_frames(frames, projection)
      depth = size
    assignments = self._assign(frames, mask, num_clusters, is_training)
    centres = netvlad_lib.make_centres(num_clusters, depth)
    weights = democratic_lib.reweigh(
      assignments,
      frames,
      mask,
      assignments,
      centres,
      self._democratic,
      order=2,
    )
    if is_sketched:
      sketch = second_order.TensorSketch(depth, self._sketch_size)
      sums = sketch.second(frames, mask, weights, centres)
    else:
      products = moments.second(
        frames, mask, weights, centres, group_size=depth
      )
      sums = second_order.upper_triangle(products[:, :, 0])
    sums = netvlad_lib.flatten(sums)
    if self._signed_square_root:
      sums = tf.nn.l2_normalize(second_order.signed_square_root(sums), axis=1)
    mass = moments.zeroth(mask, weights)
    return mass, sums, Codebook(frames, assignments, centres)


def split_features(frames, feature_sizes):
  """Cuts frames [B, T, D] into one [B, T, size] for each feature.

  Args:
    frames: float32 tensor, D static, or `AffineFrames`.
    feature_sizes: list of int.

  Returns:
    list of what frames is.

  Raises:
    ValueError: the sizes do not sum to D.
  """
  depth = frames.shape.as_list()[2]
  if sum(feature_sizes) != depth:
    raise ValueError(
      f"Feature sizes {feature_sizes} sum to {sum(feature_sizes)}, but the "
      f"frames have {depth} dimensions."
    )
  if isinstance(frames, AffineFrames):
    return frames.split(feature_sizes)
  return tf.split(frames, feature_sizes, axis=2)


def feature_scope(prefix, feature_name):
  """A variable scope for a feature: its name where a scope may have it."""
  return f"{prefix}_{re.sub('[^A-Za-z0-9_.-]', '_', feature_name)}"


def share_clusters(cluster_sizes, feature_sizes, divisor):
  """Centres for each feature.

  Args:
    cluster_sizes: list of int >= 1, either one for each feature, or one in all:
      that of the widest feature (the first of them).
    feature_sizes: list of int.
    divisor: int, the others get this part of the widest's, at least 1.

  Returns:
    list of int, one for each feature.

  Raises:
    ValueError: another number of sizes, or a size < 1.
  """
  if min(cluster_sizes, default=0) < 1:
    raise ValueError(f"Need cluster sizes >= 1, got {cluster_sizes}.")
  if not feature_sizes:
    raise ValueError("Need at least one feature, got no feature size.")
  if len(cluster_sizes) == len(feature_sizes):
    return list(cluster_sizes)
  if len(cluster_sizes) != 1:
    raise ValueError(
      f"Got {len(cluster_sizes)} cluster sizes {cluster_sizes} for "
      f"{len(feature_sizes)} features: give one, or one for each."
    )
  widest = feature_sizes.index(max(feature_sizes))
  total = cluster_sizes[0]
  return [
    total if i == widest else max(1, total // divisor)
    for i in range(len(feature_sizes))
  ]
