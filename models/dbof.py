"""Deep bags of frames. Axes: B videos, T frames, D features, C classes."""

import abc
import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, frame_level, pooled, registry
from pooling import dbof as dbof_lib
from pooling import frames as frames_lib
from pooling import hidden as hidden_lib
from pooling import linear as linear_lib
from pooling.mode import Mode


@dataclasses.dataclass(frozen=True)
class _Bag(flag_fields.Config, group="DBoF"):
  """Of every bag."""

  dbof_cluster_size: int = flag_fields.integer(
    8192,
    "Units of the cluster layer; those of the widest feature in the models "
    "...LF, in which the others get an eighth.",
    low=1,
  )
  dbof_hidden_size: int = flag_fields.integer(
    1024,
    "Units of the hidden layer after the bag.",
    low=1,
    used_if=lambda config: config.has_hidden,
  )
  dbof_add_batch_norm: bool = flag_fields.boolean(
    True, "Batch norm on the bag's input and layers."
  )

  @property
  def has_hidden(self):
    """Whether there is a hidden layer."""
    return True


@dataclasses.dataclass(frozen=True)
class _Activated(flag_fields.Config, group="DBoF"):
  """Of bags of units that are no softmax."""

  dbof_activation: str = flag_fields.choice(
    "sigmoid",
    ("relu", "relu6", "sigmoid"),
    "Activation of the bag's units, and in DbofModel of its hidden layer.",
  )


@registry.register()
class DbofModel(frame_level.SampledFramesModel):
  """Deep bag of frames (Abu-El-Haija et al. 2016, section 4.1.2)."""

  @dataclasses.dataclass(frozen=True)
  class Config(
    _Bag,
    _Activated,
    configs.Classified,
    configs.Sampling,
    configs.BatchNorm,
    group="DBoF",
  ):
    """The flags."""

    dbof_pooling_method: str = flag_fields.choice(
      "max", ("average", "max"), "How DbofModel pools over frames."
    )

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
    config = self.config
    mode = Mode(
      is_training=is_training,
      add_batch_norm=config.dbof_add_batch_norm,
      batch_norm_decay=config.batch_norm_decay,
      dtype=precision,
    )
    mask = frames_lib.frame_mask(model_input, num_frames)
    frames = frames_lib.normalize_input(model_input, mask, mode=mode)
    bag = dbof_lib.dbof(
      frames,
      mask,
      num_clusters=config.dbof_cluster_size,
      pooling_method=config.dbof_pooling_method,
      activation=config.dbof_activation,
      mode=mode,
    )
    hidden = linear_lib.linear(
      bag, config.dbof_hidden_size, mode=mode, scope="hidden1"
    )
    hidden = dbof_lib.ACTIVATIONS[config.dbof_activation](hidden)
    result = self.classifier.create_model(
      hidden, vocab_size, is_training=is_training
    )
    return {**result, "descriptor": hidden}


class _BagModelLF(pooled.SharedClustersModel, abc.ABC):
  """What WILLOW's bags share: each feature has one, then a hidden layer."""

  cluster_divisor = 8

  @dataclasses.dataclass(frozen=True)
  class Config(_Bag, configs.AnyPooled, group="DBoF"):
    """The flags, with the defaults of WILLOW's code."""

    dbof_cluster_size: int = 16384
    dbof_hidden_size: int = 2048
    dbof_relu: bool = flag_fields.boolean(
      True,
      "ReLU6 and batch norm on the hidden layer after the bags of the models "
      "...LF; else a bias.",
      used_if=lambda config: config.has_hidden,
    )

    @property
    def cluster_size(self):
      """See `pooled.SharedClustersModel`."""
      return self.dbof_cluster_size

    @property
    def add_batch_norm(self):
      """See `configs.AnyPooled`."""
      return self.dbof_add_batch_norm

    @property
    def hidden(self):
      """See `configs.AnyPooled`."""
      if not self.has_hidden:
        return None
      return hidden_lib.Config(
        self.dbof_hidden_size, self.dbof_relu, add_batch_norm=self.dbof_relu
      )

  def _pool(self, frames, mask, name, mode):
    with tf.variable_scope(pooled.feature_scope("dbof", name)):
      return self._bag(frames, mask, name, self.clusters[name], mode), []

  @abc.abstractmethod
  def _bag(self, frames, mask, name, clusters, mode):
    """One feature's bag: float32 [B, any]."""


@registry.register()
class DbofModelLF(_BagModelLF):
  """Deep bag of frames with late fusion (Miech, Laptev, Sivic 2017).

  Mean and maximum over the frames, each of unit length. The activation is what
  the authors' code names; a slip there leaves it out.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(_BagModelLF.Config, _Activated, group="DBoF"):
    """The flags."""

    dbof_activation: str = "relu6"

  def _bag(self, frames, mask, name, clusters, mode):
    return dbof_lib.mean_and_max(
      frames,
      mask,
      num_clusters=clusters,
      activation=self.config.dbof_activation,
      mode=mode,
    )


@dataclasses.dataclass(frozen=True)
class _SoftConfig(_BagModelLF.Config, group="DBoF"):
  """Of soft bags."""

  softdbof_maxpool: bool = flag_fields.boolean(
    False, "Soft bags hold the maxima over the frames too."
  )
  fc_dimred: bool = flag_fields.boolean(
    True, "A hidden layer after soft bags; else the classifier sees them."
  )

  @property
  def has_hidden(self):
    """See `_Bag`."""
    return self.fc_dimred


@registry.register()
class SoftDbofModelLF(_BagModelLF):
  """Soft bag of words with late fusion (Miech, Laptev, Sivic 2017)."""

  Config = _SoftConfig

  def _bag(self, frames, mask, name, clusters, mode):
    return dbof_lib.soft(
      frames,
      mask,
      num_clusters=clusters,
      mode=mode,
      with_max=self.config.softdbof_maxpool,
    )


@registry.register()
class GatedDbofModelLF(SoftDbofModelLF):
  """Gated bag of words with late fusion (Miech, Laptev, Sivic 2017).

  The widest feature's bag is gated; the others have a soft one.
  """

  def _bag(self, frames, mask, name, clusters, mode):
    if name != max(self.features, key=lambda feature: feature.size).name:
      return super()._bag(frames, mask, name, clusters, mode)
    return dbof_lib.gated(frames, mask, num_clusters=clusters, mode=mode)
