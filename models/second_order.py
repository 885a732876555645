"""Second-order whitened NetVLAD: the paper's section 3.3.

Axes: B videos, T frames, D features, K centres.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, pooled, registry
from pooling import democratic as democratic_lib
from pooling import frames as frames_lib
from pooling import (
  moments,
  products,
  scaling,
  second_moments,
  second_order,
  whitening,
)
from pooling import netvlad as netvlad_lib
from pooling.affine_frames import formed


@registry.register()
class SecondOrderModel(pooled.ClusteredModel):
  """Regularised function approximation (section 3.3, figure 3).

  The embedding of equation (7): of each centre the mass a_j, the sum of its
  whitened unit residuals (equations 5, 6, 8), and the sum of outer products of
  residuals. The latter have centres and assignments of their own, around
  linearly projected frames as in the paper, or as a sketch of the unprojected
  ones, which the paper could not afford. 0.865 in the paper's table 1.

  Where the paper is silent, each part is brought to unit length on its own, so
  that none drowns the others: the masses as they are, the first order centre by
  centre as in NetVLAD, the second order as a whole after its signed square
  root. Democratic weights are those of the residuals before whitening, whose
  Gram matrix has a closed form, and weigh the masses too.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(configs.Paper, group="Second order"):
    """The flags."""

    residual_whitening: str = flag_fields.choice(
      "group",
      ("group", "diagonal", "none"),
      "Whitening of unit residuals in SecondOrderModel: decorrelate features "
      "within groups, scale each feature, or none.",
    )
    whitening_group_size: int = flag_fields.integer(
      16,
      "Neighbouring features that are decorrelated together; cost and memory "
      "grow with it.",
      low=1,
      used_if=lambda config: config.residual_whitening == "group",
    )
    second_order_cluster_size: str = flag_fields.integers(
      "2",
      "Centres of the second order, as --netvlad_cluster_size. More cost more "
      "and have not been better; a larger projection has.",
    )
    second_order_projection_size: int | None = flag_fields.integer(
      None,
      "Dimensions that each feature is projected to before its second order is "
      "taken; P dimensions give P (P + 1) / 2 numbers a centre. Half of the "
      "feature's own, 64 at most, if not given; 0: a quarter, 64 at most.",
      low=0,
      used_if=lambda config: not config.second_order_sketch_size,
    )
    second_order_sketch_size: int = flag_fields.integer(
      0,
      "Instead of projecting, take a Tensor Sketch (Pham & Pagh 2013) of so "
      "many dimensions of the full-size residuals' second order, or the second "
      "order itself where it has no more; 0 for the projection.",
      low=0,
    )
    signed_square_root: bool = flag_fields.boolean(
      True,
      "Power-normalise the second order: sign(x) sqrt(|x|), as FAemb does.",
    )

    @property
    def group_size(self):
      """Features that are whitened together; None for no whitening."""
      groups = {"diagonal": 1, "none": None}
      return groups.get(self.residual_whitening, self.whitening_group_size)

    def projection_size(self, depth):
      """What a feature of `depth` dimensions is projected to."""
      size = self.second_order_projection_size
      if size:
        return min(size, depth)
      return max(1, min(depth // (2 if size is None else 4), 64))

  def __init__(self, config=None, **kwargs):
    """See `ClusteredModel`."""
    super().__init__(config, **kwargs)
    self._second_order_clusters = self._share_clusters(
      self.config.second_order_cluster_size
    )

  def _pool(self, frames, mask, name, mode):
    with tf.variable_scope(pooled.feature_scope("first_order", name)):
      mass, first, first_book = self._first_order(
        frames, mask, self.clusters[name], mode
      )
    with tf.variable_scope(pooled.feature_scope("second_order", name)):
      second_mass, second, second_book = self._second_order(
        frames, mask, self._second_order_clusters[name], mode
      )
    descriptor = tf.concat(
      [
        scaling.scaled(mass, scaling.to_unit),
        netvlad_lib.descriptor(first),
        scaling.scaled(second_mass, scaling.to_unit),
        second,
      ],
      axis=1,
    )
    return descriptor, [first_book, second_book]

  def _normalize_input(self, frames, mask, mode):
    return frames_lib.normalize_input(frames, mask, mode=mode, centred=True)

  def _first_order(self, frames, mask, num_clusters, mode):
    """Masses [B, K], sums of whitened unit residuals [B, K, D], `Codebook`."""
    assignments = self._assign(frames, mask, num_clusters, mode)
    centres = netvlad_lib.make_centres(num_clusters, frames.shape.as_list()[2])
    distances = moments.squared_distances(frames, mask, centres)
    weights = democratic_lib.reweigh(
      assignments,
      formed(frames),
      mask,
      moments.per_length(assignments, distances, 1),
      centres,
      self.config.democratic,
    )
    if self.config.group_size is None:
      first = moments.first(
        frames,
        mask,
        moments.per_length(weights, distances, 1),
        centres,
        dtype=mode.dtype,
      )
    else:
      first = whitening.whitened_sum(
        frames,
        mask,
        weights,
        centres,
        distances,
        group_size=self.config.group_size,
        mode=mode,
      )
    mass = moments.zeroth(None, weights)
    return mass, first, pooled.Codebook(formed(frames), assignments, centres)

  def _second_order(self, frames, mask, num_clusters, mode):
    """Masses [B, K], second moments [B, any] of unit length, `Codebook`."""
    depth = frames.shape.as_list()[2]
    sketch_size = self.config.second_order_sketch_size
    if sketch_size:
      frames = formed(frames)
    is_sketched = 0 < sketch_size < depth * (depth + 1) // 2
    if not sketch_size:
      size = self.config.projection_size(depth)
      projection = tf.get_variable(
        "projection",
        [depth, size],
        initializer=tf.random_normal_initializer(stddev=depth**-0.5),
      )
      frames = products.of_frames(frames, projection)
      depth = size
    assignments = self._assign(frames, mask, num_clusters, mode)
    centres = netvlad_lib.make_centres(num_clusters, depth)
    weights = democratic_lib.reweigh(
      assignments,
      frames,
      mask,
      assignments,
      centres,
      self.config.democratic,
      order=2,
    )
    if is_sketched:
      sketch = second_order.TensorSketch(depth, sketch_size)
      sums = sketch.second(frames, mask, weights, centres)
    else:
      sums = second_moments.triangles(frames, mask, weights, centres)
    if self.config.signed_square_root:
      sums = tf.reshape(sums, [-1, num_clusters * sums.shape.as_list()[2]])
      sums = second_order.unit_signed_square_root(sums)
    else:
      sums = netvlad_lib.flatten(sums)
    mass = moments.zeroth(None, weights)
    return mass, sums, pooled.Codebook(frames, assignments, centres)
