"""Tests of console/program.py.

`program.run` parses the flags of a whole process, logs where the process logs,
and ends it: each case has a process, forked from one that has loaded
TensorFlow.
"""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from console import program

_ROOT = pathlib.Path(program.__file__).parent.parent

_DRIVER = '''
"""A program of the tests."""

import dataclasses
import json
import os
import sys

from console import program

import tensorflow.compat.v1 as tf
from absl import logging

from console import flag_fields
from records import report as read_report


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Model"):
  size: int = flag_fields.integer(3, "Its size.", low=1)


def fail(error):
  raise error


def fail_in_tensorflow():
  tf.io.gfile.remove("/not/there")


def fail_in_a_session():
  with tf.Graph().as_default(), tf.Session() as session:
    path = tf.placeholder_with_default("/not/there", [])
    session.run(tf.io.read_file(path) + tf.io.read_file(path))


def log():
  logging.debug("a debugging line")
  logging.info("an information")
  logging.warning("a warning")
  tf.logging.warning("TensorFlow's own warning")


_MAINS = {
  "nothing": lambda: None,
  "log": log,
  "status_0": lambda: 0,
  "status_3": lambda: program.INCOMPLETE,
  "user_error": lambda: fail(program.UserError("mend this")),
  "value_error": lambda: fail(ValueError("--model=X\\nwas --model=Y")),
  "os_error": lambda: fail(FileNotFoundError(2, "No such file", "/x/y")),
  "record_error": lambda: fail(read_report.StrictRecordError("record 7")),
  "tensorflow_error": fail_in_tensorflow,
  "session_error": fail_in_a_session,
  "memory_error": lambda: fail(MemoryError()),
  "long_error": lambda: fail(ValueError("x" * 10**7)),
  "bug": lambda: fail(KeyError("a bug")),
  "interrupt": lambda: fail(KeyboardInterrupt()),
}

flag_fields.define(Config)
directory, cases = sys.argv[1], json.loads(sys.argv[2])
for number, (name, *args) in enumerate(cases):
  child = os.fork()
  if not child:
    for stream in (1, 2):
      path = f"{directory}/{number}.{stream}"
      os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = ["/some/where/prog.py", *args]
    try:
      program.run(_MAINS[name])
    except SystemExit as leaving:
      # Unloading TensorFlow takes most of a second.
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(leaving.code or 0)
  _, status = os.waitpid(child, 0)
  with open(f"{directory}/{number}.status", "w") as file:
    file.write(str(os.waitstatus_to_exitcode(status)))
'''

_CASES = [
  ("nothing",),
  ("nothing", "/data/b.tfrecord", "c"),
  ("nothing", "--no_such_flag=1"),
  ("nothing", "--help"),
  ("nothing", "--help=Model"),
  ("nothing", "--help=Modle"),
  ("log",),
  ("log", "--verbosity=-1"),
  ("log", "--verbosity=1"),
  ("status_0",),
  ("status_3",),
  ("user_error",),
  ("user_error", "--verbosity=0"),
  ("user_error", "--verbosity=1"),
  ("value_error",),
  ("value_error", "--verbosity=1"),
  ("os_error",),
  ("record_error",),
  ("tensorflow_error",),
  ("session_error",),
  ("memory_error",),
  ("long_error",),
  ("bug",),
  ("interrupt",),
]


# What the C++ of TensorFlow says of the machine, such as of its GPUs.
_NATIVE = re.compile(
  r"^(WARNING: All log messages before|[EIW]\d{4} .*\.cc:\d+\] ).*\n", re.M
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """{case: (status, stdout, stderr)}."""
  directory = tmp_path_factory.mktemp("program")
  script = directory / "driver.py"
  script.write_text(_DRIVER)
  subprocess.run(
    [sys.executable, str(script), str(directory), json.dumps(_CASES)],
    env={"PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
    timeout=120,
    check=True,
  )
  return {
    case: (
      int((directory / f"{number}.status").read_text()),
      (directory / f"{number}.1").read_text(),
      _NATIVE.sub("", (directory / f"{number}.2").read_text()),
    )
    for number, case in enumerate(_CASES)
  }


@pytest.mark.parametrize(
  ("case", "status"), [("nothing", 0), ("status_0", 0), ("status_3", 3)]
)
def test_a_status_is_passed_on(results, case, status):
  assert results[(case,)] == (status, "", "")


@pytest.mark.parametrize(
  ("case", "message"),
  [
    (("user_error",), "mend this"),
    (("user_error", "--verbosity=0"), "mend this"),
    (("value_error",), "--model=X\nwas --model=Y"),
    (("os_error",), "[Errno 2] No such file: '/x/y'"),
    (("record_error",), "record 7"),
  ],
)
def test_what_a_user_can_mend_is_shown_without_a_traceback(
  results, case, message
):
  assert results[case] == (1, "", f"prog.py: error: {message}\n")


def test_an_error_of_tensorflow_is_shown_without_a_traceback(results):
  status, stdout, stderr = results[("tensorflow_error",)]
  assert (status, stdout) == (1, "")
  assert stderr.startswith("prog.py: error: ")
  assert "/not/there" in stderr
  assert "Traceback" not in stderr


@pytest.mark.parametrize(
  ("name", "last"),
  [
    ("user_error", "program.UserError: mend this"),
    ("value_error", "ValueError: --model=X\nwas --model=Y"),
  ],
)
def test_verbosity_1_shows_the_traceback(results, name, last):
  status, stdout, stderr = results[(name, "--verbosity=1")]
  assert (status, stdout) == (1, "")
  assert "Traceback (most recent call last)" in stderr
  assert "in fail" in stderr
  assert stderr.endswith(f"{last}\n")


def test_an_error_of_a_session_is_the_line_that_tells_the_cause(results):
  status, stdout, stderr = results[("session_error",)]
  assert (status, stdout) == (1, "")
  assert stderr.startswith("prog.py: error: ")
  assert stderr.endswith("/not/there; No such file or directory\n")
  assert len(stderr.splitlines()) == 1


def test_memory_that_ends_is_told(results):
  message = "prog.py: error: out of memory\n"
  assert results[("memory_error",)] == (1, "", message)


def test_a_message_has_an_end(results):
  status, _, stderr = results[("long_error",)]
  assert status == 1
  assert len(stderr) < 11_000
  assert stderr.endswith(" characters more)\n")


def test_a_bug_shows_its_traceback(results):
  status, _, stderr = results[("bug",)]
  assert status == 1
  assert "Traceback (most recent call last)" in stderr
  assert stderr.endswith("KeyError: 'a bug'\n")


def test_an_interrupt_is_no_error_of_the_user(results):
  status, _, stderr = results[("interrupt",)]
  assert status == program.STOPPED
  assert stderr == "prog.py: stopped by Ctrl-C.\n"


def test_stray_arguments_are_refused(results):
  status, stdout, stderr = results[("nothing", "/data/b.tfrecord", "c")]
  assert status == 1
  # Whether with the program's description or not.
  assert "Unexpected arguments ['/data/b.tfrecord', 'c']" in stdout + stderr
  assert "quotes" in stdout + stderr
  assert "Traceback" not in stderr


def test_an_unknown_flag_is_named(results):
  status, _, stderr = results[("nothing", "--no_such_flag=1")]
  assert status == 1
  assert "no_such_flag" in stderr
  assert "--help lists the flags" in stderr
  assert "Traceback" not in stderr


def test_help_is_no_failure(results):
  flag = "Model:\n  --size=N  (default: 3)\n      Its size.\n"
  status, stdout, stderr = results[("nothing", "--help")]
  assert (status, stderr) == (0, "")
  assert stdout.startswith(f"A program of the tests.\n\n{flag}")
  assert results[("nothing", "--help=Model")] == (0, f"{flag}\n", "")
  status, _, stderr = results[("nothing", "--help=Modle")]
  assert status == 1
  assert "--help=Modle: give one of Model." in stderr


@pytest.mark.parametrize(
  ("args", "shown"),
  [
    ((), ["an information", "a warning"]),
    (("--verbosity=-1",), ["a warning"]),
    (
      ("--verbosity=1",),
      ["a debugging line", "an information", "a warning"],
    ),
  ],
)
def test_our_own_lines_are_logged_and_not_tensorflow_s(results, args, shown):
  status, stdout, stderr = results[("log", *args)]
  assert (status, stdout) == (0, "")
  assert [line.split("] ")[1] for line in stderr.splitlines()] == shown


# In this process.


def test_a_session_has_as_many_cpu_devices_as_asked_for():
  config = program.session_config(num_cpus=3, log_device_placement=True)
  assert config.device_count == {"CPU": 3}
  assert config.allow_soft_placement
  assert config.log_device_placement
  assert config.gpu_options.allow_growth
  options = program.session_config(xla=True).graph_options.optimizer_options
  assert options.global_jit_level == options.ON_1
  assert options.cpu_global_jit


@pytest.mark.parametrize("total", [0, 9])
def test_a_progress_bar_counts_on_stderr(capsys, total):
  with program.progress_bar(total, "videos") as bar:
    bar.update(5)
  captured = capsys.readouterr()
  assert captured.out == ""
  assert "videos" in captured.err
  assert ("5/9" in captured.err) == bool(total)
