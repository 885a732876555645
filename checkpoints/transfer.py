"""A new run's start from what another run has learnt.

The other run may have had other classes, other features or another head. A
variable is taken as a whole, where the other checkpoint has one of its name and
shape, or it starts anew. Moving averages of the weights stand in for the
weights, as in evaluation. Of the optimiser nothing is taken.
"""

import json
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import restore, weight_averages
from models import scopes
from pooling import moving_average


class _Row(NamedTuple):
  """What becomes of a variable.

  Attributes:
    variable: `scopes.Stored`.
    source: str, the name of what it takes in the other checkpoint, or None.
    told: str, the same in words.
  """

  variable: Any
  source: str | None
  told: str


def find(source):
  """The checkpoint of another run to start from, read as a whole: its prefix.

  Args:
    source: str, its train_dir for the newest, or the path prefix of one.

  Raises:
    ValueError: it is not there or damaged.
  """
  return restore.with_newest(source, restore.verified, "init_checkpoint")


def taken(checkpoint, variables):
  """Finds what a new model takes from another run's checkpoint, and logs it.

  Args:
    checkpoint: path prefix.
    variables: list of the model's variables, in `scopes.SCOPE`.

  Returns:
    dict of a name in the checkpoint to the `scopes.Stored` that it is for.

  Raises:
    ValueError: nothing fits, or the checkpoint has moving averages of some of
      the weights that fit, and not of others.
  """
  with restore.telling_damage(checkpoint):
    stored = tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map()
  rows = _rows(checkpoint, variables, stored)
  fitting = {row.source: row.variable for row in rows if row.source}
  table = _table(rows)
  if not fitting:
    raise ValueError(
      f"--init_checkpoint: {checkpoint} has no variable of this model:\n{table}"
    )
  logging.info(
    "--init_checkpoint: %d of %d variables are taken from %s, the others start "
    "anew:\n%s",
    len(fitting),
    len(rows),
    checkpoint,
    table,
  )
  if unused := _unused(stored, {row.variable.name for row in rows}):
    logging.info(
      "--init_checkpoint: %d variables of it have no place in this model: %s.",
      len(unused),
      json.dumps(unused),
    )
  return fitting


def _rows(checkpoint, variables, stored):
  """list of `_Row`, by name.

  Args:
    checkpoint: str, for errors.
    variables: list of the model's variables.
    stored: dict of name to list of int, what the checkpoint holds.
  """
  by_name = scopes.wholes(variables)
  fitting = {
    name: variable
    for name, variable in by_name.items()
    if stored.get(name) == variable.shape.as_list()
  }
  why_new = {
    name: f"new: stored {stored[name]}" if name in stored else "new: not stored"
    for name in by_name.keys() - fitting.keys()
  }
  # Batch statistics that start anew are to warm up again, and so are those of
  # what new weights make: `linear` has both in its scope.
  scopes_of_new = {name.rpartition("/")[0] for name in why_new}
  for name in list(fitting):
    scope, _, leaf = name.rpartition("/")
    weights = f"{scope.rpartition('/')[0]}/weights"
    is_new = scope in scopes_of_new or weights in why_new
    if leaf == moving_average.COUNTER and is_new:
      del fitting[name]
      why_new[name] = "new: counts updates of what is new"
  trained = set(scopes.wholes(scopes.trainable_variables()))
  averages = weight_averages.stored(
    {name: v for name, v in fitting.items() if name in trained},
    stored,
    checkpoint,
  )
  sources = {variable.name: name for name, variable in averages.items()}
  return [
    _Row(by_name[name], None, why_new[name])
    if name in why_new
    else _Row(
      by_name[name],
      sources.get(name, name),
      "taken: its moving average" if name in sources else "taken",
    )
    for name in sorted(by_name)
  ]


def _table(rows):
  """The rows as lines of text."""
  cells = [
    (row.variable.name, str(row.variable.shape.as_list()), row.told)
    for row in rows
  ]
  widths = [max(len(cell[i]) for cell in cells) + 2 for i in range(2)]
  return "\n".join(
    f"  {name:{widths[0]}}{shape:{widths[1]}}{told}"
    for name, shape, told in cells
  )


def _unused(stored, names):
  """Names of a checkpoint's model variables that another model has not.

  What hangs below another variable is the optimiser's, or an average.
  """
  return sorted(
    name
    for name in stored
    if name.startswith(f"{scopes.SCOPE}/")
    and name not in names
    and name.rpartition("/")[0] not in stored
  )
