"""Second-order whitened NetVLAD: the paper's section 3.3.

Axes: B videos, T frames, D features, K centres.
"""

import tensorflow.compat.v1 as tf

from models import pooled as pooled_lib
from pooling import democratic as democratic_lib
from pooling import moments, second_order, whitening
from pooling import netvlad as netvlad_lib
from pooling.affine_frames import formed

WHITENINGS = ("group", "diagonal", "none")


class SecondOrderModel(pooled_lib.PooledModel):
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

  def __init__(
    self,
    *,
    residual_whitening,
    whitening_group_size,
    second_order_cluster_sizes,
    projection_size,
    sketch_size,
    signed_square_root,
    **pooled,
  ):
    """Keeps the configuration.

    Args:
      residual_whitening: one of `WHITENINGS`: decorrelate within groups of
        features, scale each feature, or neither.
      whitening_group_size: int >= 1, features in a group.
      second_order_cluster_sizes: as `cluster_sizes`, of the second order.
      projection_size: int >= 1, dimensions that frames are projected to, at
        most the feature's own; unused with a sketch.
      sketch_size: int, dimensions of the Tensor Sketch of unprojected
        residuals; 0 for the projection. A feature of D dimensions whose
        D (D + 1) / 2 products are no more than that has them as they are.
      signed_square_root: bool, power-normalise the second order.
      **pooled: see `PooledModel`.

    Raises:
      ValueError: unknown residual_whitening.
    """
    super().__init__(**pooled)
    if residual_whitening not in WHITENINGS:
      raise ValueError(
        f"residual_whitening is one of {WHITENINGS}, got "
        f"{residual_whitening!r}."
      )
    self._group_size = {
      "group": whitening_group_size,
      "diagonal": 1,
      "none": None,
    }[residual_whitening]
    self._second_order_cluster_sizes = dict(
      zip(
        self._feature_names,
        pooled_lib.share_clusters(
          second_order_cluster_sizes,
          self._feature_sizes,
          divisor=self.cluster_divisor,
        ),
        strict=True,
      )
    )
    self._projection_size = projection_size
    self._sketch_size = sketch_size
    self._signed_square_root = signed_square_root

  def _pool(self, frames, mask, name, num_clusters, mode):
    frames = formed(frames)
    with tf.variable_scope(pooled_lib.feature_scope("first_order", name)):
      mass, first, first_book = self._first_order(
        frames, mask, num_clusters, mode
      )
    with tf.variable_scope(pooled_lib.feature_scope("second_order", name)):
      second_mass, second, second_book = self._second_order(
        frames, mask, self._second_order_cluster_sizes[name], mode
      )
    descriptor = tf.concat(
      [
        tf.nn.l2_normalize(mass, axis=1),
        netvlad_lib.descriptor(first),
        tf.nn.l2_normalize(second_mass, axis=1),
        second,
      ],
      axis=1,
    )
    return descriptor, [first_book, second_book]

  def _first_order(self, frames, mask, num_clusters, mode):
    """Masses [B, K], sums of whitened unit residuals [B, K, D], `Codebook`."""
    assignments = netvlad_lib.soft_assignments(
      frames, mask, num_clusters=num_clusters, mode=mode
    )
    centres = netvlad_lib.make_centres(num_clusters, frames.shape.as_list()[2])
    distances = moments.squared_distances(frames, mask, centres)
    weights = democratic_lib.reweigh(
      assignments,
      frames,
      mask,
      moments.per_length(assignments, distances, 1),
      centres,
      self._democratic,
    )
    if self._group_size is None:
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
        group_size=self._group_size,
        mode=mode,
      )
    mass = moments.zeroth(mask, weights)
    return mass, first, pooled_lib.Codebook(frames, assignments, centres)

  def _second_order(self, frames, mask, num_clusters, mode):
    """Masses [B, K], second moments [B, any] of unit length, `Codebook`."""
    depth = frames.shape.as_list()[2]
    is_sketched = 0 < self._sketch_size < depth * (depth + 1) // 2
    if not self._sketch_size:
      size = min(self._projection_size, depth)
      projection = tf.get_variable(
        "projection",
        [depth, size],
        initializer=tf.random_normal_initializer(stddev=depth**-0.5),
      )
      frames = tf.einsum("btd,dp->btp", frames, projection)
      depth = size
    assignments = netvlad_lib.soft_assignments(
      frames, mask, num_clusters=num_clusters, mode=mode
    )
    centres = netvlad_lib.make_centres(num_clusters, depth)
    weights = democratic_lib.reweigh(
      assignments,
      frames,
      mask,
      assignments,
      centres,
      self._democratic,
      order=2,
    )
    if is_sketched:
      sketch = second_order.TensorSketch(depth, self._sketch_size)
      sums = sketch.second(frames, mask, weights, centres)
    else:
      products = moments.second(
        frames, mask, weights, centres, group_size=depth
      )
      sums = second_order.upper_triangle(products[:, :, 0])
    sums = netvlad_lib.flatten(sums)
    if self._signed_square_root:
      sums = tf.nn.l2_normalize(second_order.signed_square_root(sums), axis=1)
    mass = moments.zeroth(mask, weights)
    return mass, sums, pooled_lib.Codebook(frames, assignments, centres)
