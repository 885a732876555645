"""NetFV. Axes: B videos, T frames, D features, K centres."""

import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, pooled, registry
from pooling import democratic as democratic_lib
from pooling import fisher as fisher_lib
from pooling import hidden as hidden_lib
from pooling import netvlad as netvlad_lib
from pooling.affine_frames import formed


@registry.register()
class NetFVModelLF(pooled.ClusteredModel):
  """Gated NetFV with late fusion (Miech, Laptev, Sivic 2017).

  Fisher vectors with learnt centres, deviations and assignments.
  """

  cluster_divisor = 2

  @dataclasses.dataclass(frozen=True)
  class Config(
    configs.Assignment,
    configs.Gated,
    configs.Normed,
    configs.AnyClustered,
    group="NetFV",
  ):
    """The flags, as WILLOW's code has them."""

    fv_cluster_size: str = flag_fields.integers(
      "64", "Centres of NetFVModelLF, as --netvlad_cluster_size."
    )
    fv_hidden_size: int = flag_fields.integer(
      2048, "Units of NetFVModelLF's hidden layer.", low=1
    )
    fv_relu: bool = flag_fields.boolean(
      True,
      "ReLU6 and batch norm on NetFVModelLF's hidden layer; else a bias.",
    )
    fv_couple_weights: bool = flag_fields.boolean(
      True,
      "NetFVModelLF's centres are the weights of its assignments, times "
      "--fv_coupling_factor; else they are learnt on their own.",
    )
    fv_coupling_factor: float = flag_fields.real(
      0.01,
      "See --fv_couple_weights.",
      used_if=lambda config: config.fv_couple_weights,
    )

    @property
    def cluster_size(self):
      """See `pooled.SharedClustersModel`."""
      return self.fv_cluster_size

    @property
    def hidden(self):
      """See `configs.AnyPooled`."""
      return hidden_lib.Config(
        self.fv_hidden_size, self.fv_relu, add_batch_norm=self.fv_relu
      )

  def _pool(self, frames, mask, name, mode):
    clusters, depth = self.clusters[name], frames.shape.as_list()[2]
    with tf.variable_scope(pooled.feature_scope("netfv", name)):
      assignments = self._assign(frames, mask, clusters, mode)
      centres = self._centres(clusters, depth)
      weights = democratic_lib.reweigh(
        assignments,
        formed(frames),
        mask,
        assignments,
        centres,
        self.config.democratic,
      )
      descriptor = fisher_lib.fisher_vector(
        frames,
        mask,
        weights,
        centres,
        fisher_lib.make_deviations(clusters, depth),
        dtype=mode.dtype,
      )
    book = pooled.Codebook(formed(frames), assignments, centres)
    return descriptor, [book]

  def _centres(self, clusters, depth):
    """float32 [K, D], of their own or the assignments' weights."""
    if not self.config.fv_couple_weights:
      return netvlad_lib.make_centres(clusters, depth)
    with tf.variable_scope("assign", reuse=True):
      weights = tf.get_variable("weights", [depth, clusters])
    return self.config.fv_coupling_factor * tf.transpose(weights)
