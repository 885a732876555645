"""Gated NetVLAD. Axes: B videos, T frames, D features, K centres."""

import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, pooled, registry
from pooling import netvlad as netvlad_lib


@registry.register()
class NetVLADModelLF(pooled.ClusteredModel):
  """Gated NetVLAD with late fusion (Miech, Laptev, Sivic 2017).

  The paper's baseline, 0.870 in its table 1: NetVLAD on each feature,
  concatenated, a hidden layer, context gating, mixture of experts.
  """

  cluster_divisor = 2

  @dataclasses.dataclass(frozen=True)
  class Config(configs.Clustered, group="NetVLAD"):
    """The flags. Batch norm only with ReLU: WILLOW's code."""

    lightvlad: bool = flag_fields.boolean(
      False, "NetRVLAD: no centre is subtracted."
    )
    vlagd: bool = flag_fields.boolean(
      False, "NetVLAGD: learned gates instead of centres."
    )
    netvlad_hidden_batch_norm: bool = flag_fields.Derived(
      lambda config: config.netvlad_relu, "what --netvlad_relu is"
    )

    def __post_init__(self):
      super().__post_init__()
      if self.lightvlad and self.vlagd:
        raise ValueError(
          "--lightvlad and --vlagd are two models: give one of them."
        )

    @property
    def has_centres(self):
      """See `configs.Penalties`."""
      return not (self.lightvlad or self.vlagd)

  def _pool(self, frames, mask, name, mode):
    with tf.variable_scope(pooled.feature_scope("netvlad", name)):
      assignments = self._assign(frames, mask, self.clusters[name], mode)
      sums, book = self._vlad(
        frames, mask, assignments, mode, self.config.has_centres
      )
      if self.config.vlagd:
        sums = netvlad_lib.gate_sums(sums)
    return netvlad_lib.descriptor(sums), [book]
