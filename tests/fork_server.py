"""Starts programs by forking a process that has loaded TensorFlow already.

Loading it takes seconds, of which a run of tests with dozens of programs would
be mostly made. `tests/programs.py` starts this, and asks it for programs.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import sys
import threading

import sessions
import tf_slim  # noqa: F401


def main():
  """Serves until the other end of the socket, its only argument, is closed."""
  # Whoever watches a program is not waited for.
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)
  with socket.socket(fileno=int(sys.argv[1])) as server:
    while True:
      message, files, _, _ = socket.recv_fds(server, 1 << 20, 3)
      if not message:
        return None
      if not os.fork():
        request = json.loads(message)
        server.detach()
        os.close(int(sys.argv[1]))
        return lambda: _watch(request, *files)
      for file in files:
        os.close(file)


def _watch(request, stdout, stderr, told):
  """Forks the program, and tells its number and, at its end, its status."""
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  child = os.fork()
  if not child:
    os.close(told)
    return _become(request, stdout, stderr)
  os.close(stdout)
  os.close(stderr)
  os.write(told, b"%d\n" % child)
  _, status = os.waitpid(child, 0)
  os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
  os._exit(0)


def _become(request, stdout, stderr):
  """Runs the program in this process, as if it had been started so."""
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  for file, number in ((stdout, 1), (stderr, 2)):
    os.dup2(file, number)
    os.close(file)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  os.environ.clear()
  os.environ.update(request["environment"])
  sys.argv = request["args"]
  sys.path[0] = os.path.dirname(sys.argv[0])
  # As in the test that starts it, see conftest.py.
  as_written = os.environ.get("AS_WRITTEN") == "1"
  status = 0
  with sessions.as_written(lambda: as_written):
    # Not within the server's loop: an error ends the interpreter as always.
    try:
      runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
      if isinstance(end.code, str):
        raise
      status = int(end.code or 0)
  _leave(status)


def _leave(status):
  """Ends as the interpreter does, but leaves all objects where they are.

  Taking TensorFlow's apart one by one takes the better part of a second.
  """
  threading._shutdown()  # Waits for those that are no daemons.
  atexit._run_exitfuncs()
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  os._exit(status & 0xFF)


if __name__ == "__main__":
  RUN = main()
  if RUN:
    RUN()
