"""What the models share that make a descriptor of a video's frames.

Each feature (rgb, audio, ...), and each part of a video in time, is pooled on
its own; the descriptors are concatenated and classified through a hidden layer
with context gating. The models differ in `_pool`, and the equations are in
`pooling/`.

Axes: B videos, T frames, D features, K centres, C classes.
"""

import abc
import contextlib
import re
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, frame_level
from pooling import frames as frames_lib
from pooling import gating as gating_lib
from pooling import hidden as hidden_lib
from pooling import netvlad as netvlad_lib
from pooling import regularizers, temporal
from pooling.affine_frames import AffineFrames, formed
from pooling.dropout import dropout
from pooling.mode import Mode


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
  """A descriptor of each feature; then a hidden layer, gates, a classifier.

  A subclass says in `_pool` how frames become a descriptor.
  """

  Config: type[configs.AnyPooled] = configs.Pooled

  # The part of the widest feature's centres that the other features get.
  cluster_divisor = 4
  # Deviation of the hidden layer's weights at the start where it has no batch
  # norm; None for that of `linear`.
  _hidden_stddev = None

  def __init__(self, config=None, **kwargs):
    """See `BaseModel`.

    Raises:
      ValueError: features whose names make the same scope.
    """
    super().__init__(config, **kwargs)
    names = [feature.name for feature in self.features]
    if len({feature_scope("", name) for name in names}) < len(names):
      raise ValueError(
        "Need feature names that differ in letters, digits, _, - or ., got "
        f"{names}."
      )

  def select_frames(self, num_frames, is_training):
    """See `FrameLevelModel.select_frames`; parts in time need their order."""
    indices, num_real = super().select_frames(num_frames, is_training)
    if self.config.temporal_parts > 1:
      indices = tf.sort(indices, axis=1)
    return indices, num_real

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
      add_batch_norm=self.config.add_batch_norm,
      batch_norm_decay=self.config.batch_norm_decay,
      dtype=precision,
    )
    mask = frames_lib.frame_mask(model_input, num_frames)
    frames = self._normalize_input(model_input, mask, mode)
    descriptors, penalties = [], {}
    parts = temporal.cut(frames, mask, self.config.temporal_parts)
    for i, (part, part_mask) in enumerate(parts):
      with tf.variable_scope(f"part{i}") if i else contextlib.nullcontext():
        descriptors += self._pool_features(part, part_mask, mode, penalties)
    hidden = self._hidden(tf.concat(descriptors, axis=1), mode)
    if self.config.has_gates:
      hidden = self._gate(hidden, mode)
    result = self.classifier.create_model(
      hidden, vocab_size, is_training=is_training
    )
    result["descriptor"] = hidden
    if penalties:
      result["regularization_losses"] = penalties
    return result

  def _pool_features(self, frames, mask, mode, penalties):
    """The features' descriptors; adds to the penalties {kind: scalar}."""
    sizes = [feature.size for feature in self.features]
    parts = split_features(frames, sizes)
    descriptors = []
    for feature, part in zip(self.features, parts, strict=True):
      pooled = self._pool(part, mask, feature.name, mode)
      if not isinstance(pooled, tuple):
        raise TypeError(
          f"{type(self).__name__}._pool returns {pooled}: return a pair of the "
          "descriptor and a list of codebooks, which may be []."
        )
      descriptor, codebooks = pooled
      descriptors.append(descriptor)
      for book in codebooks:
        found = regularizers.penalties(
          book.frames,
          mask,
          book.assignments,
          book.centres,
          self.config.penalties,
        )
        for kind, value in found.items():
          penalties[kind] = penalties.get(kind, 0.0) + value
    return descriptors

  def _normalize_input(self, frames, mask, mode):
    """What is pooled of the model's input: [B, T, D], or `AffineFrames`."""
    return frames_lib.normalize_input(frames, mask, mode=mode)

  def _gate(self, hidden, mode):
    """The hidden layer through context gates."""
    config = self.config
    if config.gating_reduction:
      return gating_lib.bottleneck_gating(
        hidden, reduction=config.gating_reduction, mode=mode
      )
    return gating_lib.context_gating(
      hidden, remove_diag=config.gating_remove_diag, mode=mode
    )

  def _hidden(self, descriptor, mode):
    """What the classifier sees, before gates: float32 [B, any]."""
    descriptor = dropout(
      descriptor, self.config.descriptor_dropout, is_training=mode.is_training
    )
    if self.config.hidden is None:
      return descriptor
    return hidden_lib.hidden(
      descriptor,
      config=self.config.hidden,
      mode=mode,
      weights_stddev=self._hidden_stddev,
    )

  def _share_clusters(self, cluster_sizes):
    """{feature: centres}, of a flag such as --netvlad_cluster_size."""
    shares = share_clusters(
      flag_fields.parse_ints(cluster_sizes),
      [feature.size for feature in self.features],
      divisor=self.cluster_divisor,
    )
    return {feature.name: k for feature, k in zip(self.features, shares)}

  @abc.abstractmethod
  def _pool(self, frames, mask, name, mode):
    """Pools one feature.

    Args:
      frames: float32 [B, T, D] of the feature, or `AffineFrames` of it.
      mask: bool [B, T], True on real frames.
      name: str, the feature's.
      mode: `Mode`.

    Returns:
      (float32 [B, any] descriptor, list of `Codebook` to be penalised).
    """


class SharedClustersModel(PooledModel):
  """What the models share in which features have different numbers of units.

  Their configuration says `cluster_size`: units of the widest feature, or of
  each in a comma list.

  Attributes:
    clusters: dict of each feature's name to its number of centres or units.
  """

  def __init__(self, config=None, **kwargs):
    """See `PooledModel`.

    Raises:
      ValueError: features whose names make the same scope, or cluster sizes
        that do not fit the features.
    """
    super().__init__(config, **kwargs)
    self.clusters = self._share_clusters(self.config.cluster_size)
    # WILLOW's layer.
    self._hidden_stddev = max(self.clusters.values()) ** -0.5


class ClusteredModel(SharedClustersModel):
  """What the models share that pool frames around centres."""

  Config: type[configs.AnyClustered] = configs.Clustered

  def _assign(self, frames, mask, num_clusters, mode):
    """Assignments as --assignment has them: float32 [B, T, K]."""
    return netvlad_lib.soft_assignments(
      frames,
      mask,
      num_clusters=num_clusters,
      mode=mode,
      method=self.config.assignment,
    )

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
      democratic=self.config.democratic,
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
