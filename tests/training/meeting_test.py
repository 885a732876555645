"""Tests of training/meeting.py: tasks as threads, without TensorFlow."""

import concurrent.futures
import contextlib
import ctypes
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from console import program
from tests import programs
from training import collectives, meeting, placement


def _task(addresses, number):
  task = {"type": "worker", "index": number}
  config = {"cluster": {"worker": addresses}, "task": task}
  return placement.from_environment(json.dumps(config))


def meet(addresses, flags, patience=20):
  """What becomes of tasks of these addresses that come with these flags.

  Args:
    addresses: list of str.
    flags: {number: dict} of the tasks that come.
    patience: int.

  Returns:
    {number: the plan, or the error}.
  """

  def come(number):
    here = meeting.Meeting(_task(addresses, number), patience)
    try:
      return here.gather([number, "plan"], flags[number])
    except program.UserError as error:
      return error

  with concurrent.futures.ThreadPoolExecutor() as pool:
    return dict(zip(flags, pool.map(come, flags)))


def test_all_get_the_chiefs_plan():
  addresses = programs.free_addresses(3)
  flags = {n: {"rate": 0.1, "sizes": (3, 4)} for n in (2, 1, 0)}
  assert meet(addresses, flags) == {n: [0, "plan"] for n in flags}


@pytest.mark.slow
def test_the_missing_are_named_with_their_addresses():
  addresses = programs.free_addresses(4)
  found = meet(addresses, {0: {}, 2: {}}, patience=2)
  missing = f"worker 1 at {addresses[1]}, worker 3 at {addresses[3]} did not"
  assert all(missing in str(error) for error in found.values())
  assert "--worker_timeout_secs" in str(found[0])


def test_a_missing_chief_is_named():
  addresses = programs.free_addresses(2)
  (error,) = meet(addresses, {1: {}}, patience=1).values()
  assert f"worker 0 at {addresses[0]}, does not answer" in str(error)


def test_who_has_other_flags_is_told_to_all():
  addresses = programs.free_addresses(2)
  found = meet(addresses, {0: {"a": 1, "b": 2}, 1: {"a": 1, "b": 3}})
  for error in found.values():
    assert re.search(r"Of worker 1 at .* b is 3, the chief's 2\.", str(error))


class _Here(meeting.Meeting):
  """A meeting that says why its task begins again, and does not."""

  def __init__(self, addresses, number):
    super().__init__(_task(addresses, number), 20)
    self.reasons: queue.Queue = queue.Queue()

  def begin_again(self, reason, is_own=False):
    self.reasons.put(reason)
    self._parts = True  # No thread goes on.

  def leave(self):
    """As if the process had ended."""
    self._parts = True
    for peer in self._peers.values():
      with contextlib.suppress(OSError):
        peer.socket.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def training(addresses, patience=20, enter=lambda number: None):
  """Tasks that train: their `_Here`s, whose threads watch meanwhile.

  Args:
    addresses: list of str.
    patience: int, seconds to wait for a step.
    enter: function of a task's number, called first in the thread that opens
      its sockets.
  """
  tasks = [_Here(addresses, number) for number in range(len(addresses))]

  def begin(number):
    enter(number)
    tasks[number].gather([], {})
    tasks[number].start(lambda: None, collectives.Group(len(tasks), number))
    tasks[number]._patience = patience

  with concurrent.futures.ThreadPoolExecutor() as pool:
    list(pool.map(begin, range(len(tasks))))
  yield tasks
  for task in tasks:
    task.leave()


def test_all_are_told_who_is_gone():
  addresses = programs.free_addresses(3)
  with training(addresses) as tasks:
    tasks[1].leave()
    for task in (tasks[0], tasks[2]):
      reason = task.reasons.get(timeout=10)
      assert reason == f"worker 1 at {addresses[1]} is gone."


def test_a_step_that_fails_again_and_again_ends_the_task(monkeypatch):
  said = []

  def leave(*words):
    said.append(words)
    raise SystemExit

  monkeypatch.setattr(meeting, "_GRACE_SECONDS", 0)
  monkeypatch.setenv(meeting._TRIES, "0")
  monkeypatch.setattr(os, "execv", leave)
  monkeypatch.setattr(meeting, "_end", leave)
  error = tf.errors.InternalError(None, None, "Broken")
  for _ in range(6):
    here = meeting.Meeting(_task(["a:1", "b:1"], 0), 20)
    here.works = True
    with pytest.raises(SystemExit):
      here.lost(error)
  assert [words[0] for words in said[:5]] == 5 * [sys.executable]
  assert "A step failed: Broken. The tasks came together 6" in said[5][0]


def test_a_step_that_does_not_come_is_not_waited_for_in_vain():
  with training(programs.free_addresses(2), patience=1) as tasks:
    for task in tasks:
      reason = task.reasons.get(timeout=10)
      assert reason == "No step for 1 s (--worker_timeout_secs)."


class _Networks:
  """Two networks of their own, and a cable between them.

  `with` skips the test where this is not allowed.
  """

  _LIBC = ctypes.CDLL(None)

  def __enter__(self):
    with concurrent.futures.ThreadPoolExecutor() as pool:
      self._files = [pool.submit(self._new).result() for _ in range(2)]
    one, other = (f"/proc/self/fd/{number}" for number in self._files)
    self._ip(one, "link", "add", "end0", "type", "veth", "peer", "end1")
    self._ip(one, "link", "set", "end1", "netns", other)
    for number, place in enumerate((one, other)):
      self._ip(
        place, "addr", "add", f"10.0.0.{number}/31", "dev", f"end{number}"
      )
      self._ip(place, "link", "set", f"end{number}", "up")
    return self

  def __exit__(self, *unused_exc_info):
    for number in self._files:
      os.close(number)

  def _new(self):
    """A file that stands for a network."""
    if not shutil.which("nsenter") or self._LIBC.unshare(0x40000000):
      pytest.skip("needs nsenter, and to be root, to make networks")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)

  def _ip(self, place, *words):
    command = ["nsenter", f"--net={place}", "ip", *words]
    subprocess.run(command, pass_fds=self._files, check=True)

  def enter(self, number):
    """Has the sockets that this thread will open in one of them."""
    assert not self._LIBC.setns(self._files[number], 0)

  def cut(self):
    """Cuts the cable: nothing arrives, and no connection is closed."""
    self._ip(f"/proc/self/fd/{self._files[1]}", "link", "set", "end1", "down")


@pytest.mark.slow
def test_a_machine_that_vanishes_is_missed(monkeypatch):
  seconds = {"TCP_KEEPIDLE": 1, "TCP_USER_TIMEOUT": 2000}
  assert seconds.keys() <= meeting._KEEPALIVE.keys()
  monkeypatch.setattr(
    meeting, "_KEEPALIVE", {**meeting._KEEPALIVE, "TCP_KEEPINTVL": 1, **seconds}
  )
  addresses = ["10.0.0.0:2222", "10.0.0.1:2222"]
  with _Networks() as networks:
    with training(addresses, enter=networks.enter) as tasks:
      networks.cut()
      reasons = [task.reasons.get(timeout=20) for task in tasks]
  assert reasons == [f"worker {n} at {addresses[n]} is gone." for n in (1, 0)]
