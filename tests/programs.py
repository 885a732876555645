"""Starts the repository's programs, and waits for them.

A program is forked from a process that has loaded TensorFlow, which saves the
seconds that this takes; with `fresh` it is started as a user does.
"""

import atexit
import functools
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Loaded machines are slow; a program that hangs shall still end the test.
TIMEOUT = 300


@functools.cache
def _server():
  """The socket of a server, which ends with this process."""
  own, other = socket.socketpair()
  with other:
    process = subprocess.Popen(
      [
        sys.executable,
        str(ROOT / "tests" / "fork_server.py"),
        str(other.fileno()),
      ],
      env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      pass_fds=[other.fileno()],
      # Ctrl-C is for the tests: they end the server.
      start_new_session=True,
    )

  def end():
    own.close()
    process.wait()

  atexit.register(end)
  return own


class Forked:
  """What the tests use of a `subprocess.Popen`, of a forked program."""

  def __init__(self, args, environment, log):
    self.args = args
    self.returncode = None
    self._texts = {}
    reading, writing = zip(*(os.pipe() for _ in range(3)))
    outputs = [writing[0], log.fileno() if log else writing[1], writing[2]]
    request = {"args": args, "environment": environment}
    socket.send_fds(_server(), [json.dumps(request).encode()], outputs)
    for file in writing:
      os.close(file)
    self._told = open(reading[2], "rb", buffering=0)
    self.pid = int(self._told.readline())
    self._threads = [
      threading.Thread(target=self._read, args=(name, file), daemon=True)
      for name, file in zip(("stdout", "stderr"), reading)
    ]
    for thread in self._threads:
      thread.start()

  def _read(self, name, file):
    with open(file, errors="replace") as stream:
      self._texts[name] = stream.read()

  def poll(self):
    """Its status, or None while it runs."""
    if self.returncode is None and select.select([self._told], [], [], 0)[0]:
      self.returncode = int(self._told.readline())
      self._told.close()
    return self.returncode

  def wait(self, timeout=None):
    """Its status, once it has ended; `subprocess.TimeoutExpired` else."""
    if self.returncode is None:
      select.select([self._told], [], [], timeout)
    if self.poll() is None:
      raise subprocess.TimeoutExpired(self.args, timeout)
    return self.returncode

  def communicate(self, timeout=None):
    """(stdout, stderr), once it has ended; as `wait`."""
    self.wait(timeout)
    for thread in self._threads:
      thread.join()
    return self._texts["stdout"], self._texts["stderr"]

  def send_signal(self, number):
    """Sends a signal, unless it has ended."""
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self):
    """Ends it without a word."""
    self.send_signal(signal.SIGKILL)


def start_program(
  name, *args, log=None, stderr=None, fresh=False, environment=()
):
  """Starts a program of the repository: a `subprocess.Popen` with pipes.

  Args:
    name: str, such as "train.py".
    *args: its arguments.
    log: a file for its stderr, if it may say more than a pipe holds before
      `finish` reads it. What it leaves behind when killed lands beside it.
    stderr: an open file in place of it.
    fresh: whether to start an interpreter of its own.
    environment: dict, or pairs, of further environment variables.
  """
  environment = {
    **os.environ,
    # Only the CPU, and no distributed training.
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CONFIG": "",
    **dict(environment),
  }
  if log:
    environment["TMPDIR"] = str(pathlib.Path(log).parent)
  command = [str(ROOT / name), *map(str, args)]
  with open(log or os.devnull, "w") as opened:
    stream = opened if log else stderr
    if not fresh:
      return Forked(command, environment, stream)
    return subprocess.Popen(
      [sys.executable, *command],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=stream or subprocess.PIPE,
      text=True,
      # Tests that run in the background may have inherited that it is ignored.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process, timeout=TIMEOUT):
  """(status, stdout, stderr) of a process that ends by itself."""
  try:
    stdout, stderr = process.communicate(timeout=timeout)
  except subprocess.TimeoutExpired:
    process.kill()
    _, stderr = process.communicate()
    raise AssertionError(
      f"{process.args} did not end in {timeout} s: {(stderr or '')[-2000:]}"
    ) from None
  return process.returncode, stdout, stderr


def run_program(name, *args, fresh=False):
  """(status, stdout, stderr) of a program of the repository."""
  return finish(start_program(name, *args, fresh=fresh))


def run_ok(name, *args, fresh=False):
  """The stderr of a program that must succeed."""
  status, _, stderr = run_program(name, *args, fresh=fresh)
  assert status == 0, stderr
  return stderr


def wait_for_log(process, log, condition):
  """Waits for a condition on a running process's log, a str."""
  end = time.monotonic() + TIMEOUT
  while not condition(text := pathlib.Path(log).read_text()):
    if process.poll() is not None or time.monotonic() > end:
      process.kill()
      process.communicate()
      raise AssertionError(f"Ended, or waited too long: {text[-2000:]}")
    time.sleep(0.02)


def wait_until_it_listens(address):
  """Waits for a program that is to listen at "localhost:PORT"."""
  host, _, port = address.rpartition(":")
  end = time.monotonic() + TIMEOUT
  while True:
    try:
      return socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
      assert time.monotonic() < end, f"Nobody listens at {address}."
      time.sleep(0.02)


def free_addresses(count):
  """Addresses on this machine that nobody listens on."""
  sockets = [socket.socket() for _ in range(count)]
  try:
    for each in sockets:
      each.bind(("localhost", 0))
    return [f"localhost:{each.getsockname()[1]}" for each in sockets]
  finally:
    for each in sockets:
      each.close()
