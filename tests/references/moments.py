"""Moments of residuals; the functions take one video.

Axes: T frames, D features, K centres.
"""

import numpy as np

from tests.references import layers


def origin(num_centres, depth):
  """The centres that None stands for."""
  return [[0.0] * depth for _ in range(num_centres)]


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
  """w_j v_j, or w_j v_j v_j^T, of one frame, one centre after the other."""
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
