"""NetVLAD pooling. Axes: B videos, T frames, D features, K centres."""

import tensorflow.compat.v1 as tf

from pooling import democratic as democratic_lib
from pooling import linear as linear_lib
from pooling import moments, observe, scaling, sinkhorn
from pooling.affine_frames import formed
from pooling.frames import zero_padding

# How frames choose their centres: each alone, or all of a video by a transport
# plan with a dustbin, see `sinkhorn`.
ASSIGNMENTS = ("softmax", "sinkhorn")


def soft_assignments(
  frames,
  mask,
  *,
  num_clusters,
  mode,
  method="softmax",
  scope="assign",
):
  """Similarities a_j of frames to centres: a softmax of a linear map.

  Arandjelovic et al. 2016 (arXiv:1511.07247), equation (3), with a map that is
  free of the centres; batch-normalised over the real frames or with a bias
  (Miech et al. 2017).

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    num_clusters: int, K >= 1.
    mode: `Mode`, see `linear`.
    method: one of `ASSIGNMENTS`; "sinkhorn" makes the variable `dustbin` in the
      current scope.
    scope: variable scope, see `linear`.

  Returns:
    float32 [B, T, K]; 0 on padding, rows of real frames sum to 1, or to less
    with "sinkhorn".

  Raises:
    ValueError: bad rank, unknown D, K < 1, or another method.
  """
  logits = linear_lib.linear_frames(
    frames, mask, num_clusters, mode=mode, scope=scope
  )
  return assign(logits, mask, method)


def assign(logits, mask, method):
  """Assignments of frames' logits.

  Args:
    logits: float [B, T, K], K static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    method: one of `ASSIGNMENTS`.

  Returns:
    float [B, T, K], see `soft_assignments`.

  Raises:
    ValueError: another method.
  """
  if method not in ASSIGNMENTS:
    raise ValueError(f"method is one of {ASSIGNMENTS}, got {method!r}.")
  if method == "sinkhorn":
    assignments = sinkhorn.assignments(logits, mask)
  else:
    # Softmax runs over K, so padding is zeroed after it, not before.
    assignments = zero_padding(tf.nn.softmax(logits), mask)
  observe.note("assignments", assignments)
  return assignments


def make_centres(num_clusters, depth, stddev=None):
  """The variable `centres`, float32 [K, D], in the current scope.

  Args:
    num_clusters: int, K.
    depth: int, D.
    stddev: float, their deviation at the start; None for D**-0.5.

  Returns:
    The variable.
  """
  return tf.get_variable(
    "centres",
    [num_clusters, depth],
    initializer=tf.random_normal_initializer(
      stddev=depth**-0.5 if stddev is None else stddev
    ),
  )


def vlad(frames, mask, assignments, centres, *, democratic, dtype=None):
  """Sums residuals to each centre: equation (3) of the paper.

  VLAD(j, i) = sum_k a_j(x_k) (x_k(i) - c_j(i)), not yet normalised.

  Args:
    frames: float32 [B, T, D], D static, or `AffineFrames`; padding may hold any
      finite value.
    mask: bool [B, T], True on real frames.
    assignments: float32 [B, T, K], a.
    centres: float32 [K, D], or None for no centre to subtract: NetRVLAD, "light
      VLAD" (Miech et al. 2017, section 3.2).
    democratic: `democratic.Config`, for the lambda of equation (4).
    dtype: of the products, see `products.matmul`.

  Returns:
    float32 [B, K, D]; zeros for an empty video.
  """
  weights = democratic_lib.reweigh(
    assignments, formed(frames), mask, assignments, centres, democratic
  )
  return moments.first(frames, mask, weights, centres, dtype=dtype)


def gate_sums(sums):
  """Gates on each centre's sum, the same for all videos: NetVLAGD.

  The sums are of frames, without a centre, see `vlad`. NetVLAGD stands in
  WILLOW's code alone (Miech et al. 2017); its variable `gate_weights` [K, D]
  is in the current scope.

  Args:
    sums: float32 [B, K, D], K and D static.

  Returns:
    float32 [B, K, D].
  """
  _, num_clusters, depth = sums.shape.as_list()
  weights = tf.get_variable(
    "gate_weights",
    [num_clusters, depth],
    initializer=tf.random_normal_initializer(stddev=depth**-0.5),
  )
  return sums * tf.sigmoid(weights)


def descriptor(sums):
  """Scales each centre's sum to unit length, then all of them together.

  The intra-normalisation of Arandjelovic et al. 2016, and that of the whole.

  Args:
    sums: float32 [B, K, D], K and D static.

  Returns:
    float32 [B, K * D], D fastest; zeros for an empty video.
  """
  _, num_clusters, depth = sums.shape.as_list()

  def factors_of(squares):  # [B, K, 1]
    of_centres = scaling.to_unit(squares)
    total = tf.reduce_sum(
      squares * tf.square(of_centres), axis=1, keepdims=True
    )
    return of_centres * scaling.to_unit(total)

  units = scaling.scaled(sums, factors_of)
  return tf.reshape(units, [-1, num_clusters * depth])


def flatten(sums):
  """One descriptor of all centres' sums, of unit length.

  Args:
    sums: float32 [B, K, D], K and D static.

  Returns:
    float32 [B, K * D], D fastest; zeros for an empty video.
  """
  _, num_clusters, depth = sums.shape.as_list()
  flat = tf.reshape(sums, [-1, num_clusters * depth])
  return scaling.scaled(flat, scaling.to_unit)
