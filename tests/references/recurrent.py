"""Recurrent layers; a video is the list of its real frames.

Axes: D features, H units. The order of the gates is that of the weights'
columns.
"""

import math

from tests.references import layers


def _gates(x, h, weights, biases):
  """[x, h] W + b, number by number."""
  return [
    layers.dot([*x, *h], column) + b for column, b in zip(weights.T, biases)
  ]


def lstm(video, weights, biases):
  """(h of each frame, c, h)."""
  units = len(biases) // 4
  c, h, outputs = [0.0] * units, [0.0] * units, []
  for x in video:
    z = _gates(x, h, weights, biases)
    for k in range(units):
      i, j, f, o = z[k], z[units + k], z[2 * units + k], z[3 * units + k]
      kept = layers.sigmoid(f + 1.0) * c[k]
      c[k] = kept + layers.sigmoid(i) * math.tanh(j)
      # h is not used again in this step: the gates are computed.
      h[k] = layers.sigmoid(o) * math.tanh(c[k])
    outputs.append(list(h))
  return outputs, c, h


def gru(video, weights, biases, candidate_weights, candidate_biases):
  """(h of each frame, h)."""
  units = len(candidate_biases)
  h, outputs = [0.0] * units, []
  for x in video:
    z = [layers.sigmoid(gate) for gate in _gates(x, h, weights, biases)]
    r, u = z[:units], z[units:]
    left = [a * b for a, b in zip(r, h)]
    new = _gates(x, left, candidate_weights, candidate_biases)
    h = [a * b + (1.0 - a) * math.tanh(n) for a, b, n in zip(u, h, new)]
    outputs.append(h)
  return outputs, h
