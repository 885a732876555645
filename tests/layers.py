"""The harness of tests of layers: graphs, random values, padding, gradients.

Axes: B videos, T frames, D features, K units or centres.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from pooling.mode import Mode

POISON = 1e3  # What tests put into padding.
POISONS = (1e3, 1e30)  # Squares of 1e30 overflow.
# Ragged with an empty video, an empty video first, and nothing else.
LENGTHS = ([5, 2, 0, 1], [0, 4], [0, 0])


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


def weighted_sum(outputs):
  """A scalar: the sum with fixed weights, another one for each number.

  Where outputs are normalised their plain sum or that of their squares does not
  move at all. Padding behind them leaves the others' weights as they are.
  """
  phase = tf.ones([], outputs.dtype)
  for axis in range(outputs.shape.rank):
    index = tf.cast(tf.range(tf.shape(outputs)[axis]), outputs.dtype)
    phase = phase[..., tf.newaxis] + 1.7**axis * index
  return tf.reduce_sum(outputs * tf.cos(phase))


def gradients(outputs, inputs=()):
  """Gradients of `weighted_sum`, dense, in inputs and in all trainables."""
  sources = [*inputs, *tf.trainable_variables()]
  found = tf.gradients(weighted_sum(outputs), sources)
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


class Layer:
  """A layer in its own graph, of unknown B and T, with random variables.

  Attributes:
    graph: tf.Graph.
    outputs: tensor, or structure of tensors.
    energy: scalar, `weighted_sum` of the outputs, or of the first of them.
    gradients: dict of name to tensor, of the energy, in all inputs that are not
      bool and in all trainable variables.
    updates: list of operations.
    variables: dict of name to variable.
    shapes: dict of name to the variable's shape.
    trained: sorted names of the trainable variables.
    initial: dict of name to array, what the variables were set to.
  """

  def __init__(self, build, *, dtype="float32", seed=0, **inputs):
    """Builds the graph.

    Args:
      build: function of the inputs, by name, to outputs.
      dtype: str, of variables and inputs.
      seed: int, of the variables' values.
      **inputs: shape of each input, a list; those named mask are bool.
    """
    with tf.Graph().as_default() as self.graph:
      self._inputs = {
        name: tf.placeholder("bool" if "mask" in name else dtype, shape, name)
        for name, shape in inputs.items()
      }
      with tf.variable_scope(tf.get_variable_scope(), dtype=tf.as_dtype(dtype)):
        self.outputs = build(**self._inputs)
      floats = [x for x in self._inputs.values() if x.dtype != tf.bool]
      first = tf.nest.flatten(self.outputs)[0]
      self.energy = weighted_sum(first)
      self.gradients = gradients(first, floats)
      self.updates = updates()
      self.variables = {v.op.name: v for v in tf.global_variables()}
      self.shapes = {n: v.shape.as_list() for n, v in self.variables.items()}
      self.trained = names(tf.trainable_variables())
      self._initializer = tf.global_variables_initializer()
      self._session = tf.Session(graph=self.graph)
      self.initial = randomize(self._session, seed)

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.close()

  def close(self):
    self._session.close()

  def run(self, fetches, *arrays, **named):
    """What is fetched, of arrays in the inputs' order, or by name."""
    named = {**dict(zip(self._inputs, arrays)), **named}
    return self._session.run(
      fetches, {self._inputs[name]: value for name, value in named.items()}
    )

  def load(self, values):
    load(self._session, values)

  def initialize(self):
    """Gives the variables the values that a training starts with."""
    self._session.run(self._initializer)

  def values(self):
    return self._session.run(self.variables)


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


def padded(videos, poison=POISON, dtype="float32"):
  """`layers.pad` in another type."""
  frames, mask = pad(videos, poison)
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
  return random_videos(lengths, num_centres, seed)
