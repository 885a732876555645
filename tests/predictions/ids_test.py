"""Tests of predictions/ids.py."""

import numpy as np

from predictions import ids


def test_tells_what_is_new_as_a_set_does():
  rng = np.random.default_rng(0)
  found, expected = ids.Ids(), set()
  assert not found.has([b"a"]).any() and not found.add([]).size
  for size in (1, 7, 3, 20, 1, 64, 5):
    batch = [b"%d" % i for i in rng.integers(0, 60, size)]
    new = []
    for each in batch:
      new.append(each not in expected)
      expected.add(each)
    assert found.add(batch).tolist() == new
  every = [b"%d" % i for i in range(70)]
  assert found.has(every).tolist() == [each in expected for each in every]
