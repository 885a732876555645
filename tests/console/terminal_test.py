"""What programs say on a terminal, from their start to their end."""

import fcntl
import os
import pty
import re
import struct
import termios

import pytest

from tests import runs

pytestmark = pytest.mark.slow


def _on_a_terminal(columns, name, *args, fresh=False):
  """What a program says on a terminal; 0 columns if it does not know them."""
  own, other = pty.openpty()
  fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
  with os.fdopen(other, "w") as stream:
    process = runs.start_program(
      name,
      *args,
      stderr=stream,
      fresh=fresh,
      environment={"TF_CPP_MIN_LOG_LEVEL": "2"},
    )
  said = b""
  try:
    while some := os.read(own, 1 << 16):
      said += some
  except OSError:  # The other end is closed.
    pass
  os.close(own)
  status, stdout, _ = runs.finish(process)
  assert (status, stdout) == (0, ""), said.decode()
  return said.decode()


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
  """The pattern of files to train on, which have others beside them."""
  directory = tmp_path_factory.mktemp("data")
  runs.write_data(directory, split="validate")
  return runs.write_data(directory)


def test_training_has_a_banner_one_live_line_and_a_hint(pattern, tmp_path):
  directory = tmp_path / "model"
  said = _on_a_terminal(
    120,
    "train.py",
    *runs.train_flag_list(
      directory, pattern, max_steps=60, model="FrameLevelLogisticModel"
    ),
    fresh=True,  # An interpreter of its own, whose TensorFlow greets.
  )
  assert ".cc:" not in said
  assert " parameters, 6 classes" in said
  assert "about 12 in 2 files, 4 a step" in said
  assert "rgb 7, audio 5 (frames)" in said
  # What moves: first without a pace.
  moves = [line for line in said.split("\r") if "/60 steps" in line]
  assert "warming up" in moves[0] and "loss=" in moves[-1]
  assert "60/60" in moves[-1]
  # No line of the log but the last step's.
  lines = [line for line in said.splitlines() if "training step" in line]
  assert len(lines) == 1 and "training step 60 |" in lines[0]
  other = pattern.replace("train-", "validate-")
  assert (
    f"eval.py --train_dir={directory} --run_once "
    f"--eval_data_pattern='{other}'" in said
  )
  assert f"tensorboard --logdir={tmp_path}" in said

  said = _on_a_terminal(
    0,
    "eval.py",
    f"--train_dir={directory}",
    "--run_once",
    f"--eval_data_pattern={other}",
  )
  assert ".cc:" not in said
  assert "12/12 [" in said
  assert "epoch/eval number 60 | " in said


def test_programs_load_tensorflow_by_the_module_that_hushes_it():
  for path in [*runs.ROOT.glob("*.py"), *runs.ROOT.glob("scripts/*.py")]:
    text = path.read_text()
    if "program.run(" in text and path.name != "program.py":
      # Alone, so that it comes first, or in the process that needs it.
      assert re.search(
        r"^from console import program  # isort: skip"
        r"|^ +from console import program$",
        text,
        re.M,
      ), path
