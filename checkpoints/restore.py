"""Reading checkpoints: which there are, whether they are whole, what they hold.

A checkpoint is named by its path prefix, such as train_dir/model.ckpt-STEP.
"""

import contextlib
import os
import re

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import parts, weight_averages
from console import messages
from models import scopes

# Errors of reading that say nothing about what is on the disk.
_NOT_THE_CHECKPOINT = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.PermissionDeniedError,
  tf.errors.ResourceExhaustedError,
  tf.errors.UnavailableError,
)


class DamagedCheckpointError(ValueError):
  """A checkpoint that is not there as a whole, or can't be read."""


def known_checkpoints(directory):
  """Path prefixes of a directory's whole checkpoints, the newest last.

  Whole are those of which all files are there, and none is empty.
  """
  found = parts.by_step(directory)
  return [
    parts.prefix(directory, step)
    for step in sorted(found)
    if parts.is_whole(found[step])
  ]


def latest_checkpoint(directory):
  """Path prefix of the newest whole checkpoint, or None."""
  return next(reversed(known_checkpoints(directory)), None)


def step_of(checkpoint):
  """The global step in a checkpoint's name, or in it if it was renamed.

  Raises:
    DamagedCheckpointError: there is no such checkpoint, or it can't be read.
  """
  step = parts.step_in_name(checkpoint)
  if step is None:
    with telling_damage(checkpoint):
      reader = tf.train.load_checkpoint(checkpoint)
      step = int(reader.get_tensor("global_step"))
  return step


def verified(checkpoint):
  """The path prefix itself, once every tensor has been read and checked.

  Raises:
    DamagedCheckpointError: one can't be read.
  """
  with telling_damage(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)
  return checkpoint


def with_newest(source, use, flag="train_dir"):
  """Calls a function with the newest checkpoint that it can read.

  A damaged one is passed over, with a warning that names it and the one taken
  instead. Where training deletes the checkpoint first, the then newest is
  taken.

  Args:
    source: str, a train_dir; or the path prefix of the one checkpoint to take.
    use: function of a path prefix that raises DamagedCheckpointError.
    flag: str, what named the train_dir, for errors.

  Returns:
    What the function returns.

  Raises:
    DamagedCheckpointError: the one checkpoint, or all of the train_dir, can't
      be read.
    ValueError: the train_dir has no checkpoint.
  """
  if not tf.io.gfile.isdir(source):
    return use(source)
  passed_over = {}  # {step: why}
  told = 0
  while True:
    step = _newest_but(source, passed_over, flag)
    checkpoint = parts.prefix(source, step)
    listed = parts.told_by_list(source)
    if listed != f"names {os.path.basename(checkpoint)}":
      logging.info(
        "%s %s; the newest there is %s.",
        os.path.join(source, parts.LIST),
        listed,
        os.path.basename(checkpoint),
      )
    if len(passed_over) > told:
      told = len(passed_over)
      logging.warning(
        "%s Taking %s instead.", " ".join(passed_over.values()), checkpoint
      )
    try:
      return use(checkpoint)
    except DamagedCheckpointError as error:
      if checkpoint in known_checkpoints(source):
        passed_over[step] = str(error)
      else:
        logging.info("%s was deleted: taking the then newest.", checkpoint)


def _newest_but(directory, passed_over, flag):
  """The newest step of which a checkpoint is whole.

  Args:
    directory: str.
    passed_over: dict of step to why it is none; more are added.
    flag: str, what named the directory.
  """
  found = parts.by_step(directory)
  if not found:
    raise ValueError(f"No checkpoint in --{flag}={directory}.")
  for step in sorted(set(found) - set(passed_over), reverse=True):
    if parts.is_whole(found[step]):
      return step
    checkpoint = parts.prefix(directory, step)
    passed_over[step] = f"{checkpoint} is not there as a whole."
  advice = "Put whole ones there"
  if flag == "train_dir":
    advice += ", or give --start_new_model to train afresh"
  raise DamagedCheckpointError(
    f"--{flag}={directory} has no checkpoint that can be read: "
    f"{' '.join(passed_over.values())} {advice}."
  )


@contextlib.contextmanager
def telling_damage(checkpoint):
  """Turns errors of reading a checkpoint into a DamagedCheckpointError."""
  refuse_glob(checkpoint)
  if not tf.io.gfile.exists(f"{checkpoint}.index"):
    raise DamagedCheckpointError(f"There is no checkpoint {checkpoint}.")
  try:
    yield
  except (
    FileNotFoundError,
    IndexError,
    RuntimeError,
    tf.errors.OpError,
  ) as error:
    # The checkpoint reader raises whatever Python type is nearest.
    if isinstance(error, _NOT_THE_CHECKPOINT):
      raise
    raise DamagedCheckpointError(
      f"{checkpoint} is damaged: {messages.cause(str(error))}"
    ) from None


def refuse_glob(path):
  """TensorFlow takes a checkpoint's path for a glob, and finds no file.

  Raises:
    ValueError: the path is a glob.
  """
  if re.search(r"[*?[\]\\]", path):
    raise ValueError(
      f"{path} has one of the characters * ? [ ] \\, and TensorFlow finds no "
      "checkpoint by such a path: rename the directory."
    )


def restore(session, checkpoint, scope=scopes.SCOPE):
  """Restores a model's variables, leaving the optimiser's aside.

  A checkpoint of a training with --ema_decay has a moving average of each
  weight: the weights get these. Batch normalisation's statistics are no
  weights; they are restored as they are.

  Args:
    session: a session on a graph that `predictor.predict` was called in.
    checkpoint: path prefix.
    scope: str, where the model is in the graph; no other variable is touched.

  Returns:
    int, the checkpoint's global step.

  Raises:
    ValueError: the checkpoint is of another model, or damaged, or has the
      averages of some weights only.
  """
  with telling_damage(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    stored = reader.get_variable_to_shape_map()
  sources = _by_stored_name(scopes.variables(scope), scope)
  wrong = [
    f"{name} {v.shape.as_list()} (stored: {stored.get(name)})"
    for name, v in sources.items()
    if stored.get(name) != v.shape.as_list()
  ]
  if wrong:
    raise ValueError(
      f"{checkpoint} does not hold the model of its model_flags.json: "
      f"{', '.join(wrong[:5])}."
    )
  weights = _by_stored_name(scopes.trainable_variables(scope), scope)
  averages = weight_averages.stored(weights, stored, checkpoint)
  if averages:
    logging.info("%s: using the moving averages of the weights.", checkpoint)
    for name in weights:
      del sources[name]
    sources |= averages
  with telling_damage(checkpoint):
    tf.train.Saver(sources).restore(session, checkpoint)
  return step_of(checkpoint)


def restore_newest(session, source, scope=scopes.SCOPE, flag="train_dir"):
  """Restores a checkpoint, or the newest of a train_dir that can be read.

  It is chosen at this moment: training may delete it soon.

  Args:
    session: as of `restore`.
    source: str, path prefix or train_dir.
    scope: as of `restore`.
    flag: as of `with_newest`.

  Returns:
    Path prefix of the checkpoint restored.

  Raises:
    ValueError: as of `restore` and `with_newest`.
  """

  def use(checkpoint):
    restore(session, checkpoint, scope)
    return checkpoint

  return with_newest(source, use, flag)


def _by_stored_name(variables, scope):
  return {
    scopes.stored_name(variable, scope): variable for variable in variables
  }
