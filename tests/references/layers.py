"""Linear layers, batch norm, gates, NetVLAD, bags of frames, experts.

Axes: B videos, T frames, D features, K units or centres, C classes.
"""

import math

import numpy as np


def sigmoid(x):
  return 1.0 / (1.0 + math.exp(-x))


def relu6(x):
  return min(max(x, 0.0), 6.0)


def dot(x, y):
  total = 0.0
  for a, b in zip(x, y):
    total += float(a) * float(b)
  return total


def unit(x):
  """x / max(|x|, 1e-6), as tf.nn.l2_normalize has it."""
  norm = max(math.sqrt(dot(x, x)), 1e-6)
  return [float(a) / norm for a in x]


def softmax(logits):
  mass = [math.exp(logit - max(logits)) for logit in logits]
  return [m / sum(mass) for m in mass]


def mean_and_variance(column):
  """The variance with N, not N - 1, below."""
  mean = sum(column) / len(column)
  return mean, sum((x - mean) ** 2 for x in column) / len(column)


def batch_norm(rows, variables, scope, is_training):
  """Ioffe & Szegedy, algorithm 1: gamma (x - mean) / sqrt(var + eps) + beta."""
  outputs = [[] for _ in rows]
  for d, beta in enumerate(variables[f"{scope}/beta"]):
    gamma = 1.0
    if f"{scope}/gamma" in variables:
      gamma = variables[f"{scope}/gamma"][d]
    if is_training and len(rows):
      mean, variance = mean_and_variance([float(row[d]) for row in rows])
    else:
      mean = variables[f"{scope}/moving_mean"][d]
      variance = variables[f"{scope}/moving_variance"][d]
    for output, row in zip(outputs, rows):
      x = (float(row[d]) - mean) / math.sqrt(variance + 0.001)
      output.append(gamma * x + beta)
  return outputs


def updated_averages(rows, variables, scope, decay):
  """(moving mean, moving variance, number of updates) after one update."""
  n = variables[f"{scope}/num_updates"]
  kept = min(decay, (1 + n) / (20 + n))
  means, variances = [], []
  for d, column in enumerate(zip(*rows)):
    mean, variance = mean_and_variance([float(x) for x in column])
    old_mean = variables[f"{scope}/moving_mean"][d]
    old_variance = variables[f"{scope}/moving_variance"][d]
    means.append(kept * old_mean + (1 - kept) * mean)
    variances.append(kept * old_variance + (1 - kept) * variance)
  return means, variances, n + 1


def linear(rows, variables, scope, is_training):
  """W x + b, or the batch norm of W x if the scope holds one."""
  columns = list(zip(*variables[f"{scope}/weights"]))
  outputs = [[dot(row, column) for column in columns] for row in rows]
  if f"{scope}/biases" not in variables:
    return batch_norm(outputs, variables, f"{scope}/batch_norm", is_training)
  biases = variables[f"{scope}/biases"]
  return [[y + b for y, b in zip(output, biases)] for output in outputs]


def per_frame(layer, videos, *args):
  """A layer of rows on the frames of all videos; videos again."""
  outputs = iter(layer([x for video in videos for x in video], *args))
  return [[next(outputs) for _ in video] for video in videos]


def context_gating(rows, variables, scope, remove_diag, is_training):
  """Each feature times the sigmoid of its gate."""
  variables = dict(variables)
  if remove_diag:
    weights = np.array(variables[f"{scope}/weights"])
    for d in range(len(weights)):
      weights[d, d] = 0.0
    variables[f"{scope}/weights"] = weights
  gates = linear(rows, variables, scope, is_training)
  return [
    [float(x) * sigmoid(g) for x, g in zip(row, gate)]
    for row, gate in zip(rows, gates)
  ]


def vlad(videos, assignments, centres):
  """Arandjelovic et al., eq. 4, for each video; centre by centre."""
  descriptors = []
  for video, assigned in zip(videos, assignments):
    descriptor = []
    for k, centre in enumerate(centres):
      total = [0.0] * len(centre)
      for x, a in zip(video, assigned):
        for d in range(len(centre)):
          total[d] += a[k] * (float(x[d]) - centre[d])
      descriptor += unit(total)
    descriptors.append(unit(descriptor))
  return descriptors


def netvlad(videos, variables, scope, residuals, is_training):
  logits = per_frame(linear, videos, variables, f"{scope}/assign", is_training)
  assignments = [[softmax(frame) for frame in video] for video in logits]
  if residuals:
    centres = variables[f"{scope}/centres"]
  else:
    depth, num_clusters = variables[f"{scope}/assign/weights"].shape
    centres = [[0.0] * depth] * num_clusters
  return vlad(videos, assignments, centres)


def pool_frames(videos, num_units, method):
  """The mean or the maximum of each unit; 0 for an empty video."""
  pooled = []
  for video in videos:
    row = []
    for k in range(num_units):
      column = [float(frame[k]) for frame in video]
      if not column:
        row.append(0.0)
      elif method == "max":
        row.append(sorted(column)[-1])
      else:
        row.append(sum(column) / len(column))
    pooled.append(row)
  return pooled


ACTIVATIONS = {
  "relu": lambda x: max(x, 0.0),
  "relu6": relu6,
  "sigmoid": sigmoid,
}


def dbof(videos, variables, scope, method, activation, is_training):
  units = per_frame(linear, videos, variables, f"{scope}/cluster", is_training)
  units = [
    [[ACTIVATIONS[activation](u) for u in frame] for frame in video]
    for video in units
  ]
  num_clusters = variables[f"{scope}/cluster/weights"].shape[1]
  return pool_frames(units, num_clusters, method)


def mixture_of_experts(rows, variables, num_classes):
  """For each class a softmax over the experts and a dummy that says no.

  The unit of expert m of class c is number m C + c.
  """
  gates, experts = variables["gates/weights"], variables["experts/weights"]
  biases = variables["experts/biases"]
  num_mixtures = experts.shape[1] // num_classes
  outputs = []
  for row in rows:
    seen = row
    if "gates_low_rank/weights" in variables:
      low_rank = variables["gates_low_rank/weights"]
      seen = [dot(row, low_rank[:, r]) for r in range(low_rank.shape[1])]
    output = []
    for c in range(num_classes):
      chosen = softmax(
        [
          dot(seen, gates[:, m * num_classes + c])
          for m in range(num_mixtures + 1)
        ]
      )
      p = 0.0  # The dummy's share of it.
      for m in range(num_mixtures):
        unit_number = m * num_classes + c
        says = dot(row, experts[:, unit_number]) + biases[unit_number]
        p += chosen[m] * sigmoid(says)
      output.append(p)
    outputs.append(output)
  return outputs


def probability_gates(rows, variables, remove_diag, is_training):
  """The sigmoid of the batch norm of W x."""
  weights = np.array(variables["gating_prob_weights"])
  if remove_diag:
    for c in range(len(weights)):
      weights[c, c] = 0.0
  gates = [[dot(row, column) for column in weights.T] for row in rows]
  gates = batch_norm(gates, variables, "gating_prob_bn", is_training)
  return [[sigmoid(gate) for gate in row] for row in gates]


def shares(videos, variables, scope, is_training):
  """Soft assignments: [K] of each frame."""
  units = per_frame(linear, videos, variables, scope, is_training)
  return [[softmax(frame) for frame in video] for video in units]


def soft_bags(videos, variables, scope, is_training):
  """(sums, maxima of unit length) of the soft assignments of each video."""
  assigned = shares(videos, variables, f"{scope}/cluster", is_training)
  size = variables[f"{scope}/cluster/weights"].shape[1]
  maxima = pool_frames(assigned, size, "max")
  sums = [
    [sum(frame[k] for frame in video) for k in range(size)]
    for video in assigned
  ]
  return sums, [unit(row) for row in maxima]


def gated_bags(videos, variables, scope, is_training):
  """Zeros for an empty video, which the gates' batch norm does not see."""
  sums, maxima = soft_bags(
    [video for video in videos if len(video)], variables, scope, is_training
  )
  columns = variables[f"{scope}/reduction"].T
  reduced = [[dot(row, column) for column in columns] for row in maxima]
  gates = linear(reduced, variables, f"{scope}/gates", is_training)
  bags = iter(
    unit([sigmoid(g) * s for g, s in zip(*rows)]) for rows in zip(gates, sums)
  )
  size = variables[f"{scope}/reduction"].shape[0]
  return [next(bags) if len(video) else [0.0] * size for video in videos]
