"""Scopes: where a model's variables live, in the graph and in a checkpoint.

In a checkpoint every variable of a model is named `tower/...`. In a graph a
model may stand in another scope, so that there is room for several.
"""

import contextlib
import re

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
