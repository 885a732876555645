"""Tests of `program.Signals`: what signals do to a program that is blocked.

Each case is a process, forked from one that has loaded TensorFlow, whose main
thread is in TensorFlow for ever: only a thread of its own can answer.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import program
from tests import runs

_ROOT = pathlib.Path(program.__file__).parent

_DRIVER = '''
"""Starts each case, sends it a signal, and again once it has told the first."""

import program

import importlib
import json
import os
import signal
import sys
import time

import tensorflow.compat.v1 as tf


def block():
  """Waits in TensorFlow for what nobody enqueues."""
  with (
    tf.Graph().as_default(),
    tf.Session() as session,
    program.Signals(
      [signal.SIGTERM, signal.SIGINT], "saving", lambda *_: None
    ),
  ):
    value = tf.queue.FIFOQueue(1, [tf.int32]).dequeue()
    os.close(opened)
    session.run(value)


def run_program(name, *args):
  module = importlib.import_module(name)
  ignored = module.define_flags()
  sys.argv[1:] = args
  if name == "train":
    program.run(module.main)
  program.run(lambda: module.main(ignored))


directory, cases = sys.argv[1], json.loads(sys.argv[2])
for number, (what, signal_name, *args) in enumerate(cases):
  log, fifo = f"{directory}/{number}.log", f"{directory}/{number}.fifo"
  reading, opened = os.pipe()
  child = os.fork()
  if not child:
    os.close(reading)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = [f"{what}.py"]
    try:
      if what == "block":
        program.run(block)
      else:
        run_program(what, *args)
    except SystemExit as leaving:
      os._exit(leaving.code or 0)
    os._exit(1)  # Not reached.
  os.close(opened)
  if what == "block":
    os.read(reading, 1)  # Until the child closes its end.
  else:
    os.open(fifo, os.O_WRONLY)  # Until the child opens it to read.
  os.kill(child, signal.Signals[signal_name])
  ended = 0
  while not ended and "at once" not in open(log).read():
    time.sleep(0.02)
    ended, status = os.waitpid(child, os.WNOHANG)
  if not ended:
    with open(f"{directory}/{number}.alive", "w"):
      os.kill(child, signal.Signals[signal_name])
    _, status = os.waitpid(child, 0)
  with open(f"{directory}/{number}.status", "w") as file:
    file.write(str(os.waitstatus_to_exitcode(status)))
'''

_BLOCKED = [("block", "SIGINT"), ("block", "SIGTERM")]
_READING = ["train", "eval", "inference"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """{case: (status, whether it took a second signal, log)}."""
  directory = tmp_path_factory.mktemp("signals")
  model, _ = runs.shared_model(tmp_path_factory)
  reading = [
    {
      "train_dir": model if name != "train" else directory / "train_dir",
      f"{pattern}_data_pattern": directory / f"{number}.fifo",
      **more,
    }
    for number, (name, pattern, more) in enumerate(
      [
        ("train", "train", {"num_epochs": 0, "max_steps": 9}),
        ("eval", "eval", {}),
        ("inference", "input", {"output_file": directory / "out.csv"}),
      ],
      start=len(_BLOCKED),
    )
  ]
  cases = _BLOCKED + [
    (name, "SIGINT", *runs.flag_list(given))
    for name, given in zip(_READING, reading)
  ]
  for number in range(len(cases)):
    os.mkfifo(directory / f"{number}.fifo")
  script = directory / "driver.py"
  script.write_text(_DRIVER)
  subprocess.run(
    [sys.executable, str(script), str(directory), json.dumps(cases)],
    env={"PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
    timeout=runs.TIMEOUT,
    check=True,
  )
  return {
    case[:2]: (
      int((directory / f"{number}.status").read_text()),
      (directory / f"{number}.alive").exists(),
      (directory / f"{number}.log").read_text(),
    )
    for number, case in enumerate(cases)
  }


@pytest.mark.parametrize(("case", "name"), _BLOCKED)
def test_the_first_signal_is_told_and_the_second_ends_at_once(
  results, case, name
):
  status, took_two, log = results[case, name]
  assert f"{name}: saving; a second one ends the program at once." in log
  assert took_two
  assert status == 128 + {"SIGINT": 2, "SIGTERM": 15}[name]


@pytest.mark.parametrize("name", _READING)
def test_ctrl_c_ends_a_program_whose_file_system_stalls(results, name):
  status, _, log = results[name, "SIGINT"]
  assert status == 130
  assert "SIGINT: " in log
  assert "Traceback" not in log
