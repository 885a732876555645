"""The layers as loops over numbers, in float64, and how tests run them.

The loops share no idiom with the layers: a batch is a list of videos, a video
the list of its real frames, so that no reference ever sees padding. Variables
come as a dict of name to array.

Axes: B videos, T frames, D features, K units or centres, C classes.
"""

import math

import numpy as np
import tensorflow.compat.v1 as tf

from pooling.mode import Mode

POISON = 1e3  # What tests put into padding.


def mode(is_training=True, decay=0.9, **kwargs):
  """A `Mode` of a test's."""
  return Mode(is_training=is_training, batch_norm_decay=decay, **kwargs)


def load(session, values):
  """Sets variables of the session's graph: dict of name to value."""
  with session.graph.as_default():
    variables = {v.op.name: v for v in tf.global_variables()}
  initializers = [variables[name].initializer for name in values]
  # All in one run: `variable.load` makes one each.
  session.run(
    initializers,
    {op.inputs[1]: value for op, value in zip(initializers, values.values())},
  )


def randomize(session, seed=0):
  """Gives each variable of the graph a random value: {name: float array}.

  Zero biases and unit gammas would hide a lost term. Variances are positive,
  covariances positive definite, and the number of updates is whole. Gains of
  what is added to a residual are small, as trained ones are: of size 1 they
  make logits of size 100, whose softmax is rounding.
  """
  rng = np.random.RandomState(seed)
  values = {}
  for variable in tf.global_variables():
    name = variable.op.name
    value = rng.randn(*variable.shape.as_list())
    if name.endswith("moving_variance"):
      value = np.exp(value)
    elif name.endswith("moving_covariance"):
      value = value @ np.swapaxes(value, -1, -2)
    elif name.endswith("_gain"):
      value *= 0.1
    elif name.endswith("num_updates"):
      value = float(rng.randint(3, 30))
    values[name] = np.asarray(value, np.float32).astype(np.float64)
  load(session, values)
  return values


def names(variables=None):
  """Sorted names of variables, by default of all of the graph."""
  if variables is None:
    variables = tf.global_variables()
  return sorted(variable.op.name for variable in variables)


def gradients(outputs, inputs=()):
  """Gradients of a sum of squares, dense, in inputs and in all trainables.

  Of a plain sum batch norm's and softmax's gradients would be zero.
  """
  sources = [*inputs, *tf.trainable_variables()]
  found = tf.gradients(tf.reduce_sum(tf.square(outputs)), sources)
  return {
    source.op.name: gradient
    for source, gradient in zip(sources, found)
    if gradient is not None
  }


def updates():
  return tf.get_collection(tf.GraphKeys.UPDATE_OPS)


def pad(videos, poison=POISON, length=None):
  """Float32 [B, T, D] of a list of videos [n, D], and bool [B, T]."""
  if length is None:
    length = max(len(video) for video in videos)
  frames = np.full([len(videos), length, videos[0].shape[1]], poison, "float32")
  mask = np.zeros([len(videos), length], bool)
  for b, video in enumerate(videos):
    frames[b, : len(video)] = video
    mask[b, : len(video)] = True
  return frames, mask


def random_videos(lengths, depth, seed=1):
  """A list of videos, float32 [n, D]."""
  rng = np.random.RandomState(seed)
  return [rng.randn(n, depth).astype(np.float32) for n in lengths]


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
  """Of numbers of size 1, in float32 near zero `atol` is what is left."""
  np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def assert_all_finite(values):
  """Values: dict of name to array."""
  assert values
  bad = [name for name, value in values.items() if not np.isfinite(value).all()]
  assert not bad, f"Not finite: {bad}."


# From here on: references.


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
