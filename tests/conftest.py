"""What holds for all tests: what a fast run leaves out, how sessions run."""

import hypothesis
import pytest

# Their cases build a graph each, and differ in a number or a switch: a fast run
# takes the first of each test.
_GRAPHS = tuple(
  f"tests/{name}"
  for name in (
    "eval_test",
    "inference_test",
    "models/",
    "pooling/",
    "predictor",
    "readers",
    "records/segments",
    "scripts/benchmark",
    "train_",
    "training/",
  )
)
_as_written = True
# The same few examples in each run, however long one takes.
hypothesis.settings.register_profile(
  "same", derandomize=True, deadline=None, database=None, max_examples=50
)
hypothesis.settings.load_profile("same")


def pytest_collection_modifyitems(items):
  """Marks further cases of the same test as slow."""
  seen = set()
  for item in items:
    test = item.nodeid.partition("[")[0]
    if test in seen and test.startswith(_GRAPHS):
      item.add_marker(pytest.mark.slow)
    seen.add(test)


@pytest.fixture(autouse=True, scope="session")
def graphs_run_as_they_are_written():
  """Sessions of tests leave out what TensorFlow makes of a graph before a run.

  That takes most of the time of graphs that run once. Tests that are marked
  `rewritten` do without this, and programs.
  """
  # Not above: the process that shares out tests to others has no use for it.
  import tensorflow.compat.v1 as tf
  from tensorflow.python.client import session as tf_session

  start = tf_session.BaseSession.__init__

  def with_options(self, target="", graph=None, config=None):
    chosen = tf.ConfigProto()
    chosen.CopyFrom(config or tf.ConfigProto())
    options = chosen.graph_options.rewrite_options
    options.disable_meta_optimizer = _as_written
    start(self, target, graph, chosen)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tf_session.BaseSession, "__init__", with_options)
    yield


def pytest_runtest_setup(item):
  """Says how the sessions run that a test makes."""
  global _as_written
  _as_written = item.get_closest_marker("rewritten") is None
