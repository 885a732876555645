"""How sessions run that tests make."""

import contextlib
from unittest import mock

import tensorflow.compat.v1 as tf
from tensorflow.python.client import session as tf_session
from tensorflow.python.data.ops import dataset_ops


@contextlib.contextmanager
def as_written(is_wanted=lambda: True):
  """Sessions leave out what TensorFlow makes of a graph before a run.

  That takes most of the time of graphs that run once. It is also when XLA
  finds its parts: sessions with XLA are left as they are. Of what tf.data reads
  it is nearly half of the time to a first batch.

  Args:
    is_wanted: function without arguments, asked as a session or an iterator is
      made.
  """
  start = tf_session.BaseSession.__init__

  def with_options(self, target="", graph=None, config=None):
    chosen = tf.ConfigProto()
    chosen.CopyFrom(config or tf.ConfigProto())
    options = chosen.graph_options
    if not options.optimizer_options.global_jit_level:
      options.rewrite_options.disable_meta_optimizer = is_wanted()
    start(self, target, graph, chosen)

  def unchanged(data):
    options = tf.data.Options()
    changes = options.experimental_optimization
    changes.apply_default_optimizations = not is_wanted()
    return data.with_options(options)

  with (
    mock.patch.object(tf_session.BaseSession, "__init__", with_options),
    mock.patch.object(dataset_ops.DatasetV2, "_apply_debug_options", unchanged),
  ):
    yield
