"""What the models that pool frames around centres share.

Each feature (rgb, audio, ...) is pooled on its own; the descriptors are
concatenated and classified through a hidden layer with context gating. The
models differ in `_pool`, and the equations are in `pooling/`.

Axes: B videos, T frames, D features, K centres, C classes.
"""

import abc
import re
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from models import frame_level
from pooling import frames as frames_lib
from pooling import gating as gating_lib
from pooling import linear as linear_lib
from pooling import netvlad as netvlad_lib
from pooling import regularizers
from pooling.affine_frames import AffineFrames, formed
from pooling.dropout import dropout
from pooling.mode import Mode

# Of the hidden layer's biases at the start, in WILLOW's code.
_BIASES_STDDEV = 0.01


class Codebook(NamedTuple):
  """Centres, and what was assigned to them: what penalties look at.

  Attributes:
    frames: float32 [B, T, D].
    assignments: float32 [B, T, K].
    centres: float32 [K, D], or None.
  """

  frames: Any
  assignments: Any
  centres: Any


class PooledModel(frame_level.SampledFramesModel, abc.ABC):
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
    self._add_batch_norm = add_batch_norm
    self._batch_norm_decay = batch_norm_decay

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    precision=None,
    **unused_params,
  ):
    """See `BaseModel.create_model`."""
    mode = Mode(
      is_training=is_training,
      add_batch_norm=self._add_batch_norm,
      batch_norm_decay=self._batch_norm_decay,
      dtype=precision,
    )
    mask = frames_lib.frame_mask(model_input, num_frames)
    frames = frames_lib.normalize_input(model_input, mask, mode=mode)
    descriptors, penalties = [], {}
    for name, feature, num_clusters in zip(
      self._feature_names,
      split_features(frames, self._feature_sizes),
      self._cluster_sizes,
      strict=True,
    ):
      descriptor, codebooks = self._pool(
        feature, mask, name, num_clusters, mode
      )
      descriptors.append(descriptor)
      for book in codebooks:
        found = regularizers.penalties(
          book.frames, mask, book.assignments, book.centres, self._penalties
        )
        for kind, value in found.items():
          penalties[kind] = penalties.get(kind, 0.0) + value
    hidden = self._hidden(tf.concat(descriptors, axis=1), mode)
    if self._gating:
      hidden = gating_lib.context_gating(
        hidden, remove_diag=self._gating_remove_diag, mode=mode
      )
    result = self._classifier.create_model(
      hidden, vocab_size, is_training=is_training
    )
    if penalties:
      result["regularization_losses"] = penalties
    return result

  def _hidden(self, descriptor, mode):
    """The layer after pooling: float32 [B, hidden_size]."""
    weights_stddev = None
    if not self._hidden_batch_norm:
      weights_stddev = max(self._cluster_sizes) ** -0.5
    hidden = linear_lib.linear(
      dropout(
        descriptor, self._descriptor_dropout, is_training=mode.is_training
      ),
      self._hidden_size,
      mode=mode.with_batch_norm(self._hidden_batch_norm),
      weights_stddev=weights_stddev,
      biases_stddev=_BIASES_STDDEV,
      scope="hidden1",
    )
    return tf.nn.relu6(hidden) if self._relu else hidden

  @abc.abstractmethod
  def _pool(self, frames, mask, name, num_clusters, mode):
    """Pools one feature.

    Args:
      frames: float32 [B, T, D] of the feature, or `AffineFrames` of it.
      mask: bool [B, T], True on real frames.
      name: str, the feature's.
      num_clusters: int, its K.
      mode: `Mode`.

    Returns:
      (float32 [B, any] descriptor, list of `Codebook`).
    """

  def _vlad(self, frames, mask, assignments, mode, residuals=True):
    """VLAD around centres of its own: (float32 [B, K, D], `Codebook`)."""
    centres = None
    if residuals:
      centres = netvlad_lib.make_centres(
        assignments.shape.as_list()[2], frames.shape.as_list()[2]
      )
    sums = netvlad_lib.vlad(
      frames,
      mask,
      assignments,
      centres,
      democratic=self._democratic,
      dtype=mode.dtype,
    )
    return sums, Codebook(formed(frames), assignments, centres)


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
