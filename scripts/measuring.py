"""Measures steps of training: their time, their operations, their memory."""

import contextlib
import dataclasses
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import data_flags
import model_flags
import train
from console import flag_fields, program
from training import placement

LEAST_ROUNDS = 3
# ru_maxrss is in kilobytes, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def measure(
  variants: Mapping[Any, Callable[[], Any]], seconds: float
) -> dict[Any, list[float]]:
  """Runs all variants in turn, again and again.

  Args:
    variants: name to function. One that returns a float has timed itself.
    seconds: no round begins after so many, but the least number of them.

  Returns:
    {name: seconds of each round}; a first one, to warm up, is left out.
  """
  for run in variants.values():
    run()
  found = {name: [] for name in variants}
  rounds, end = 0, time.perf_counter() + seconds
  while rounds < LEAST_ROUNDS or time.perf_counter() < end:
    rounds += 1
    for name, run in variants.items():
      start = time.perf_counter()
      own = run()
      spent = time.perf_counter() - start
      found[name].append(own if isinstance(own, float) else spent)
  return found


def ratio(ours: list[float], others: list[float]) -> float:
  """How many times longer the others take: the median of the rounds' ratios."""
  return statistics.median(b / a for a, b in zip(ours, others))


def describe_machine() -> dict[str, Any]:
  """What figures depend on besides the code, and the code's commit."""
  cpu = platform.processor() or platform.machine()
  if os.path.exists("/proc/cpuinfo"):
    with open("/proc/cpuinfo") as stream:
      names = re.findall("^model name.*: (.*)$", stream.read(), re.MULTILINE)
    cpu = names[0] if names else cpu
  pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  commit = subprocess.run(
    ["git", "describe", "--always", "--dirty=+"],
    cwd=os.path.dirname(os.path.abspath(__file__)),
    capture_output=True,
    text=True,
  )
  return {
    "cpu": cpu,
    "cores": os.cpu_count(),
    "memory_gb": round(pages / 1e9, 1),
    "gpus": [
      tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
      for gpu in tf.config.list_physical_devices("GPU")
    ],
    "tensorflow": tf.__version__,
    "python": platform.python_version(),
    "commit": commit.stdout.strip() or None,
  }


def parse_train_flags(arguments: list[str]) -> flags.FlagValues:
  """train.py's flags, as it parses them.

  Raises:
    ValueError, flags.Error: train.py refuses them.
  """
  known = flags.FlagValues()
  train.define_flags(known)
  if rest := known(["train.py", *arguments])[1:]:
    raise ValueError(f"{rest} are not flags; those of train.py start with --.")
  return known


def make_trainer(
  given: dict[str, Any], trainer_class: type[train.Trainer] = train.Trainer
) -> tuple[Any, train.Config, dict[str, Any]]:
  """(`Trainer`, its configuration, the model flags) of flags of train.py."""
  known = parse_train_flags([f"--{name}={v}" for name, v in given.items()])
  config = flag_fields.from_flags(train.Config, known)
  values = data_flags.filled(
    model_flags.from_flags(known), config.train_data_pattern, flag_values=known
  )
  task = placement.from_environment("{}")
  return trainer_class(config, values, task), config, values


@dataclasses.dataclass
class Training:
  """A training that takes a step when it is told to.

  Attributes:
    session: `tf.Session`, its variables initialised.
    built: `graph.Graph`.
    batch: dict of tensors, what the reader gives.
    stored: dict of arrays, a batch.
  """

  session: Any
  built: Any
  batch: dict[str, Any]
  stored: dict[str, Any]

  @property
  def feed(self) -> dict:
    """The stored batch in place of the reader's."""
    return {self.batch[name]: value for name, value in self.stored.items()}

  def take(self) -> None:
    """A step from records."""
    self.session.run(self.built.step_fetches)

  def fed(self) -> None:
    """A step from memory."""
    self.session.run(self.built.step_fetches, self.feed)

  def refill(self) -> None:
    """Lets the next step be one of the stored batch, see `prefetch.py`."""
    if self.built.fill is not None:
      # A step takes what is there, and puts the stored batch there.
      self.fed()

  def trace(self) -> tf.RunMetadata:
    """What a step from memory ran."""
    return traced(self.session, self.built.step_fetches, self.feed)


@contextlib.contextmanager
def begin(
  trainer: train.Trainer, num_towers: int = 1, xla: bool = False
) -> Iterator[Training]:
  """Begins a training: `Training`."""
  config = program.session_config(num_towers, xla=xla)
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    iterator = tf.data.make_initializable_iterator(trainer.data(0, 0))
    batch = iterator.get_next()
    built = trainer.build(batch)
    session.run([tf.global_variables_initializer(), iterator.initializer])
    if built.fill is not None:
      session.run(built.fill)
    yield Training(session, built, batch, session.run(batch))


def traced(session: Any, fetches: Any, feed: Any = None) -> tf.RunMetadata:
  """What a run did, operation by operation."""
  trace = tf.RunMetadata()
  options = tf.RunOptions(
    trace_level=tf.RunOptions.FULL_TRACE, output_partition_graphs=True
  )
  session.run(fetches, feed, options, trace)
  return trace


def count_flops(trace: tf.RunMetadata) -> float:
  """Multiplications and additions of a run's matrix products.

  Those within loops and functions count, as often as they ran.
  """
  shapes: dict[str, list] = {}  # {operation: its first output's at each run}
  for device in trace.step_stats.dev_stats:
    for run in device.node_stats:
      for output in run.output[:1]:
        found = [dim.size for dim in output.tensor_description.shape.dim]
        shapes.setdefault(run.node_name, []).append(found)
  flops = 0.0
  for graph in trace.partition_graphs:
    for node in graph.node:
      factor = shapes.get(node.input[0].split(":")[0]) if node.input else None
      if "MatMul" in node.op and factor:
        turned = node.attr["transpose_a"].b or node.attr["adj_x"].b
        inner = factor[0][-2 if turned else -1]
        # What a branch that was not taken holds did not run.
        runs = shapes.get(node.name, [])
        outer = sum(np.prod(each, dtype=float) for each in runs)
        flops += 2.0 * inner * outer
  return flops


def peak_memory() -> int:
  """The most bytes that this process has had."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def memory_in_use(trace: tf.RunMetadata, on_gpu: bool) -> float:
  """Most bytes in use while a run was traced, by a GPU or the process."""
  if not on_gpu:
    return peak_memory()
  found = [
    memory.allocator_bytes_in_use
    for device in trace.step_stats.dev_stats
    for node in device.node_stats
    for memory in node.memory
    if "gpu" in memory.allocator_name.lower()
  ]
  return max(found, default=0)


@contextlib.contextmanager
def large_product(size: int = 2048, dtype: Any = tf.float32) -> Iterator:
  """(function that makes a large matrix product, its operations).

  Of so many rows and columns it is taken for the machine's fastest.
  """
  config = program.session_config()
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    matrix = tf.Variable(tf.cast(tf.random.normal([size, size]), dtype))
    product = tf.matmul(matrix, matrix).op
    session.run(matrix.initializer)
    yield lambda: session.run(product), 2.0 * size**3
