"""Moments of residuals as loops over numbers, and how tests run them.

As in `tests/layers.py` a batch is a list of videos and a video the list of its
real frames, in float64; the functions here take one video.

Axes: B videos, T frames, D features, K centres.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from tests import layers

POISONS = (1e3, 1e30)  # What tests put into padding; squares of 1e30 overflow.
# Ragged with an empty video, an empty video first, and nothing else.
LENGTHS = ([5, 2, 0, 1], [0, 4], [0, 0])


class Graph:
  """A function of a mask and arrays in a graph that knows neither B nor T."""

  def __init__(self, function, *arrays):
    """Builds the graph.

    Args:
      function: takes the mask, bool [B, T], and tensors; returns tensors.
      *arrays: float, examples of the others: those of rank 3 are
        [B, T, anything], the others of known shape.
    """
    with tf.Graph().as_default() as graph:
      self._inputs = [tf.placeholder(tf.bool, [None, None])]
      for array in arrays:
        shape = list(np.shape(array))
        if len(shape) == 3:
          shape[:2] = [None, None]
        self._inputs.append(tf.placeholder(array.dtype, shape))
      self._outputs = function(*self._inputs)
    self._session = tf.Session(graph=graph)

  def __call__(self, mask, *arrays):
    """What the function returns, as arrays."""
    feed = dict(zip(self._inputs, (mask, *arrays), strict=True))
    return self._session.run(self._outputs, feed)


def evaluate(function, mask, *arrays):
  """A `Graph` that runs once."""
  return Graph(function, *arrays)(mask, *arrays)


def padded(videos, poison=layers.POISON, dtype="float32"):
  """`layers.pad` in another type."""
  frames, mask = layers.pad(videos, poison)
  return frames.astype(dtype), mask


def gradient_errors(function, mask, *arrays):
  """How far gradients are from finite differences, in float64.

  Args:
    function: of a mask and tensors, returns a dict of name to tensor.
    mask: bool [B, T].
    *arrays: float, each differentiated.

  Returns:
    dict of name to the largest difference, of a random sum of the tensor.
  """
  with tf.Graph().as_default(), tf.Session():
    inputs = [tf.constant(array, tf.float64) for array in arrays]
    rng = np.random.RandomState(9)
    totals = {
      # All that a scalar needs is one backward run, a tensor one an element.
      name: tf.reduce_sum(outputs * rng.randn(*outputs.shape.as_list()))
      for name, outputs in function(tf.constant(mask), *inputs).items()
    }
    jacobians = tf.test.compute_gradient(
      inputs,
      [np.shape(array) for array in arrays],
      # What a total does not depend on has a gradient of zero.
      tf.stack(list(totals.values()))
      + 0.0 * sum(tf.reduce_sum(tensor) for tensor in inputs),
      [len(totals)],
      x_init_value=[np.array(array, np.float64) for array in arrays],
      delta=1e-5,
    )
  return {
    name: max(
      np.abs(exact[:, i] - differences[:, i]).max()
      for exact, differences in jacobians
    )
    for i, name in enumerate(totals)
  }


def random_centres(num_centres, depth, seed=3):
  rng = np.random.RandomState(seed)
  return rng.randn(num_centres, depth).astype(np.float32)


def random_weights(lengths, num_centres, seed=2):
  """A list of videos of weights, float32 [n, K], of either sign."""
  return layers.random_videos(lengths, num_centres, seed)


def origin(num_centres, depth):
  """The centres that None stands for."""
  return [[0.0] * depth for _ in range(num_centres)]


# From here on: references.


def residual(x, centre):
  return [float(a) - float(b) for a, b in zip(x, centre)]


def squared_distance(x, centre):
  v = residual(x, centre)
  return layers.dot(v, v)


def outer(v):
  """v v^T, row after row."""
  return [a * b for a in v for b in v]


def zeroth(weights, num_centres):
  masses = [0.0] * num_centres
  for row in weights:
    for j in range(num_centres):
      masses[j] += float(row[j])
  return masses


def first(video, weights, centres):
  sums = origin(len(centres), len(centres[0]))
  for x, row in zip(video, weights):
    for j, centre in enumerate(centres):
      for i, v in enumerate(residual(x, centre)):
        sums[j][i] += float(row[j]) * v
  return sums


def second(video, weights, centres, group_size):
  """[K][G][g][g]."""
  depth = len(centres[0])
  sums = [
    [np.zeros([group_size] * 2) for _ in range(depth // group_size)]
    for _ in centres
  ]
  for x, row in zip(video, weights):
    for j, centre in enumerate(centres):
      v = residual(x, centre)
      for p in range(depth):
        for q in range(depth):
          if p // group_size == q // group_size:
            block = sums[j][p // group_size]
            block[p % group_size, q % group_size] += float(row[j]) * v[p] * v[q]
  return sums


def embedding(x, weights, centres, order=1):
  """w_j v_j, or w_j v_j v_j^T, of one frame, one centre behind the other."""
  numbers = []
  for w, centre in zip(weights, centres):
    v = residual(x, centre)
    numbers += [float(w) * a for a in (v if order == 1 else outer(v))]
  return numbers


def gram(video, weights, centres, order=1):
  """Dot products of explicit embeddings, [n][n]."""
  embeddings = [
    embedding(x, row, centres, order) for x, row in zip(video, weights)
  ]
  return [[layers.dot(e, f) for f in embeddings] for e in embeddings]
