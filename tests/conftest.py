"""What holds for all tests: what a fast run leaves out, how sessions run."""

import gc
import logging
import os

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
    "named_test",
    "pooling/",
    "predictions/predictor",
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


def pytest_collection_finish():
  """Has rubbish looked for seldom: graphs are of many objects, all in use."""
  gc.freeze()
  gc.set_threshold(50_000, 10, 5)


@pytest.fixture(autouse=True, scope="session")
def graphs_run_as_they_are_written():
  """See `sessions.as_written`. Not of tests marked `rewritten`."""
  # Not above: the process that shares out tests to others has no use for it.
  from tests import sessions

  with sessions.as_written(lambda: _as_written):
    yield


def pytest_runtest_setup(item):
  """Says how the sessions run that a test makes, and what of its log counts."""
  # A test before it may have parsed --verbosity, which sets this.
  logging.getLogger("absl").setLevel(logging.NOTSET)
  global _as_written
  _as_written = item.get_closest_marker("rewritten") is None
  # For programs that the test starts.
  os.environ["AS_WRITTEN"] = str(int(_as_written))
