"""Exponential moving averages of the weights, for evaluation in their place.

The iterates of stochastic optimisation wander about the optimum, and their
average lies nearer to it (Polyak & Juditsky 1992, "Acceleration of stochastic
approximation by averaging"). The exponential form is what Szegedy et al. 2016
evaluate (arXiv:1512.00567, section 8). After update t of the weights w:

    average += (1 - d) (w - average),    d = min(decay, (1 + t) / (10 + t))

so that the averages follow the first, large steps closely; a run that starts
from trained weights may leave that out, d = decay. Training goes on
from the weights and never reads the averages. A checkpoint holds both, the
average of VARIABLE as VARIABLE/ExponentialMovingAverage.
"""

import tensorflow.compat.v1 as tf

# Part of the checkpoint format.
_NAME = "ExponentialMovingAverage"


def update(variables, decay, global_step):
  """Makes the averages of weights, and moves them.

  Args:
    variables: list of the weights.
    decay: float in (0, 1), what an average keeps at each update.
    global_step: int64 scalar variable, t, or None for the full decay from the
      first update on. It and the weights are read when the operation runs: make
      it after the optimiser's by control dependencies.

  Returns:
    Operation, to run once a step.
  """
  average = tf.train.ExponentialMovingAverage(
    decay, num_updates=global_step, name=_NAME
  )
  updates = []
  for variable in variables:
    # Where the weight and its average are, be it a parameter server: nothing
    # of their size travels.
    with tf.device(variable.device):
      updates.append(average.apply([variable]))
  return tf.group(*updates)


def is_average(name):
  """Whether a variable's name, without its ":0", is that of an average."""
  return name.endswith(f"/{_NAME}")


def stored(variables, shapes, checkpoint):
  """Finds the averages of a model's weights in a checkpoint.

  Args:
    variables: dict of a weight's name in the checkpoint to its variable.
    shapes: dict of name to list of int, what the checkpoint holds.
    checkpoint: str, its path prefix, for the error.

  Returns:
    dict of an average's name to the variable that it is to be restored to, of
    all variables; empty if the checkpoint has the average of none.

  Raises:
    ValueError: it has the averages of some, or of another shape: with those
      and the weights of the others it would be a model that never was.
  """
  averages = {
    f"{name}/{_NAME}": variable for name, variable in variables.items()
  }
  if not any(name in shapes for name in averages):
    return {}
  lacking = [
    f"{name.removesuffix(f'/{_NAME}')} {variable.shape.as_list()} (stored: "
    f"{shapes.get(name)})"
    for name, variable in averages.items()
    if shapes.get(name) != variable.shape.as_list()
  ]
  if lacking:
    raise ValueError(
      f"{checkpoint} has moving averages of {len(averages) - len(lacking)} of "
      f"the model's {len(averages)} weights; it lacks those of "
      f"{', '.join(lacking[:5])}. Training that goes on from it with "
      "--ema_decay starts these at the weights; without, it drops all averages."
    )
  return averages
