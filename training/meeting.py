"""Where tasks that train together meet, and how each learns that one is gone.

The chief listens at its address until every other task has come to it, tells
them where the run stands, and hands the port over to TensorFlow's server. The
connections stay open meanwhile: a process that ends, whatever ends it, closes
its own, and the chief tells the others.

TensorFlow's collective operations can't go on then, and may wait for ever. So
each task starts its program anew, in the same process (`os.execv`), and comes
to the meeting again. Nobody is there who is left from before: the chief listens
where else its server would, and a task that has come has no server.

What is said are lines of JSON: {"what": WHAT, ...}.
"""

import contextlib
import json
import os
import select
import socket
import sys
import threading
import time

import tensorflow.compat.v1 as tf
from absl import logging

from console import messages, program
from records import report
from training import placement

# Counts beginnings in which no server has reached another, or a step failed.
_TRIES = "LEARNABLE_POOLING_TRIES"
_MAX_TRIES = 5
_MAX_LINE = 1 << 20
_RETRY_SECONDS = 0.2
# Who does not say within so many seconds who it is, is none of ours.
_HELLO_SECONDS = 5
# The same command would end in the same way.
_FATAL = (program.UserError, ValueError, report.StrictRecordError)
# Errors that may come from another task's end.
_OF_OTHERS = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.FailedPreconditionError,
  tf.errors.InternalError,
  tf.errors.UnavailableError,
)
# How long the main thread has to end by itself, once another task has failed.
_GRACE_SECONDS = 10
# When the kernel asks whether a silent machine is still there (idle, interval),
# and how often; and milliseconds in which what is sent has to arrive.
_KEEPALIVE = {
  "TCP_KEEPIDLE": 10,
  "TCP_KEEPINTVL": 5,
  "TCP_KEEPCNT": 6,
  "TCP_USER_TIMEOUT": 40_000,
}


class _Peer:
  """A connection to another task."""

  def __init__(self, connection):
    for name, value in _KEEPALIVE.items():
      if hasattr(socket, name):  # Not everywhere by these names.
        option = getattr(socket, name)
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    self.socket = connection
    self._lines = connection.makefile("r", encoding="utf-8")

  def say(self, **said):
    """Sends a line; OSError if the task is gone."""
    self.socket.sendall(json.dumps(said).encode() + b"\n")

  def hear(self, seconds=None):
    """The next line: dict, {} where there is none, as the task is gone.

    Args:
      seconds: float, to wait at most; None for no end.
    """
    self.socket.settimeout(seconds)
    try:
      said = json.loads(self._lines.readline(_MAX_LINE))
    except (OSError, ValueError):
      return {}
    return said if isinstance(said, dict) else {}

  def close(self):
    """Lets go of the connection."""
    self._lines.close()
    self.socket.close()


class Meeting:
  """One task's connections, from the meeting to the end of the training.

  Attributes:
    works: bool, to be set once the tasks' servers have reached each other.
    tries: int, how often this program began again without that, or with a step
      that failed soon; 1 after a run that another task has ended.
  """

  def __init__(self, task, patience):
    """Keeps who there is.

    Args:
      task: `placement.Task`, synchronous.
      patience: int, seconds to wait for the others.
    """
    self.works = False
    self._start = time.monotonic()
    self.tries = int(os.environ.get(_TRIES, 0))
    self._tasks = task.computing
    self._number = task.number
    self._patience = patience
    self._peers = {}  # {number of another task: `_Peer`}; the chief has all.
    self._watchers = []
    self._leaves = threading.Lock()
    self._fails = self._parts = False

  def gather(self, plan, flags):
    """Waits until all are there.

    Args:
      plan: list, where the run stands; the chief's is taken.
      flags: dict of what must be the same for all.

    Returns:
      list, the chief's plan.

    Raises:
      program.UserError: a task is missing, or has other flags; it says which.
    """
    if self._number:
      return self._join(flags)
    self._wait_for_others(json.loads(json.dumps(flags)))
    self._tell(what="plan", plan=plan)
    return plan

  def start(self, start_server, group):
    """Starts this task's server, the chief's first, and watches the others.

    Args:
      start_server: function that does.
      group: `collectives.Group`, whose steps are waited for.

    Returns:
      What it returns.
    """
    if self._number:
      said = self._peers[0].hear(self._patience)
      if said.get("what") != "start":
        self._answer(0, said)
    server = start_server()
    if not self._number:
      self._tell(what="start")
    for number in self._peers:
      watcher = threading.Thread(
        target=self._watch, args=(number,), daemon=True
      )
      watcher.start()
      self._watchers.append(watcher)
    threading.Thread(target=self._guard, args=(group,), daemon=True).start()
    return server

  def part(self, waits=True):
    """Ends the training, once the chief has saved it and none is left behind.

    Who comes to its end earlier waits for the others: they may be in the midst
    of the last step.

    Args:
      waits: bool; False where all have agreed that some of them leave now.
    """
    self._parts = True
    if self._number or not waits:
      self._tell(what="done")
    if not waits:
      return
    for watcher in self._watchers:
      watcher.join()
    if not self._number:
      self._tell(what="bye")

  def __enter__(self):
    return self

  def __exit__(self, kind, error, unused_traceback):
    """Leaves; of an error that a user has to mend, all tasks end."""
    self._fails = True
    if kind and issubclass(kind, _FATAL):
      name = self._tasks[self._number][0]
      self._tell(what="failed", text=f"{name} failed: {error}")

  def begin_again(self, reason, is_own=False):
    """Starts this program anew, to go on from the last checkpoint.

    Args:
      reason: str, a sentence.
      is_own: bool, whether this task may be at fault, and fail again.
    """
    with self._leaves:  # For good.
      if self._fails:
        threading.Event().wait()  # The process ends meanwhile.
      is_soon = time.monotonic() - self._start < self._patience
      counts = not self.works or (is_own and is_soon)
      tries = self.tries + 1 if counts else 1
      if tries > _MAX_TRIES:
        _end(f"{reason} The tasks came together {tries} times, to no avail.")
      logging.warning("%s Beginning again from the last checkpoint.", reason)
      logging.flush()
      os.environ[_TRIES] = str(tries)
      for number in os.listdir("/dev/fd"):
        # The directory's own is closed by now.
        with contextlib.suppress(OSError):
          os.set_inheritable(int(number), int(number) <= 2)
      # What the run has saved is to stay.
      words = [*sys.argv, "--start_new_model=False"]
      os.execv(sys.executable, [sys.executable, *words])

  def lost(self, error):
    """Answers an operation's error, which another task may be the cause of.

    Args:
      error: `tf.errors.OpError`; returns where it is this task's own.
    """
    if not isinstance(error, _OF_OTHERS):
      return
    # The chief is about to say who is gone.
    time.sleep(_GRACE_SECONDS)
    reason = f"A step failed: {messages.cause(str(error))}."
    self.begin_again(reason, is_own=True)

  def _wait_for_others(self, flags):
    """The chief's part of `gather`."""
    start, told = time.monotonic(), 0.0
    with self._listen(start) as listener:
      while missing := ", ".join(
        name
        for number, (name, _) in enumerate(self._tasks)
        if number and number not in self._peers
      ):
        waited = time.monotonic() - start
        if waited >= self._patience:
          self._refuse(
            f"{missing} did not come within {self._patience} s "
            "(--worker_timeout_secs): is it running, and does it reach "
            f"{self._tasks[0][1]}?"
          )
        if waited >= told:
          told += placement.TELL_SECONDS
          logging.info("Waiting for %s.", missing)
        self._welcome(listener, flags)

  def _listen(self, start):
    """A socket at the chief's port, whatever the machine's address."""
    address = self._tasks[0][1]
    port = int(address.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    while True:
      try:
        return socket.create_server(
          ("", port), family=family, dualstack_ipv6=dual
        )
      except OSError as error:  # Say, a run before is about to end.
        if time.monotonic() - start >= self._patience:
          raise program.UserError(
            f"Can't listen at TF_CONFIG's {address}: {error.strerror}."
          ) from None
        time.sleep(_RETRY_SECONDS)

  def _welcome(self, listener, flags):
    """Takes in who comes, and forgets who leaves, within a second."""
    numbers = {peer.socket: number for number, peer in self._peers.items()}
    for each in select.select([listener, *numbers], [], [], 1)[0]:
      if each is not listener:  # It has nothing to say yet.
        self._peers.pop(numbers[each]).close()
        continue
      peer = _Peer(listener.accept()[0])
      hello = peer.hear(_HELLO_SECONDS)
      number = hello.get("number")
      if hello.get("what") != "hello" or number not in range(
        1, len(self._tasks)
      ):
        peer.close()  # None of ours.
        continue
      if number in self._peers:
        self._peers.pop(number).close()
      self._peers[number] = peer
      different = "; ".join(
        f"{name} is {hello['flags'].get(name)!r}, the chief's {value!r}"
        for name, value in flags.items()
        if hello["flags"].get(name) != value
      )
      if different:
        self._refuse(
          "All tasks need the same flags and files. Of "
          f"{self._tasks[number][0]} {different}."
        )

  def _refuse(self, text):
    """Ends the training, for all who are there."""
    self._tell(what="failed", text=text)
    raise program.UserError(text)

  def _join(self, flags):
    """The others' part of `gather`."""
    chief, address = self._tasks[0]
    start, told = time.monotonic(), 0.0
    while (waited := time.monotonic() - start) < self._patience:
      if waited >= told:
        told += placement.TELL_SECONDS
        logging.info("Waiting for the chief, %s.", chief)
      try:
        peer = _Peer(placement.connect(address))
        self._peers[0] = peer
        peer.say(what="hello", number=self._number, flags=flags)
      except OSError:
        time.sleep(_RETRY_SECONDS)
        continue
      # It waits as long for others, and says so if it gives up.
      said = peer.hear(self._patience + _GRACE_SECONDS)
      if said.get("what") == "failed":
        raise program.UserError(said["text"])
      if said.get("what") == "plan":
        return said["plan"]
      peer.close()  # Gone, or a server that is left from before.
      time.sleep(_RETRY_SECONDS)
    raise program.UserError(
      f"The chief, {chief}, does not answer after {self._patience} s "
      "(--worker_timeout_secs): is it running?"
    )

  def _guard(self, group):
    """Begins again where no step comes, as some task hangs."""
    start = time.monotonic()
    while not self._parts:
      time.sleep(1)
      if time.monotonic() - max(start, group.last_step) > self._patience:
        self.begin_again(
          f"No step for {self._patience} s (--worker_timeout_secs)."
        )

  def _watch(self, number):
    """Hears what another task has to say, until it leaves."""
    self._answer(number, self._peers[number].hear())

  def _answer(self, number, said):
    """Does what follows from another task's last words."""
    what = said.get("what")
    if what in ("done", "bye"):
      return
    if what == "failed":
      self._fails = True
      self._tell(**said)
      # This task may have met with the same, and say it better.
      time.sleep(_GRACE_SECONDS)
      _end(said["text"])
    reason = said.get("text") or f"{self._tasks[number][0]} is gone."
    self._tell(what="gone", text=reason)
    self.begin_again(reason)

  def _tell(self, **said):
    """Says something to all that are connected."""
    for peer in self._peers.values():
      with contextlib.suppress(OSError):
        peer.say(**said)


def _end(text):
  """Ends the process, whatever its main thread is waiting for."""
  program.say(f"error: {text}")
  logging.flush()
  os._exit(program.FAILED)
