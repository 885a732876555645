"""Scopes: where a model's variables live, in the graph and in a checkpoint.

In a checkpoint every variable of a model is named `tower/...`. In a graph a
model may stand in another scope, so that there is room for several.

Wide weights are several variables in training, parts one below the other (see
`pooling.linear`), and one in a checkpoint.
"""

import contextlib
import re
from typing import NamedTuple

import tensorflow.compat.v1 as tf

# Part of the checkpoint format.
SCOPE = "tower"


def variables(scope=SCOPE):
  """All variables within a scope, and no other's."""
  return tf.global_variables(f"{re.escape(scope)}/")


def trainable_variables(scope=SCOPE):
  """The weights within a scope, and no other's."""
  return tf.trainable_variables(f"{re.escape(scope)}/")


def stored_name(variable, scope=SCOPE):
  """The name in a checkpoint of a variable within a scope."""
  return SCOPE + variable.op.name.removeprefix(scope)


class Stored(NamedTuple):
  """What a checkpoint holds as one: a variable, or all parts of one.

  Attributes:
    name: str, in the checkpoint.
    shape: tf.TensorShape.
    parts: list of variables.
  """

  name: str
  shape: tf.TensorShape
  parts: list


def whole_name(variable):
  """The name of a variable, or of what it is a part of."""
  part = variable._get_save_slice_info()
  return part.full_name if part else variable.op.name


def wholes(variables):
  """What a checkpoint holds of a training.

  Args:
    variables: list of variables, all parts of those that are in parts.

  Returns:
    dict of the name in the checkpoint to `Stored`.
  """
  found = {}
  for variable in variables:
    part, name = variable._get_save_slice_info(), whole_name(variable)
    shape = tf.TensorShape(part.full_shape) if part else variable.shape
    found.setdefault(name, Stored(name, shape, [])).parts.append(variable)
  return found


@contextlib.contextmanager
def collecting(key):
  """Yields a list of what the `with` block adds to a collection of the graph.

  The list is filled when the block ends. What others put into the collection,
  before or after, is not in it.

  Args:
    key: str, such as `tf.GraphKeys.UPDATE_OPS`.
  """
  added = []
  count = len(tf.get_collection_ref(key))
  yield added
  added += tf.get_collection_ref(key)[count:]
