"""The floor of every comparison: models that pool frames by an average.

Hidden layer, gates and classifier are those of every `PooledModel`, so that
nothing but the pooling differs. Axes: B videos, T frames, D features.
"""

from models import pooled, registry
from pooling import averages


@registry.register()
class MeanModel(pooled.PooledModel):
  """The mean frame."""

  def _pool(self, frames, mask, name, mode):
    del name, mode
    return averages.mean(frames, mask), []


@registry.register()
class MaxModel(pooled.PooledModel):
  """The largest value of each feature."""

  def _pool(self, frames, mask, name, mode):
    del name, mode
    return averages.maximum(frames, mask), []


@registry.register()
class GemModel(pooled.PooledModel):
  """Generalised mean of a learnt power (Radenovic et al. 2019)."""

  def _pool(self, frames, mask, name, mode):
    del mode
    scope = pooled.feature_scope("gem", name)
    return averages.generalised_mean(frames, mask, scope=scope), []


@registry.register()
class AttentionMeanModel(pooled.PooledModel):
  """The mean frame, weighted by one learnt score of a frame."""

  def _pool(self, frames, mask, name, mode):
    scope = pooled.feature_scope("attention", name)
    return averages.attention_mean(frames, mask, mode=mode, scope=scope), []
