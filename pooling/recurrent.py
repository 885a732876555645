"""Recurrent layers over the frames of ragged videos: LSTM and GRU.

A state passes padding as it is, so that the last one is that of a video's last
real frame. What frames add to the gates is one product for all of them; in the
loop over time only the state is multiplied. The loop's gradient is written
down here: it takes what the forward loop has kept, goes through time
backwards, and leaves each matrix's gradient to one product over all frames,
where differentiating the loop adds up a matrix at every step.

Axes: B videos, T frames, D features, H units. Within the loops time comes
first, and there is at least one frame.
"""

import tensorflow.compat.v1 as tf

from pooling import products
from pooling.frames import zero_padding


def lstm(frames, mask, *, units, reverse=False, dtype=None, scope="lstm"):
  """An LSTM (Hochreiter & Schmidhuber 1997, with forget gates).

  Of x_t and the state before, (i, j, f, o) = [x_t, h] W + b, in this order:

    c' = sigmoid(f + 1) c + sigmoid(i) tanh(j)
    h' = sigmoid(o) tanh(c')

  Args:
    frames: float [B, T, D], D static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    units: int, H >= 1.
    reverse: bool, begin with the last frame.
    dtype: of the product with the frames, see `products.matmul`; that with the
      state stays in the frames' type, since its errors add up over time.
    scope: variable scope; holds `weights` [D + H, 4 H] and `biases`.

  Returns:
    (float [B, T, H] h of each frame, zeros on padding; float [B, H] c and
    float [B, H] h of the end, zeros for an empty video).

  Raises:
    ValueError: frames not of rank 3, D unknown, or H < 1.
  """
  _check(frames, units)
  with tf.variable_scope(scope, values=[frames, mask]):
    of_frames, of_state, biases = _variables(frames, units, 4)
  inputs, real = _to_loop(frames, mask, of_frames, biases, reverse, dtype)
  outputs, cell, state = _lstm_loop(inputs, real, of_state)
  return _from_loop(outputs, mask, reverse), cell, state


def gru(frames, mask, *, units, reverse=False, dtype=None, scope="gru"):
  """A GRU (Cho et al. 2014).

  With (r, u) = sigmoid([x_t, h] W + b), in this order:

    h' = u h + (1 - u) tanh([x_t, r h] V + d)

  Args:
    frames: float [B, T, D], D static; padding may hold any finite value.
    mask: bool [B, T], True on real frames.
    units: int, H >= 1.
    reverse: bool, begin with the last frame.
    dtype: see `lstm`.
    scope: variable scope; holds `gates/weights` [D + H, 2 H], W, and
      `gates/biases`, 1 at the start; `candidate/weights` [D + H, H], V, and
      `candidate/biases`.

  Returns:
    (float [B, T, H] h of each frame, zeros on padding; float [B, H] h of the
    end, zeros for an empty video).

  Raises:
    ValueError: frames not of rank 3, D unknown, or H < 1.
  """
  _check(frames, units)
  with tf.variable_scope(scope, values=[frames, mask]):
    with tf.variable_scope("gates"):
      gates = _variables(frames, units, 2, biases=1.0)
    with tf.variable_scope("candidate"):
      candidate = _variables(frames, units, 1)
  of_frames, biases = (
    tf.concat([gates[i], candidate[i]], axis=-1) for i in (0, 2)
  )
  inputs, real = _to_loop(frames, mask, of_frames, biases, reverse, dtype)
  outputs, state = _gru_loop(inputs, real, gates[1], candidate[1])
  return _from_loop(outputs, mask, reverse), state


def _check(frames, units):
  depth = frames.shape.with_rank(3).as_list()[2]
  if depth is None or units < 1:
    raise ValueError(f"Need static D and H >= 1, got D={depth}, H={units}.")


def _variables(frames, units, gates, biases=0.0):
  """Weights of the frames, weights of the state, biases, of some gates."""
  depth = frames.shape.as_list()[2]
  weights = tf.get_variable(
    "weights",
    [depth + units, gates * units],
    initializer=tf.glorot_uniform_initializer(),
  )
  biases = tf.get_variable(
    "biases", [gates * units], initializer=tf.constant_initializer(biases)
  )
  return weights[:depth], weights[depth:], biases


def _to_loop(frames, mask, weights, biases, reverse, dtype):
  """What frames add to the gates, [T, B, any], and the mask, [T, B, 1]."""
  frames = zero_padding(frames, mask)
  if not frames.shape.as_list()[1]:
    # Where no video has a frame, one of padding.
    missing = tf.maximum(1 - tf.shape(frames)[1], 0)
    frames = tf.pad(frames, [[0, 0], [0, missing], [0, 0]])
    mask = tf.pad(mask, [[0, 0], [0, missing]])
  frames, mask = tf.transpose(frames, [1, 0, 2]), tf.transpose(mask)
  if reverse:
    frames, mask = tf.reverse(frames, [0]), tf.reverse(mask, [0])
  depth, width = weights.shape.as_list()
  inputs = products.matmul(
    tf.reshape(frames, [-1, depth]), weights, dtype=dtype
  )
  inputs = tf.reshape(tf.nn.bias_add(inputs, biases), [*_sizes(frames), width])
  return inputs, mask[:, :, tf.newaxis]


def _from_loop(outputs, mask, reverse):
  """Outputs [T, B, H] as float [B, T, H]."""
  if reverse:
    outputs = tf.reverse(outputs, [0])
  outputs = tf.transpose(outputs, [1, 0, 2])[:, : tf.shape(mask)[1]]
  return zero_padding(outputs, mask)


def _sizes(inputs):
  """T and B of [T, B, any]: numbers where known, so that shapes are."""
  dynamic = tf.shape(inputs)
  static = inputs.shape.as_list()[:2]
  return [dynamic[i] if n is None else n for i, n in enumerate(static)]


def _scan(step, length, carried, sizes, backwards=False):
  """Runs a step at each time.

  Args:
    step: function of the time and of what is carried; returns what is carried
      on, and a list of [B, size] to keep.
    length: int or int32 [], T.
    carried: list of [B, H].
    sizes: list of int, of what is kept.
    backwards: bool, begin with the last time.

  Returns:
    (list of [B, H] at the end, list of [T, B, size]).
  """
  count, batch = len(carried), carried[0].shape[0]
  arrays = [
    tf.TensorArray(carried[0].dtype, length, element_shape=[batch, size])
    for size in sizes
  ]

  def body(i, *state):
    t = length - 1 - i if backwards else i
    carried, kept = step(t, *state[:count])
    written = [array.write(t, x) for array, x in zip(state[count:], kept)]
    return (i + 1, *carried, *written)

  _, *state = tf.while_loop(
    lambda i, *_: i < length,
    body,
    (0, *carried, *arrays),
    parallel_iterations=1,
  )
  return state[:count], [array.stack() for array in state[count:]]


def _product_over_frames(states, gradients):
  """sum_tb s g^T of [T, B, H] and [T, B, G]: float [H, G]."""
  rows = [
    tf.reshape(x, [-1, x.shape.as_list()[2]]) for x in (states, gradients)
  ]
  return tf.matmul(*rows, transpose_a=True)


def _sigmoid_slope(y):
  return y * (1.0 - y)


@tf.custom_gradient
def _lstm_loop(inputs, real, weights):
  """h of each time [T, B, H], c and h of the end, of `lstm`.

  Args:
    inputs: float [T, B, 4 H], what frames add to (i, j, f, o).
    real: bool [T, B, 1].
    weights: float [H, 4 H], of the state.
  """
  units, (length, batch) = weights.shape.as_list()[0], _sizes(inputs)

  def step(t, c, h):
    i, j, f, o = tf.split(inputs[t] + tf.matmul(h, weights), 4, axis=1)
    i, j, f, o = tf.sigmoid(i), tf.tanh(j), tf.sigmoid(f + 1.0), tf.sigmoid(o)
    new_c = f * c + i * j
    new_h = o * tf.tanh(new_c)
    carried = (
      tf.where_v2(real[t], new_c, c),
      tf.where_v2(real[t], new_h, h),
    )
    return carried, (tf.concat([i, j, f, o], axis=1), c, h)

  zero = tf.zeros([batch, units], inputs.dtype)
  (last_c, last_h), (gates, cells, states) = _scan(
    step, length, [zero, zero], [4 * units, units, units]
  )

  def gradient(of_outputs, of_last_c, of_last_h):
    transposed = tf.transpose(weights)  # Once, not at each step.

    def step_back(t, in_c, in_h):
      in_h += of_outputs[t]
      i, j, f, o = tf.split(gates[t], 4, axis=1)
      squashed = tf.tanh(f * cells[t] + i * j)
      in_new_c = in_c + in_h * o * (1.0 - tf.square(squashed))
      in_gates = tf.concat(
        [
          in_new_c * j * _sigmoid_slope(i),
          in_new_c * i * (1.0 - tf.square(j)),
          in_new_c * cells[t] * _sigmoid_slope(f),
          in_h * squashed * _sigmoid_slope(o),
        ],
        axis=1,
      )
      in_gates = tf.where_v2(real[t], in_gates, tf.zeros([], in_gates.dtype))
      carried = (
        tf.where_v2(real[t], in_new_c * f, in_c),
        tf.where_v2(real[t], tf.matmul(in_gates, transposed), in_h),
      )
      return carried, (in_gates,)

    _, (in_inputs,) = _scan(
      step_back, length, [of_last_c, of_last_h], [4 * units], backwards=True
    )
    return in_inputs, None, _product_over_frames(states, in_inputs)

  outputs = tf.concat([states[1:], last_h[tf.newaxis]], axis=0)
  return (outputs, last_c, last_h), gradient


@tf.custom_gradient
def _gru_loop(inputs, real, gate_weights, candidate_weights):
  """h of each time [T, B, H], and of the end, of `gru`.

  Args:
    inputs: float [T, B, 3 H], what frames add to (r, u) and the candidate.
    real: bool [T, B, 1].
    gate_weights: float [H, 2 H], of the state.
    candidate_weights: float [H, H], of r h.
  """
  units, (length, batch) = gate_weights.shape.as_list()[0], _sizes(inputs)

  def step(t, h):
    of_gates, of_candidate = tf.split(inputs[t], [2 * units, units], axis=1)
    gates = tf.sigmoid(of_gates + tf.matmul(h, gate_weights))
    r, u = tf.split(gates, 2, axis=1)
    candidate = tf.tanh(of_candidate + tf.matmul(r * h, candidate_weights))
    new_h = u * h + (1.0 - u) * candidate
    kept = (tf.concat([r, u, candidate], axis=1), h)
    return (tf.where_v2(real[t], new_h, h),), kept

  zero = tf.zeros([batch, units], inputs.dtype)
  (last_h,), (kept, states) = _scan(step, length, [zero], [3 * units, units])

  def gradient(of_outputs, of_last_h):
    gates_transposed = tf.transpose(gate_weights)
    candidate_transposed = tf.transpose(candidate_weights)

    def step_back(t, in_h):
      in_h += of_outputs[t]
      h = states[t]
      r, u, candidate = tf.split(kept[t], 3, axis=1)
      in_candidate = in_h * (1.0 - u) * (1.0 - tf.square(candidate))
      in_reset = tf.matmul(in_candidate, candidate_transposed)  # Of r h.
      in_gates = tf.concat(
        [
          in_reset * h * _sigmoid_slope(r),
          in_h * (h - candidate) * _sigmoid_slope(u),
        ],
        axis=1,
      )
      before = in_h * u + in_reset * r + tf.matmul(in_gates, gates_transposed)
      in_inputs = tf.concat([in_gates, in_candidate], axis=1)
      in_inputs = tf.where_v2(real[t], in_inputs, tf.zeros([], in_h.dtype))
      return (tf.where_v2(real[t], before, in_h),), (in_inputs,)

    _, (in_inputs,) = _scan(
      step_back, length, [of_last_h], [3 * units], backwards=True
    )
    in_gates, in_candidate = tf.split(in_inputs, [2 * units, units], axis=2)
    reset = kept[:, :, :units] * states
    return (
      in_inputs,
      None,
      _product_over_frames(states, in_gates),
      _product_over_frames(reset, in_candidate),
    )

  outputs = tf.concat([states[1:], last_h[tf.newaxis]], axis=0)
  return (outputs, last_h), gradient
