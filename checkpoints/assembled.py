"""A train_dir of one checkpoint that no training wrote: means, ensembles."""

import os
from collections.abc import Callable

import numpy as np
import tensorflow.compat.v1 as tf

import files
import model_flags
from checkpoints import description, parts, train_dir


def check_output_dir(output_dir):
  """Refuses a directory that holds something, or that can't be made.

  Raises:
    ValueError: names --output_dir.
  """
  if parts.names_in(output_dir):
    raise ValueError(
      f"--output_dir={output_dir} holds something: give another directory."
    )
  files.require_writable(output_dir, "Give another --output_dir.")


def save(session, variables, directory, *, step, epoch):
  """Writes a checkpoint.

  Args:
    session: `tf.Session` in which the variables have their values.
    variables: dict of name in the checkpoint to variable.
    directory: str, it is there.
    step: int, the global step to name it by.
    epoch: int, epochs that are done.

  Returns:
    Path prefix of the checkpoint.
  """
  variables = dict(variables)
  for name, number in (("global_step", step), ("epoch", epoch)):
    variables[name] = tf.get_variable(name, initializer=np.int64(number))
    session.run(variables[name].initializer)
  path = tf.train.Saver(variables).save(
    session,
    parts.prefix(directory, step),
    write_meta_graph=False,
    write_state=False,
  )
  parts.write_list(directory, path)
  return path


def write(
  output_dir: str,
  values: model_flags.Values,
  reason: str,
  fill: Callable[[str], str],
  source: str,
) -> str:
  """Makes a train_dir, which appears as a whole.

  Args:
    output_dir: str.
    values: dict of the model flags.
    reason: str, why no more checkpoints will come.
    fill: function of a directory that writes a checkpoint there, as `save`
      does: its path prefix.
    source: str, a train_dir; what describes its features goes along.

  Returns:
    Path prefix of the checkpoint.
  """
  output_dir = output_dir.rstrip("/")
  with files.temporary_directory(output_dir) as temporary:
    new = os.path.join(temporary, "new")
    tf.io.gfile.makedirs(new)
    path = fill(new)
    model_flags.save(new, values)
    description.copy(source, new)
    train_dir.mark_finished(new, parts.step_in_name(path), reason)
    files.replace_directory(new, output_dir, os.path.join(temporary, "old"))
  return os.path.join(output_dir, os.path.basename(path))
