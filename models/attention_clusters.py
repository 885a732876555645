"""Attention clusters. Axes: B videos, T frames, D features, K units."""

import dataclasses

from console import flag_fields
from models import configs, pooled, registry
from pooling import attention_clusters as clusters_lib


@registry.register()
class AttentionClustersModel(pooled.PooledModel):
  """Attention clusters with the shifting operation (Long et al. 2018).

  Equation (1) of the paper, whose authors saw it overfit YouTube-8M.

  Attributes:
    clusters: dict of each feature's name to its number of units.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(configs.Centres, configs.Pooled, group="Attention"):
    """The flags."""

    netvlad_cluster_size: str = "32"
    attention_clusters_hidden_size: int = flag_fields.integer(
      0,
      "Tanh units between frames and scores of AttentionClustersModel; 0 for "
      "linear scores.",
      low=0,
    )

  def __init__(self, config=None, **kwargs):
    """See `PooledModel`.

    Raises:
      ValueError: see `PooledModel`, or cluster sizes that do not fit the
        features.
    """
    super().__init__(config, **kwargs)
    self.clusters = self._share_clusters(self.config.cluster_size)

  def _pool(self, frames, mask, name, mode):
    descriptor = clusters_lib.attention_clusters(
      frames,
      mask,
      num_clusters=self.clusters[name],
      hidden_size=self.config.attention_clusters_hidden_size,
      mode=mode,
      scope=pooled.feature_scope("attention_clusters", name),
    )
    return descriptor, []
