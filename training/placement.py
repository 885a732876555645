"""Distributed training as TF_CONFIG describes it: server, devices, chief.

With parameter servers (ps) tasks train asynchronously; without any, or with
--synchronous, they take each step together, see `meeting.py` and
`collectives.py`.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from absl import logging

from console import messages, program

_CHIEFS = ("chief", "master")
_JOBS = (*_CHIEFS, "worker", "ps")
# How long a task waits for another, and how often it says so.
WAIT_SECONDS = 1800
TELL_SECONDS = 60
# Operations that hold variables: what goes to the parameter servers.
VARIABLE_OPS = ("VarHandleOp", "Variable", "VariableV2", "AutoReloadVariable")


class Task(NamedTuple):
  """This process's part in the training.

  Attributes:
    cluster: dict of job name to addresses; empty for a single process.
    job: "chief", "master", "worker" or "ps".
    index: int, number of the task within its job.
  """

  cluster: dict[str, list[str]]
  job: str
  index: int  # type: ignore[assignment]  # Hides the tuple's method.

  @property
  def is_chief(self) -> bool:
    """Whether this task initialises variables and writes checkpoints."""
    if self.job in _CHIEFS:
      return True
    has_chief = any(self.cluster.get(job) for job in _CHIEFS)
    return self.job == "worker" and self.index == 0 and not has_chief

  @property
  def number(self) -> int:
    """Number of the task among those that compute, from 0."""
    first = sum(len(self.cluster.get(job, [])) for job in _CHIEFS)
    return self.index + (first if self.job == "worker" else 0)

  @property
  def computing(self) -> list[tuple[str, str]]:
    """(name, address) of the tasks that compute, by their `number`.

    Names are for messages: "worker 1 at host:port".
    """
    return [
      (f"{job} {index} at {address}", address)
      for job in (*_CHIEFS, "worker")
      for index, address in enumerate(self.cluster.get(job, []))
    ]

  @property
  def num_computing(self) -> int:
    """Number of tasks that compute; 1 for a single process."""
    return len(self.computing) or 1

  @property
  def is_synchronous(self) -> bool:
    """Whether the tasks take each step together, each with all variables."""
    return bool(self.cluster) and not self.cluster.get("ps")

  def together(self) -> "Task":
    """The same among the tasks that compute, which then need no ps."""
    cluster = {job: at for job, at in self.cluster.items() if job != "ps"}
    if self.num_computing == 1:
      return Task({}, "chief", 0)
    return self._replace(cluster=cluster)

  @property
  def chief(self) -> str:
    """Which task is the chief of a cluster, and where, for messages."""
    return self.computing[0][0]

  @property
  def is_ps(self) -> bool:
    """Whether this task only holds variables."""
    return self.job == "ps"

  @property
  def is_distributed(self) -> bool:
    """Whether there are other tasks."""
    return bool(self.cluster)

  @property
  def device(self) -> str:
    """Prefix of this task's devices; "" for a single process."""
    return f"/job:{self.job}/task:{self.index}" if self.cluster else ""

  def wait_for_servers(self) -> None:
    """Waits until every parameter server answers.

    Raises:
      ValueError: one does not within `WAIT_SECONDS`; says which.
    """
    for index, address in enumerate(self.cluster["ps"]):
      waited = 0
      while not _answers(address):
        if waited == WAIT_SECONDS:
          raise ValueError(
            f"TF_CONFIG's ps {index} at {address} does not answer after "
            f"{waited} s: is it running?"
          )
        if waited % TELL_SECONDS == 0:
          logging.info("Waiting for ps %d at %s.", index, address)
        time.sleep(1)
        waited += 1

  def start_server(
    self, config: tf.ConfigProto | None = None
  ) -> tf.train.Server:
    """Starts TensorFlow's server for this task."""
    return tf.train.Server(
      tf.train.ClusterSpec(self.cluster),
      job_name=self.job,
      task_index=self.index,
      config=config,
    )

  def place(
    self, compute: str, variables: "str | BySize"
  ) -> "Callable[[tf.Operation], str]":
    """A device function: variables in one place, all else in another.

    Args:
      compute: device of the operations, such as "/gpu:1".
      variables: device of the variables, such as "/cpu:0", or what chooses it;
        where there are parameter servers they go to these in turn.

    Returns:
      What `tf.device` takes.
    """
    if self.cluster and not self.is_synchronous:
      return tf.train.replica_device_setter(
        worker_device=self.device + compute,
        ps_device="/job:ps/cpu:0",
        cluster=self.cluster,
      )

    def device_of(op):
      if op.type not in VARIABLE_OPS:
        return op.device or compute
      return variables(op) if callable(variables) else variables

    return device_of


class Devices(NamedTuple):
  """Where a task's parts of the training graph lie: what `tf.device` takes.

  Attributes:
    host: for data and bookkeeping.
    towers: list, one for each tower; the first places the variables.
    merging: where towers' gradients are added, clipped and applied; None where
      each is where its variable is.
    num_cpus: int, CPU devices that a session needs for it.
    counts_epochs: bool, whether this task does, in the variable of its step.
    prefetches: bool, batches go to the towers a step ahead, see `prefetch.py`.
  """

  host: Any
  towers: list
  merging: Any
  num_cpus: int = 1
  counts_epochs: bool = True
  prefetches: bool = False


def devices(task: Task, num_gpu: int, num_towers: int) -> Devices:
  """Places a task's towers on GPUs, or on CPU devices where there are none.

  Args:
    task: who computes.
    num_gpu: GPUs to use at most, --num_gpu.
    num_towers: --num_towers; 0 for one a GPU, or one.

  Raises:
    ValueError: more towers than GPUs.
  """
  found = len(program.gpus())
  num_gpus = min(found, num_gpu)
  if num_gpus:
    logging.info("Training on %d of %d GPUs.", num_gpus, found)
  else:
    logging.info("No GPU in use: training on the CPU.")
  num_towers = num_towers or max(1, num_gpus)
  if num_gpus and num_towers > num_gpus:
    raise ValueError(
      f"--num_towers={num_towers}, but only {num_gpus} GPUs are in use."
    )
  host = task.place("/cpu:0", "/cpu:0")
  names = [f"/cpu:{i}" for i in range(num_towers)]
  variables: str | BySize = "/cpu:0"
  if num_gpus:
    names = [f"/gpu:{i}" for i in range(num_towers)]
    variables = BySize(names)
  towers = [task.place(name, variables) for name in names]
  # GPUs share the variables out: a gradient is merged, clipped and applied
  # where its variable is. What is to leave for a cluster's parameter servers is
  # merged here first.
  merging: Any = host
  if num_gpus and (task.is_synchronous or not task.is_distributed):
    merging = None
  elif num_gpus == 1:
    merging = towers[0]
  num_cpus = 1 if num_gpus else num_towers
  counts_epochs = task.is_chief or task.is_synchronous
  # Tasks that take each step together agree on what each of them has.
  prefetches = num_gpus > 0 and not task.is_synchronous
  return Devices(host, towers, merging, num_cpus, counts_epochs, prefetches)


class BySize:
  """Shares variables out over devices: each goes where the fewest bytes lie."""

  def __init__(self, devices: list[str]):
    """Starts empty.

    Args:
      devices: such as ["/gpu:0", "/gpu:1"]; the first of equals is taken.
    """
    self._num_bytes = dict.fromkeys(devices, 0)

  def __call__(self, op: tf.Operation) -> str:
    """Chooses the device of an operation that makes a variable."""
    device = min(self._num_bytes, key=lambda name: self._num_bytes[name])
    shape = tf.TensorShape(op.get_attr("shape"))
    self._num_bytes[device] += (
      shape.num_elements() * tf.as_dtype(op.get_attr("dtype")).size
    )
    return device


def from_environment(text: str | None = None) -> Task:
  """Reads TF_CONFIG.

  Args:
    text: its value; None for that of the environment. Empty or "{}" means a
      single process.

  Returns:
    The task. The only task of a cluster is a single process too: platforms
    describe one machine so.

  Raises:
    ValueError: not JSON, or a cluster or task that makes no sense; the message
      says what is missing.
  """
  text = os.environ.get("TF_CONFIG", "") if text is None else text
  try:
    config = json.loads(text or "{}")
  except (RecursionError, ValueError) as error:
    raise ValueError(
      f"TF_CONFIG is not JSON ({error}): {messages.short(text)}."
    ) from None
  cluster, task = _parts(config)
  if not cluster:
    return Task({}, "chief", 0)
  job, index = task.get("type"), task.get("index", 0)
  if job not in _JOBS or job not in cluster:
    raise ValueError(
      f"TF_CONFIG's task has type {messages.short(job)}: need one of {_JOBS} "
      "that its cluster has; the cluster has "
      f"{messages.short(sorted(cluster))}."
    )
  if isinstance(index, str) and index.isdecimal() and len(index) < 10:
    index = int(index)
  if not isinstance(index, int) or isinstance(index, bool):
    raise ValueError(f"TF_CONFIG's task has index {messages.short(index)}.")
  if not 0 <= index < len(cluster[job]):
    raise ValueError(
      f"TF_CONFIG's task is {job} {messages.short(index)}, but the cluster has "
      f"{len(cluster[job])} of job {job}."
    )
  if job != "ps" and sum(len(cluster.get(name, [])) for name in _JOBS) == 1:
    return Task({}, "chief", 0)
  _check_cluster(cluster)
  return Task(cluster, job, index)


def _parts(config):
  """(cluster, task) of a parsed TF_CONFIG, of the form they must have.

  Raises:
    ValueError: another form.
  """
  well_formed = isinstance(config, dict)
  cluster: Any = (config.get("cluster") or {}) if well_formed else None
  task = (config.get("task") or {}) if well_formed else None
  well_formed &= isinstance(cluster, dict) and isinstance(task, dict)
  well_formed = well_formed and all(
    isinstance(addresses, list)
    and all(isinstance(address, str) for address in addresses)
    for addresses in cluster.values()
  )
  if not well_formed:
    raise ValueError(
      'TF_CONFIG must be {"cluster": {JOB: [ADDRESS, ...], ...}, "task": '
      f'{{"type": JOB, "index": NUMBER}}}}, got {messages.short(config)}.'
    )
  return cluster, task


def _check_cluster(cluster):
  """Raises ValueError unless several tasks can train together."""
  for address in (
    address for name in _JOBS for address in cluster.get(name, [])
  ):
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port[:6]) < 1 << 16):
      raise ValueError(
        f"TF_CONFIG has the address {messages.short(address)}: need HOST:PORT."
      )
  if all(name in cluster for name in _CHIEFS) or any(
    len(cluster.get(name, [])) > 1 for name in _CHIEFS
  ):
    raise ValueError("TF_CONFIG's cluster has more than one chief or master.")


def check_service(service: str) -> None:
  """Raises ValueError unless a dispatcher answers at --data_service."""
  protocol, _, address = service.partition("://")
  if protocol != "grpc" or not _answers(address):
    raise ValueError(
      f"Nothing answers at --data_service={service}: need grpc://HOST:PORT of "
      "a dispatcher, as scripts/data_service.py starts it."
    )


def connect(address: str) -> socket.socket:
  """A connection to "host:port"; OSError if nobody answers."""
  host, _, port = address.rpartition(":")
  return socket.create_connection((host.strip("[]"), int(port)), timeout=5)


def _answers(address):
  """Whether something listens at "host:port"."""
  try:
    connect(address).close()
  except (OSError, ValueError):  # Or no number of a port.
    return False
  return True
