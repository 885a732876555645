"""Tests of training/class_weights.py."""

import numpy as np
import pytest

from console import program
from tests import runs
from training import class_weights


def _write(tmp_path, text):
  path = tmp_path / "weights"
  path.write_text(text)
  return str(path)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("0.5\n2\n\n0\n1e3", [0.5, 2, 0, 1000]),
    ("2,0.5\r\n0, 3\n", [3, 1, 0.5, 1]),
    ("", None),
    ("1\n2\n3\n", None),
    ("1\n" * 5, None),
  ],
)
def test_reads_all_classes_or_some(tmp_path, text, expected):
  path = _write(tmp_path, text)
  if expected is None:
    with pytest.raises(program.UserError, match="num_classes=4"):
      class_weights.read(path, 4)
  else:
    np.testing.assert_allclose(class_weights.read(path, 4), expected)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("0,1\n4,1\n", "line 2: class 4 of --num_classes=4"),
    ("0,1\n0,2\n", "line 2: class 0 has a weight above"),
    ("0,1\n\n1\n", "line 3: need a finite weight .*'1'"),
    ("-1,1\n", "line 1: need a finite"),
    ("1\nnan\n", "line 2: need a finite"),
    ("0,inf\n", "line 1: need a finite"),
    ("0,1e39\n", "line 1: need a finite"),
    ("0,-0.5\n", "line 1: need a finite"),
    ("class,weight\n", "line 1: need a finite"),
    ("0\n" * 4, "all weights are 0"),
  ],
)
def test_says_what_is_wrong_with_a_line(tmp_path, text, message):
  with pytest.raises(program.UserError, match=message):
    class_weights.read(_write(tmp_path, text), 4)


def test_says_that_a_file_is_no_text(tmp_path):
  path = tmp_path / "weights"
  path.write_bytes(b"\xff\xfe1\0")
  with pytest.raises(program.UserError, match=f"--class_weights={path} is no"):
    class_weights.read(str(path), 4)


def test_says_that_there_is_no_file(tmp_path):
  with pytest.raises(program.UserError, match="none does not exist"):
    class_weights.read(str(tmp_path / "none"), 4)


@pytest.mark.slow
def test_they_are_the_training_losses_alone(tmp_path):
  """Twice the weights are twice the loss, and the same metrics."""
  pattern = runs.write_data(tmp_path / "data")
  path = _write(tmp_path, "2\n" * runs.NUM_CLASSES)
  found, evaluated = [], []
  for name, given in (("plain", ""), ("doubled", path)):
    runs.run_train(
      tmp_path / name,
      pattern,
      max_steps=1,
      class_weights=given,
      shuffle_buffer=0,
      base_learning_rate=0.0,
      model="FrameLevelLogisticModel",
    )
    found.append(runs.events(tmp_path / name))
    evaluated.append(runs.run_eval(tmp_path / name, pattern)["avg_loss"])
  plain, doubled = (scalars["label_loss"][1] for scalars in found)
  assert doubled == pytest.approx(2 * plain)
  assert found[0]["model/Training_GAP"] == found[1]["model/Training_GAP"]
  assert evaluated[0] == pytest.approx(evaluated[1])
