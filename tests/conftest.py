"""What `scripts/test.sh --fast` leaves out, besides what is marked slow."""

import pytest

# Their cases build a graph each, and differ in a number or a switch: a fast run
# takes the first of each test.
_GRAPHS = tuple(
  f"tests/{name}"
  for name in (
    "eval_inference",
    "models/",
    "pooling/",
    "predictor",
    "readers",
    "records/segments",
    "scripts/benchmark",
    "train_test",
    "training/",
  )
)


def pytest_collection_modifyitems(items):
  """Marks further cases of the same test as slow."""
  seen = set()
  for item in items:
    test = item.nodeid.partition("[")[0]
    if test in seen and test.startswith(_GRAPHS):
      item.add_marker(pytest.mark.slow)
    seen.add(test)
