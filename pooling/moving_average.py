"""Averages of a training's batch statistics, for evaluation to use.

The decay is min(decay, (1 + n) / (20 + n)) at update n, so that the averages
follow the model from the first steps. With a fixed decay of 0.999 a model of a
few hundred steps is evaluated with averages that are still mostly their initial
values.
"""

import tensorflow.compat.v1 as tf

# The name of the variable that counts updates, beside the averages.
COUNTER = "num_updates"


def create(initializers):
  """Makes the variables, in the current scope.

  A step reads each of them once, whoever uses it, and its update is computed
  from what was read: no tower can see it before and another after.

  Args:
    initializers: dict of name to (shape, initializer).

  Returns:
    dict of name to variable, and `num_updates`, not trainable.
  """
  specs = {**initializers, COUNTER: ([], tf.zeros_initializer())}
  return {
    name: tf.get_variable(
      name,
      shape,
      initializer=initializer,
      trainable=False,
      caching_device=lambda op: op.device,
    )
    for name, (shape, initializer) in specs.items()
  }


def update(averages, values, *, rows, decay):
  """Moves averages towards a batch's values, once a step.

  The operation is added to `tf.GraphKeys.UPDATE_OPS`, for the program to run.

  Args:
    averages: what `create` returned.
    values: dict of name to tensor, of the averages' shapes. Those that are not
      finite leave their average as it is.
    rows: int or float scalar, what the values were taken over. An empty batch
      has no statistics to learn from, and changes nothing.
    decay: float in [0, 1), what the averages keep at each update once warm.

  Returns:
    dict of name to tensor, the averages after the update.

  Raises:
    ValueError: decay outside [0, 1).
  """
  if not 0.0 <= decay < 1.0:
    raise ValueError(f"Need 0 <= decay < 1, got decay={decay}.")
  count = averages[COUNTER]
  kept = tf.minimum((1.0 + count) / (20.0 + count), decay)
  rate = tf.where_v2(rows > 0, 1.0 - kept, 0.0)
  updates, moved = [], {}
  for name, value in values.items():
    average = tf.convert_to_tensor(averages[name])
    finite = tf.where_v2(tf.is_finite(value), value, average)
    moved[name] = (1.0 - rate) * average + rate * finite
    updates.append(tf.assign_sub(averages[name], average - moved[name]))
  # The counter goes last: the averages above read it.
  with tf.control_dependencies(updates):
    updates.append(
      tf.assign_add(count, tf.cast(rows > 0, averages[COUNTER].dtype))
    )
  tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.group(*updates))
  return moved
