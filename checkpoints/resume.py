"""Where a run goes on: a checkpoint's progress, and the variables' values."""

import json

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import restore, weight_averages


def read_progress(checkpoint):
  """(global step, epochs done) of a checkpoint; zeros for None.

  Raises:
    ValueError: the checkpoint is damaged.
  """
  if not checkpoint:
    return 0, 0
  with restore.telling_damage(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    step, epoch = reader.get_tensor("global_step"), reader.get_tensor("epoch")
  return int(step), int(epoch)


def initialization(checkpoint, variables, taken=None):
  """How the variables of a training get their values.

  Those that the checkpoint lacks start afresh; a weight's moving average then
  starts at the weight, restored or not.

  Args:
    checkpoint: path prefix, or None for a new model.
    variables: list of them; others in the graph are not touched.
    taken: dict of a name in the checkpoint to the variable that gets it, where
      the checkpoint is another run's; all others then start afresh.

  Returns:
    (operation to run, function of the session to call after it), as
    `tf.train.SessionManager.prepare_session` takes them.

  Raises:
    ValueError: the checkpoint lacks a weight of the model.
  """
  restored = taken
  if restored is None:
    restored = _restorable(variables, checkpoint) if checkpoint else {}
  names = {variable.name for variable in restored.values()}
  fresh, averages = [], []
  for variable in variables:
    if variable.name not in names:
      is_average = weight_averages.is_average(variable.op.name)
      (averages if is_average else fresh).append(variable)
  restorer = tf.train.Saver(restored) if restored else None
  start_averages = tf.variables_initializer(averages)

  def fill(session):
    if restorer:
      with restore.telling_damage(checkpoint):
        restorer.restore(session, checkpoint)
    # Last: their initialisers take the weights as they then are.
    session.run(start_averages)

  return tf.variables_initializer(fresh), fill


def _restorable(variables, checkpoint):
  """{name: variable} of those that a checkpoint has.

  Raises:
    ValueError: it lacks a weight.
  """
  shapes = tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map()
  restored, missing, averages = {}, [], []
  for variable in variables:
    name = variable.op.name
    if shapes.get(name) == variable.shape.as_list():
      restored[name] = variable
    else:
      is_average = weight_averages.is_average(name)
      (averages if is_average else missing).append(name)
  trained = {v.op.name for v in variables if v.trainable}
  lacking = sorted(trained & set(missing))
  if lacking:
    raise ValueError(f"{checkpoint} lacks variables of the model: {lacking}.")
  if missing:
    logging.warning(
      "%d variables are not in %s and start afresh (another optimiser?): %s.",
      len(missing),
      checkpoint,
      json.dumps(missing[:3]),
    )
  if averages:
    logging.info(
      "--ema_decay: moving averages of %d weights are not in %s and start at "
      "the weights.",
      len(averages),
      checkpoint,
    )
  known = {variable.op.name for variable in variables}
  dropped = [name for name in shapes if weight_averages.is_average(name)]
  if dropped and not known.intersection(dropped):
    logging.warning(
      "No --ema_decay: the moving averages of %d weights in %s are dropped; "
      "evaluation of later checkpoints uses the weights themselves.",
      len(dropped),
      checkpoint,
    )
  return restored
