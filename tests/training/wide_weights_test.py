"""Wide weights: several variables in training, one to whoever reads them."""

import shutil

import numpy as np
import pytest

from pooling import linear, products
from tests import runs
from training import gradients

# Nothing is drawn at random, all videos come in each step.
FLAGS = {
  "frame_sampling": "uniform",
  "batch_size": 12,
  "shuffle_buffer": 0,
  "ema_decay": 0.9,
  "clip_gradient_norm": 0.01,
  "gating": True,
  "netvlad_hidden_size": 24,
}
WEIGHTS = "tower/hidden1/weights"


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
  return runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def begun(pattern, tmp_path_factory):
  """The train_dir of two steps with whole weights."""
  directory = tmp_path_factory.mktemp("begun") / "run"
  runs.run_train(directory, pattern, max_steps=2, **FLAGS)
  return directory


@pytest.fixture
def in_parts(monkeypatch):
  """A function that has weights of over 384 numbers held in parts."""
  rows = []

  product = gradients.Factored.product

  def seen(self, *args):
    rows.append(self.inputs.shape[1])
    return product(self, *args)

  def use():
    monkeypatch.setattr(linear, "_PART_BYTES", 1536)
    monkeypatch.setattr(products, "WIDE", 8)
    monkeypatch.setattr(products, "_BLOCK", 4)
    monkeypatch.setattr(gradients, "_WIDE", 8)
    monkeypatch.setattr(gradients.Factored, "product", seen)

  yield use
  assert rows.count(13) >= 2  # Of 38 rows of 24: 13, 13, 12.


def go_on(begun, directory, pattern, **changes):
  """What three steps more make of it: arrays by name."""
  shutil.copytree(begun, directory)
  given = {**FLAGS, "max_steps": 5, **changes}
  return runs.variables_of(runs.run_train(directory, pattern, **given))


@pytest.mark.parametrize(
  "changes",
  [{}, {"num_towers": 2, "batch_size": 6}, {"clip_by_global_norm": True}],
  ids=["alone", "towers", "global norm"],
)
def test_training_is_the_same(changes, begun, pattern, tmp_path, in_parts):
  expected = go_on(begun, tmp_path / "whole", pattern, **changes)
  in_parts()
  found = go_on(begun, tmp_path / "parts", pattern, **changes)
  assert sorted(found) == sorted(expected)
  assert f"{WEIGHTS}/Adam" in found
  assert f"{WEIGHTS}/ExponentialMovingAverage" in found
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, 1e-4, 1e-6, err_msg=name)


def test_a_run_goes_on_from_parts(begun, pattern, tmp_path, in_parts):
  in_parts()
  expected = go_on(begun, tmp_path / "once", pattern)
  directory = tmp_path / "again"
  go_on(begun, directory, pattern, max_steps=4)
  checkpoint = runs.run_train(directory, pattern, **FLAGS, max_steps=5)
  found = runs.variables_of(checkpoint)
  for name in expected.keys() - {"epoch"}:  # That is not over yet.
    np.testing.assert_allclose(
      found[name], expected[name], 1e-5, 1e-7, err_msg=name
    )


def test_evaluation_is_that_of_the_whole(begun, pattern, tmp_path, in_parts):
  go_on(begun, tmp_path / "whole", pattern)
  in_parts()
  go_on(begun, tmp_path / "parts", pattern)
  expected, found = (
    runs.run_eval(tmp_path / name, pattern) for name in ("whole", "parts")
  )
  assert found["avg_loss"] == pytest.approx(expected["avg_loss"], rel=1e-5)
  assert found["gap"] == pytest.approx(expected["gap"], abs=1e-6)


def test_a_new_run_takes_them(begun, pattern, tmp_path, in_parts, caplog):
  in_parts()
  go_on(begun, tmp_path / "first", pattern)
  stored = runs.variables_of(
    runs.restore.latest_checkpoint(str(tmp_path / "first"))
  )
  with caplog.at_level("INFO", logger="absl"):
    checkpoint = runs.run_train(
      tmp_path / "second",
      pattern,
      **FLAGS,
      max_steps=1,
      base_learning_rate=1e-30,
      init_checkpoint=str(tmp_path / "first"),
    )
  average = stored[f"{WEIGHTS}/ExponentialMovingAverage"]
  np.testing.assert_array_equal(runs.variables_of(checkpoint)[WEIGHTS], average)
  (row,) = (row for row in caplog.text.splitlines() if f"  {WEIGHTS} " in row)
  assert str(list(average.shape)) in row and row.endswith("its moving average")
