"""Averages over frames. Axes: T frames, D features, K units."""

import math

from tests.references import layers


def mean(video, depth):
  return layers.pool_frames([video], depth, "average")[0]


def generalised_mean(video, depth, power):
  """(sum_t max(x, 1e-6)^p / T)^(1/p), feature by feature."""
  output = []
  for d in range(depth):
    total = sum(max(float(x[d]), 1e-6) ** power for x in video)
    output.append((total / len(video)) ** (1 / power) if len(video) else 0.0)
  return output


def attended(video, scores, depth):
  """The frames' sum, each weighted by the softmax of its score."""
  output = [0.0] * depth
  if not len(video):
    return output
  for x, share in zip(video, layers.softmax(scores)):
    for d in range(depth):
      output[d] += share * float(x[d])
  return output


def clusters(videos, variables, scope, is_training):
  """(alpha a X + beta) / (sqrt(K) |alpha a X + beta|), unit by unit."""

  def linear(frames, part):
    return layers.per_frame(
      layers.linear, frames, variables, f"{scope}/{part}", is_training
    )

  seen = videos
  if f"{scope}/hidden/weights" in variables:
    seen = [
      [[math.tanh(x) for x in frame] for frame in video]
      for video in linear(videos, "hidden")
    ]
  alphas, betas = variables[f"{scope}/alpha"], variables[f"{scope}/beta"]
  descriptors = []
  for video, scores in zip(videos, linear(seen, "scores")):
    descriptor = []
    for k in range(len(alphas)):
      mean = attended(video, [row[k] for row in scores], videos[0].shape[1])
      # Nothing is shifted where there is nothing.
      shift = betas[k][0] if len(video) else 0.0
      unit = layers.unit([alphas[k][0] * x + shift for x in mean])
      descriptor += [x / math.sqrt(len(alphas)) for x in unit]
    descriptors.append(descriptor)
  return descriptors
