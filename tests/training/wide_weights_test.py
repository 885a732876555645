"""Wide weights: several variables in training, one to whoever reads them."""

import contextlib
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


@contextlib.contextmanager
def in_parts():
  """Holds weights of over 384 numbers in parts, meanwhile."""
  rows = []
  product = gradients.Factored.product

  def seen(self, *args):
    rows.append(self.inputs.shape[1])
    return product(self, *args)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(linear, "_PART_BYTES", 1536)
    patch.setattr(products, "WIDE", 8)
    patch.setattr(products, "_MANY", 8)
    patch.setattr(gradients, "_WIDE", 8)
    patch.setattr(gradients.Factored, "product", seen)
    yield
  assert rows.count(13) >= 2  # Of 38 rows of 24: 13, 13, 12.


def go_on(directory, pattern, **changes):
  """Trains to step 5, or another: arrays by name."""
  given = {**FLAGS, "max_steps": 5, **changes}
  return runs.variables_of(runs.run_train(directory, pattern, **given))


@pytest.fixture(scope="module")
def trained(begun, pattern):
  """Two train_dirs and variables: with whole weights, and in parts."""
  directories = [begun.parent / name for name in ("whole", "parts")]
  for directory in directories:
    shutil.copytree(begun, directory)
  whole, parts = directories
  expected = go_on(whole, pattern)
  with in_parts():
    go_on(parts, pattern, max_steps=4)  # From whole ones,
    found = go_on(parts, pattern)  # and from parts.
  return directories, (expected, found)


def assert_same(found, expected):
  assert sorted(found) == sorted(expected)
  assert f"{WEIGHTS}/Adam" in found
  assert f"{WEIGHTS}/ExponentialMovingAverage" in found
  for name in expected.keys() - {"epoch"}:  # One that goes on counts afresh.
    np.testing.assert_allclose(
      found[name], expected[name], 1e-4, 1e-6, err_msg=name
    )


def test_training_and_resuming_are_the_same(trained):
  _, (expected, found) = trained
  assert_same(found, expected)


def test_towers_and_the_global_norm_are_the_same(begun, pattern, tmp_path):
  changes = {"num_towers": 2, "batch_size": 6, "clip_by_global_norm": True}
  for name in ("whole", "parts"):
    shutil.copytree(begun, tmp_path / name)
  expected = go_on(tmp_path / "whole", pattern, **changes)
  with in_parts():
    found = go_on(tmp_path / "parts", pattern, **changes)
  assert_same(found, expected)


def test_evaluation_is_that_of_the_whole(trained, pattern):
  directories, _ = trained
  expected, found = (runs.run_eval(each, pattern) for each in directories)
  assert found["avg_loss"] == pytest.approx(expected["avg_loss"], rel=1e-5)
  assert found["gap"] == pytest.approx(expected["gap"], abs=1e-6)


def test_a_new_run_takes_them(trained, pattern, tmp_path, caplog):
  (_, other), (_, stored) = trained
  with in_parts(), caplog.at_level("INFO", logger="absl"):
    found = go_on(
      tmp_path,
      pattern,
      max_steps=1,
      base_learning_rate=1e-30,
      init_checkpoint=str(other),
    )
  average = stored[f"{WEIGHTS}/ExponentialMovingAverage"]
  np.testing.assert_array_equal(found[WEIGHTS], average)
  (row,) = (row for row in caplog.text.splitlines() if f"  {WEIGHTS} " in row)
  assert str(list(average.shape)) in row and row.endswith("its moving average")
