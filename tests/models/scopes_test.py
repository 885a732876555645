"""Tests of models/scopes.py."""

import tensorflow.compat.v1 as tf

from models import scopes
from tests import layers


def make(scope, name, trainable=True):
  with tf.variable_scope(scope):
    return tf.get_variable(name, [2], trainable=trainable)


def test_variables_are_those_within_a_scope_and_no_others():
  with tf.Graph().as_default():
    for scope in ("tower", "tower_2", "a/tower", "towe."):
      make(scope, "weights")
      make(scope, "averages", trainable=False)
    assert layers.names(scopes.variables()) == [
      "tower/averages",
      "tower/weights",
    ]
    # A point stands for itself.
    assert layers.names(scopes.variables("towe.")) == [
      "towe./averages",
      "towe./weights",
    ]
    found = scopes.trainable_variables("tower_2")
    assert layers.names(found) == ["tower_2/weights"]


def test_a_checkpoint_has_one_name_for_every_scope():
  with tf.Graph().as_default():
    for scope in ("tower", "teacher", "deep/teacher"):
      variable = make(scope, "tower/weights")
      assert scopes.stored_name(variable, scope) == "tower/tower/weights"


def test_collecting_finds_what_its_block_adds_alone():
  with tf.Graph().as_default():
    tf.add_to_collection("key", 1)
    with scopes.collecting("key") as outer:
      tf.add_to_collection("key", 2)
      with scopes.collecting("key") as inner:
        tf.add_to_collection("key", 3)
        tf.add_to_collection("other", 4)
    tf.add_to_collection("key", 5)
    assert (outer, inner) == ([2, 3], [3])
