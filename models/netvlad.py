"""Gated NetVLAD. Axes: B videos, T frames, D features, K centres."""

import tensorflow.compat.v1 as tf

from models import pooled as pooled_lib
from pooling import netvlad as netvlad_lib


class NetVLADModelLF(pooled_lib.PooledModel):
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

  def _pool(self, frames, mask, name, num_clusters, mode):
    with tf.variable_scope(pooled_lib.feature_scope("netvlad", name)):
      assignments = netvlad_lib.soft_assignments(
        frames, mask, num_clusters=num_clusters, mode=mode
      )
      sums, book = self._vlad(frames, mask, assignments, mode, self._residuals)
    return netvlad_lib.descriptor(sums), [book]
