"""Where a run goes on: a checkpoint's progress, and the variables' values."""

import json

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import restore, weight_averages
from models import scopes


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
    taken: dict of a name in the checkpoint to the `scopes.Stored` that gets it,
      where the checkpoint is another run's; all others then start afresh.

  Returns:
    (operation to run, function of the session to call after it), as
    `tf.train.SessionManager.prepare_session` takes them.

  Raises:
    ValueError: the checkpoint lacks a weight of the model.
  """
  restored = taken
  if restored is None:
    restored = _restorable(variables, checkpoint) if checkpoint else {}
  names = {whole.name for whole in restored.values()}
  fresh, averages = [], []
  for name, whole in scopes.wholes(variables).items():
    if name not in names:
      is_average = weight_averages.is_average(name)
      (averages if is_average else fresh).extend(whole.parts)
  restorers = _restorers(restored)
  start_averages = tf.variables_initializer(averages)

  def fill(session):
    for restorer in restorers:
      with restore.telling_damage(checkpoint):
        restorer.restore(session, checkpoint)
    # Last: their initialisers take the weights as they then are.
    session.run(start_averages)

  return tf.variables_initializer(fresh), fill


def _restorers(restored):
  """List of `tf.train.Saver`, to be run one after the other.

  Of what is in one piece in the checkpoint TensorFlow reads all for each part:
  at the same time they might not fit into memory.

  Args:
    restored: dict of a name in the checkpoint to the `scopes.Stored`.
  """
  single, rest = {}, []
  for name, whole in restored.items():
    if len(whole.parts) == 1:
      (single[name],) = whole.parts
    else:
      rest += [{name: [part]} for part in whole.parts]
  return [tf.train.Saver(each) for each in [single, *rest] if each]


def _restorable(variables, checkpoint):
  """{name: `scopes.Stored`} of those that a checkpoint has.

  Raises:
    ValueError: it lacks a weight.
  """
  shapes = tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map()
  wholes = scopes.wholes(variables)
  restored, missing, averages = {}, [], []
  for name, whole in wholes.items():
    if shapes.get(name) == whole.shape.as_list():
      restored[name] = whole
    else:
      is_average = weight_averages.is_average(name)
      (averages if is_average else missing).append(name)
  trained = {scopes.whole_name(v) for v in variables if v.trainable}
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
  dropped = [name for name in shapes if weight_averages.is_average(name)]
  if dropped and not wholes.keys() & set(dropped):
    logging.warning(
      "No --ema_decay: the moving averages of %d weights in %s are dropped; "
      "evaluation of later checkpoints uses the weights themselves.",
      len(dropped),
      checkpoint,
    )
  return restored
