"""Tests of training/heap.py."""

import re

import pytest

from tests import runs
from training import heap


def resident():
  """Bytes of this process that are in memory."""
  try:
    with open("/proc/self/status") as status:
      return int(re.findall(r"VmRSS:\s+(\d+)", status.read())[0]) << 10
  except OSError:
    pytest.skip("No /proc.")


def test_what_is_free_below_something_in_use_is_given_back(monkeypatch):
  monkeypatch.setattr(heap, "_SECONDS", 0.0)
  memory = heap.Heap()
  texts = [bytes(1000) for _ in range(200_000)]
  last = texts.pop()
  del texts
  before = resident()
  if not memory.shrink():
    pytest.skip("Not with this C library.")
  assert before - resident() > 100_000_000
  assert not any(last)


def test_it_is_not_tried_all_the_time(monkeypatch):
  memory, now = heap.Heap(), [100.0]
  tries = []
  monkeypatch.setattr(memory, "_trim", lambda pad: tries.append(pad) or 1)
  monkeypatch.setattr(heap.time, "monotonic", lambda: now[0])
  memory._last = 100.0
  for now[0] in (101.0, 104.9, 105.1, 106.0, 111.0):
    memory.shrink()
  assert tries == [0, 0]


def test_a_step_that_is_not_reported_tries_too(monkeypatch, tmp_path):
  tries = []
  monkeypatch.setattr(heap.Heap, "shrink", lambda self: tries.append(self))
  pattern = runs.write_data(tmp_path / "data")
  small = {"model": "FrameLevelLogisticModel", "log_steps": 2}
  runs.run_train(tmp_path / "run", pattern, max_steps=4, **small)
  assert len(tries) == 4
