"""Tests of scripts/gpu_check.py, on the CPU."""

import numpy as np
import pytest

from scripts import gpu_check


@pytest.mark.slow
def test_every_part_fills_its_column_of_the_table(tmp_path, monkeypatch):
  names = ["as it is", "mixed XLA"]  # XLA compiles for seconds.
  monkeypatch.setattr(
    gpu_check, "_VARIANTS", {name: gpu_check._VARIANTS[name] for name in names}
  )
  config = gpu_check.Config(
    device="cpu",
    small=True,
    models="FrameLevelLogisticModel",
    layer_tests="--version",
    max_batch_size=8,
    output=str(tmp_path / "table.md"),
  )
  check = gpu_check.Check(config, str(tmp_path))
  check.run()
  assert check.failures == 0, check.text()
  assert check.notes[-1].startswith("Layers: pytest ")
  for row in check.rows.values():
    assert sorted(row) == sorted(check.columns)
    assert row["CPU and device differ by"] == "0e+00"
    assert row["largest batch"] == "8 or more"
    rate, share, memory = row["as it is: examples/s, share of peak, GB"].split()
    assert float(rate.strip(",").replace(",", "")) > 0
    assert 0 < float(memory) < 100 and 0 <= float(share.strip(",")) < 1
  lines = check.text().splitlines()
  assert lines[-1].startswith("| FrameLevelLogisticModel | 0e+00 | ")


def test_what_has_no_time_left_stays_empty_and_what_fails_is_told(tmp_path):
  def fail(unused_name):
    raise ValueError("One line.\nAnother.")

  config = gpu_check.Config(
    device="cpu",
    small=True,
    models="MeanModel",
    output=str(tmp_path / "table.md"),
  )
  check = gpu_check.Check(config, str(tmp_path))
  check._each("first", fail)
  check._end = 0
  check._each("second", fail)
  assert check.rows == {"MeanModel": {"first": "FAILED: One line."}}
  assert check.failures == 1
  # What is known is there, whenever the program ends.
  assert "FAILED: One line." in (tmp_path / "table.md").read_text()


def test_updates_are_apart_by_a_share_of_them():
  start, one, other = np.zeros(3), np.array([3, 0, 4]), np.array([3, 0.05, 4])
  apart = gpu_check._apart([start], [one], [other])
  assert apart == pytest.approx(0.01, rel=2e-3)
  # Rounding of an update that is 0 is beside the largest.
  noise = np.full(3, 1e-7)
  found = gpu_check._apart([start, start], [one, noise], [one, -noise])
  assert found < 1e-4
  assert np.isnan(gpu_check._apart([start], [one], [np.nan * other]))
