"""Tests of `program.Signals`: what signals do to a program that is blocked.

Its main thread is in TensorFlow, or in a file that nobody writes, for ever:
only a thread of its own can answer.
"""

import errno
import os
import signal
import time

import pytest

from tests import programs, runs

pytestmark = pytest.mark.slow

_BLOCK = f"""
import sys

sys.path.insert(0, {str(programs.ROOT)!r})

from console import program

import signal

import tensorflow.compat.v1 as tf


def block():
  with (
    tf.Graph().as_default(),
    tf.Session() as session,
    program.Signals([signal.SIGTERM, signal.SIGINT], "saving", lambda *_: None),
  ):
    value = tf.queue.FIFOQueue(1, [tf.int32]).dequeue()
    print("Blocked.", file=sys.stderr, flush=True)
    session.run(value)  # Nobody enqueues.


program.run(block)
"""


def _wait_for_reader(process, fifo):
  """Waits until a program opens a named pipe: what keeps it waiting."""
  while True:
    try:
      return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
      if error.errno != errno.ENXIO:
        raise
    assert process.poll() is None, process.communicate()
    time.sleep(0.02)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_first_signal_is_told_and_the_second_ends_at_once(name, tmp_path):
  script, log = tmp_path / "block.py", tmp_path / "log.txt"
  script.write_text(_BLOCK)
  process = programs.start_program(script, log=log)
  programs.wait_for_log(process, log, lambda text: "Blocked." in text)
  process.send_signal(signal.Signals[name])
  told = f"{name}: saving; a second one ends the program at once."
  # It fails, too, if the program ends.
  programs.wait_for_log(process, log, lambda text: told in text)
  process.send_signal(signal.Signals[name])
  status, _, _ = programs.finish(process)
  assert status == 128 + signal.Signals[name]
  assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", ["train", "eval", "inference"])
def test_ctrl_c_ends_a_program_whose_file_system_stalls(
  name, tmp_path, tmp_path_factory
):
  fifo, log = tmp_path / "data.fifo", tmp_path / "log.txt"
  os.mkfifo(fifo)
  model, _ = runs.shared_model(tmp_path_factory)
  flags = {
    "train": {
      "train_dir": tmp_path / "model",
      "train_data_pattern": fifo,
      "num_epochs": 0,
      "max_steps": 9,
    },
    "eval": {"train_dir": model, "eval_data_pattern": fifo},
    "inference": {
      "train_dir": model,
      "input_data_pattern": fifo,
      "output_file": tmp_path / "out.csv",
    },
  }
  process = programs.start_program(
    f"{name}.py", *runs.flag_list(flags[name]), log=log
  )
  writing = _wait_for_reader(process, fifo)
  process.send_signal(signal.SIGINT)
  # It ends by the first, or tells that a second one is needed.
  while process.poll() is None and "at once" not in log.read_text():
    time.sleep(0.02)
  text = log.read_text()
  process.send_signal(signal.SIGINT)
  status, _, _ = programs.finish(process)
  os.close(writing)
  # A shell calls both 130: the second signal may come when the program has let
  # go of its handlers, and the interpreter is ending.
  assert status in (130, -signal.SIGINT)
  assert "SIGINT: " in text
  assert "Traceback" not in text
