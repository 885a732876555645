"""Whitened sums, residual by residual.

Axes: B videos, T frames, D features, K centres, G groups of g features. N are
the real frames of all videos.
"""

import math

import numpy as np

from tests.references import layers

_SHRINKAGE = 2e-6


def direction(x, centre):
  return np.array(layers.unit([float(a) - float(c) for a, c in zip(x, centre)]))


def mean_and_covariance(residuals):
  depth = len(residuals[0])
  mean = np.zeros(depth)
  for r in residuals:
    mean += r / len(residuals)
  covariance = np.zeros([depth, depth])
  for r in residuals:
    for d in range(depth):
      for e in range(depth):
        product = (r[d] - mean[d]) * (r[e] - mean[e])
        covariance[d, e] += product / len(residuals)
  return mean, covariance


def groups(depth, group_size):
  """Lists of neighbours."""
  numbers = list(range(depth))
  return [
    numbers[start : start + group_size]
    for start in range(0, depth, min(group_size, depth))
  ]


def whitener(covariance, depth):
  """C^{-1/2} of a shrunk covariance: q_i q_i^T / sqrt(l_i), summed."""
  size = len(covariance)
  variance = sum(covariance[d, d] for d in range(size))
  shrunk = np.array(covariance, np.float64)
  for d in range(size):
    shrunk[d, d] += _SHRINKAGE * (variance + size / depth)
  total = np.zeros([size, size])
  values, vectors = np.linalg.eigh(shrunk)
  for value, vector in zip(values, vectors.T):
    total = total + vector[:, None] * vector[None, :] / math.sqrt(value)
  return total


def whitened_sum(
  videos, weights, centres, group_size, averages=None, offsets=None
):
  """[B, K, D], whitened by the batch's statistics unless there are others.

  Args:
    videos: list of [n, D].
    weights: list of [n, K].
    centres: [K, D].
    group_size: int.
    averages: (means [K, D], covariances [K, D, D]) to whiten by, or None.
    offsets: such a pair to add to the batch's statistics, or None.
  """
  depth = len(centres[0])
  sums = np.zeros([len(videos), len(centres), depth])
  for j, centre in enumerate(centres):
    residuals = [[direction(x, centre) for x in video] for video in videos]
    together = [r for video in residuals for r in video]
    if averages is not None:
      mean, covariance = averages[0][j], averages[1][j]
    elif together:
      mean, covariance = mean_and_covariance(together)
      if offsets is not None:
        mean, covariance = mean + offsets[0][j], covariance + offsets[1][j]
    for group in groups(depth, group_size) if together else []:
      root = whitener(covariance[np.ix_(group, group)], depth)
      for b, video in enumerate(residuals):
        for t, r in enumerate(video):
          white = root @ (r - mean)[group]
          for d, value in zip(group, white):
            sums[b, j, d] += float(weights[b][t][j]) * value
  return sums


def statistics(videos, centres):
  """(means [K, D], covariances [K, D, D]) of a batch."""
  found = [
    mean_and_covariance([direction(x, c) for video in videos for x in video])
    for c in centres
  ]
  return tuple(np.array(part) for part in zip(*found))


def blocks(covariances, group_size):
  """Covariances [K, D, D] as the layer keeps them, [K, G, g, g]."""
  depth = len(covariances[0])
  parts = groups(depth, group_size)
  result = np.zeros([len(covariances), len(parts), *[len(parts[0])] * 2])
  for j, covariance in enumerate(covariances):
    for g, group in enumerate(parts):
      for p, d in enumerate(group):
        for q, e in enumerate(group):
          result[j, g, p, q] = covariance[d, e]
  return result
