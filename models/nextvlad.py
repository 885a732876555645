"""NeXtVLAD. Axes: B videos, T frames, D features, G groups, K centres."""

import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, mixture, pooled, registry
from pooling import batch_norm as bn
from pooling import linear as linear_lib
from pooling import nextvlad as nextvlad_lib

# Of the rgb features of YouTube-8M, whose PCA it undoes.
_WHITENED = "rgb"
# What the authors subtract from dequantised values, by the range of the bytes,
# and add to the deviations.
_HALF_STEP, _EPSILON = 1.0 / 512.0, 1e-4


@registry.register()
class NeXtVLADModel(pooled.PooledModel):
  """NeXtVLAD (Lin, Xiao, Fan 2018, arXiv:1811.05014).

  The best published single model of the 2018 challenge. A hidden layer without
  activation, squeeze-and-excitation gates and logistic regressions follow. It
  sees all frames, without batch norm on the input.
  """

  cluster_divisor = 2

  @dataclasses.dataclass(frozen=True)
  class Config(
    configs.Gated, configs.Assignment, configs.AnyPooled, group="NeXtVLAD"
  ):
    """The flags, with the defaults of the authors' code."""

    iterations: int = 0
    gating: bool = True
    gating_reduction: int = 8
    descriptor_dropout: float = 0.5
    video_level_classifier_model: str = "LogisticModel"
    nextvlad_cluster_size: str = flag_fields.integers(
      "64",
      "Centres of the widest feature, half for the others, in NeXtVLADModel. "
      "Or a comma list, one for each feature.",
    )
    nextvlad_hidden_size: int = flag_fields.integer(
      1024, "Units of the hidden layer after NeXtVLAD.", low=1
    )
    groups: int = flag_fields.integer(
      8,
      "Groups that a frame's expanded features are cut into; half as many for "
      "features other than the widest.",
      low=1,
    )
    expansion: int = flag_fields.integer(
      2, "Expanded features of a frame over its own.", low=1
    )
    reverse_whitening: str = flag_fields.path(
      "",
      "Undo YouTube-8M's PCA whitening of the feature rgb, as published: a "
      ".npy file of its eigenvalues. Frames are not brought to unit length "
      "then. A new run reads the file; its checkpoints hold what came of it.",
      # The file may have moved since.
      may_change=lambda saved, current: bool(saved) == bool(current),
    )

    @property
    def add_batch_norm(self):
      """See `configs.AnyPooled`."""
      return True

    @property
    def hidden(self):
      """See `configs.AnyPooled`; the model makes its own."""
      return None

  def __init__(self, config=None, **kwargs):
    """See `PooledModel`.

    Raises:
      ValueError: sizes that do not fit the features.
    """
    super().__init__(config, **kwargs)
    config = self.config
    self._clusters = self._share_clusters(config.nextvlad_cluster_size)
    self._groups = self._share_clusters(config.groups)
    for name, size, *_ in self.features:
      try:
        nextvlad_lib.group_size(
          size, expansion=config.expansion, num_groups=self._groups[name]
        )
      except ValueError as error:
        raise ValueError(f"--groups and --feature_sizes: {error}") from None
    if config.reverse_whitening and _WHITENED not in self._groups:
      raise ValueError(
        f"--reverse_whitening is of the feature {_WHITENED}, got features "
        f"{[*self._groups]}."
      )

  def scale_frames(self, frames, is_training):
    """See `FrameLevelModel.scale_frames`; the authors' scale if asked for."""
    if not self.config.reverse_whitening:
      return super().scale_frames(frames, is_training)
    sizes = [feature.size for feature in self.features]
    parts = pooled.split_features(frames, sizes)
    for i, feature in enumerate(self.features):
      if feature.name == _WHITENED:
        half_step = (feature.high - feature.low) * _HALF_STEP
        parts[i] = self._unwhiten(parts[i], half_step, is_training)
    return tf.concat(parts, axis=2)

  def _unwhiten(self, frames, half_step, is_training):
    """Features as they were before their PCA was whitened, [B, T, D]."""
    depth = frames.shape.as_list()[2]
    # A variable: evaluation and export find it in the checkpoint.
    scale = tf.get_variable(
      "reverse_whitening",
      [depth],
      initializer=self._deviations if is_training else tf.zeros_initializer(),
      trainable=False,
    )
    return (frames - half_step) * scale

  def _deviations(self, shape, dtype, partition_info=None):
    """What a new run starts with; an error is one of this initialiser alone.

    A run that goes on does not use it, nor needs the file.
    """
    del partition_info
    try:
      eigenvalues = _eigenvalues(self.config.reverse_whitening, shape[0])
    except ValueError as error:
      with tf.control_dependencies([tf.Assert(False, [str(error)])]):
        return tf.zeros(shape, dtype)
    return tf.constant(np.sqrt(eigenvalues) + _EPSILON, dtype)

  def _normalize_input(self, frames, mask, mode):
    del mask, mode
    return frames

  def _pool(self, frames, mask, name, mode):
    descriptor = nextvlad_lib.nextvlad(
      frames,
      mask,
      num_clusters=self._clusters[name],
      num_groups=self._groups[name],
      expansion=self.config.expansion,
      mode=mode,
      method=self.config.assignment,
      scope=pooled.feature_scope("nextvlad", name),
    )
    scope = pooled.feature_scope("vlad_bn", name)
    return bn.batch_norm(descriptor, mode=mode, scope=scope), []

  def _hidden(self, descriptor, mode):
    descriptor = super()._hidden(descriptor, mode)  # Dropout.
    return linear_lib.linear(
      descriptor,
      self.config.nextvlad_hidden_size,
      mode=mode,
      weights_stddev=linear_lib.he_stddev(descriptor.shape.as_list()[1]),
      scope="hidden1",
    )


@registry.register()
class MixNeXtVladModel(NeXtVLADModel):
  """A mixture of three NeXtVLADs with online distillation (section 3.3)."""

  @dataclasses.dataclass(frozen=True)
  class Config(mixture.Config, NeXtVLADModel.Config, group="NeXtVLAD"):
    """The flags; --mixture=1 is NeXtVLADModel."""

    mixture: int = 3


def _eigenvalues(path, depth):
  """The first eigenvalues of a file, float [depth].

  Raises:
    ValueError: no such file, or not so many numbers >= 0 in it.
  """
  try:
    with tf.io.gfile.GFile(path, "rb") as stream:
      stored = np.load(stream, allow_pickle=False).astype(float).ravel()
  except (OSError, ValueError, EOFError, tf.errors.OpError) as error:
    raise ValueError(
      f"--reverse_whitening={path} can't be read as .npy: {error}"
    ) from None
  found = stored[:depth]
  if len(found) < depth or not (np.isfinite(found) & (found >= 0.0)).all():
    raise ValueError(
      f"--reverse_whitening={path} needs {depth} numbers >= 0 at its start, "
      f"one for each of the feature {_WHITENED}; it has {len(stored)} numbers."
    )
  return found
