"""How sessions run that tests make."""

import contextlib
from unittest import mock

import tensorflow.compat.v1 as tf
from tensorflow.python.client import session as tf_session


@contextlib.contextmanager
def as_written(is_wanted=lambda: True):
  """Sessions leave out what TensorFlow makes of a graph before a run.

  That takes most of the time of graphs that run once. It is also when XLA
  finds its parts: sessions with XLA are left as they are.

  Args:
    is_wanted: function without arguments, asked as a session is made.
  """
  start = tf_session.BaseSession.__init__

  def with_options(self, target="", graph=None, config=None):
    chosen = tf.ConfigProto()
    chosen.CopyFrom(config or tf.ConfigProto())
    options = chosen.graph_options
    if not options.optimizer_options.global_jit_level:
      options.rewrite_options.disable_meta_optimizer = is_wanted()
    start(self, target, graph, chosen)

  with mock.patch.object(tf_session.BaseSession, "__init__", with_options):
    yield
