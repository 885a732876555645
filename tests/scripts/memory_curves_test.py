"""Tests of scripts/memory_curves.py."""

import pytest

from scripts import memory_curves


@pytest.mark.parametrize("job", ["submission", "evaluation"])
def test_memory_and_time_are_told_as_videos_go_by(job):
  config = memory_curves.Config(
    job=job, num_videos=96, num_classes=30, batch_size=16, rows=3
  )
  found = memory_curves.measure(config)
  assert [count for count, _, _ in found] == [32, 64, 96, 96]
  for _, peak, micros in found:
    assert peak > 1 and micros > 0
