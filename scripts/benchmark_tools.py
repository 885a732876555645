"""How `benchmark.py` measures: clocks, memory, multiplications, machine.

Times are medians over rounds, and in each round every variant of what is
compared runs once: whatever else slows the machine slows all of them.
"""

import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

# ru_maxrss is in kilobytes, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_STATUS = "/proc/self/status"
# Rounds that a small part of the budget has no time for are not asked for.
_EAGER_SHARE = 0.1
_MOST_ROUNDS = 1000
_PRODUCTS = ("MatMul", "Einsum")


class Rounds:
  """Seconds of each variant, round by round."""

  def __init__(self, seconds: Mapping[str, list[float]]):
    self.seconds = dict(seconds)

  @property
  def repeats(self) -> int:
    """The number of rounds."""
    return len(next(iter(self.seconds.values())))

  def median(self, name: str) -> float:
    """Seconds of a variant."""
    return statistics.median(self.seconds[name])

  def excess(self, name: str, other: str) -> float:
    """Seconds that one variant takes longer than another; at least 0."""
    pairs = zip(self.seconds[name], self.seconds[other])
    return max(0.0, statistics.median(a - b for a, b in pairs))

  def ratio(self, name: str, other: str) -> float:
    """Median of the rounds' ratios, one variant's seconds over the other's."""
    pairs = zip(self.seconds[name], self.seconds[other])
    return statistics.median(a / b for a, b in pairs)


def measure(
  variants: Mapping[str, Callable[[], Any]],
  *,
  repeats: int,
  seconds: float,
  warm_ups: int = 1,
) -> Rounds:
  """Runs all variants in turn, again and again.

  Args:
    variants: name to function. One that returns a float has timed itself.
    repeats: rounds that are wanted; quick ones, which a tenth of the budget
      has time for, get more.
    seconds: budget, behind which no round begins. There is one in any case.
    warm_ups: rounds that do not count.
  """
  for _ in range(warm_ups):
    for run in variants.values():
      run()
  found = {name: [] for name in variants}
  start = time.perf_counter()
  for number in range(1, _MOST_ROUNDS + 1):
    for name, run in variants.items():
      before = time.perf_counter()
      own = run()
      after = time.perf_counter()
      found[name].append(own if isinstance(own, float) else after - before)
    spent = time.perf_counter() - start
    enough = number >= repeats and spent >= _EAGER_SHARE * seconds
    if enough or spent >= seconds:
      break
  return Rounds(found)


def _status_bytes(key):
  with open(_STATUS) as stream:
    lines = [line for line in stream if line.startswith(f"{key}:")]
  return 1024 * int(lines[0].split()[1])


def peak_bytes() -> int:
  """The most memory that this process had at a time."""
  if os.path.exists(_STATUS):
    # ru_maxrss begins with what the parent process had at the start.
    return _status_bytes("VmHWM")
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def current_bytes() -> int:
  """The memory that this process has; where that is not told, its peak."""
  return _status_bytes("VmRSS") if os.path.exists(_STATUS) else peak_bytes()


def available_bytes() -> float:
  """The memory that the machine can still give; infinite where not told."""
  return _memory_info().get("MemAvailable", math.inf)


def _memory_info():
  try:
    with open("/proc/meminfo") as stream:
      lines = [line.replace(":", " ").split() for line in stream]
  except OSError:
    return {}
  return {words[0]: 1024 * int(words[1]) for words in lines}


def count_products(session, fetches, feed_dict=None) -> int:
  """Floating-point operations of the matrix products that a run executes.

  Counted from a trace of the graph as TensorFlow runs it, optimised, so that
  unknown sizes and loops are what they were: two for each multiplication of
  every execution of a MatMul or Einsum, of whatever kind.

  Args:
    session: `tf.Session`.
    fetches: what to run.
    feed_dict: see `tf.Session.run`.
  """
  metadata = tf.RunMetadata()
  options = tf.RunOptions(
    trace_level=tf.RunOptions.FULL_TRACE, output_partition_graphs=True
  )
  session.run(fetches, feed_dict, options=options, run_metadata=metadata)
  nodes = {
    node.name: node
    for graph in metadata.partition_graphs
    for node in graph.node
  }
  executed = [
    stats
    for device in metadata.step_stats.dev_stats
    if "stream" not in device.device  # A GPU's kernels: the same once more.
    for stats in device.node_stats
    if stats.node_name in nodes
  ]
  shapes = {}
  for stats in executed:
    for output in stats.output:
      dims = output.tensor_description.shape.dim
      shapes[stats.node_name, output.slot] = [dim.size for dim in dims]
  return sum(_operations(nodes[stats.node_name], shapes) for stats in executed)


def _operations(node, shapes):
  """Of one execution of a node of a graph; 0 if it is no matrix product."""
  if not any(kind in node.op for kind in _PRODUCTS):
    return 0
  inputs = []
  for name in node.input[:2]:
    source, _, slot = name.partition(":")
    inputs.append(shapes[source, int(slot or 0)])
  # A fused one may have further outputs, the product is the first.
  outputs = 2 * math.prod(shapes[node.name, 0])
  if "Einsum" in node.op:
    return outputs * _summed(node.attr["equation"].s.decode(), inputs)
  is_transposed = node.attr["transpose_a"].b or node.attr["adj_x"].b
  return outputs * inputs[0][-2 if is_transposed else -1]


def _summed(equation, inputs):
  """The number of terms in each sum of an Einsum of two factors."""
  factors, _, result = equation.partition("->")
  factors = factors.split(",")
  if "." in equation:
    raise ValueError(f"Cannot count the operations of Einsum {equation!r}.")
  if len(factors) < 2:
    return 0  # Of one factor it adds and transposes.
  sizes = {}
  for labels, shape in zip(factors, inputs):
    sizes.update(zip(labels, shape))
  return math.prod(sizes[label] for label in set(sizes) - set(result))


class MatrixProduct:
  """The matrix product that others are compared with: float32, square."""

  def __init__(self, size: int):
    """Makes two random matrices of that size."""
    self.operations = 2 * size**3
    with tf.Graph().as_default() as graph:
      x, y = (
        tf.get_variable(name, [size, size], trainable=False) for name in "xy"
      )
      self._run = tf.matmul(x, y).op
      self._session = tf.Session(graph=graph)
      self._session.run(tf.global_variables_initializer())

  def __call__(self) -> None:
    self._session.run(self._run)


def random_frames(
  rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
  """Stored frames: uint8 of the shape."""
  return rng.integers(0, 256, shape, np.uint8)


def describe_machine() -> dict[str, Any]:
  """What figures depend on besides the code, and the code's commit."""
  total = _memory_info().get("MemTotal")
  return {
    "cpu": _cpu_name(),
    "cores": os.cpu_count(),
    "memory_gb": total and round(total / 1e9, 1),
    "gpus": [
      tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
      for gpu in tf.config.list_physical_devices("GPU")
    ],
    "tensorflow": tf.__version__,
    "python": platform.python_version(),
    "commit": _commit(),
  }


def _cpu_name():
  try:
    with open("/proc/cpuinfo") as stream:
      for line in stream:
        if line.startswith("model name"):
          return line.partition(":")[2].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def _commit():
  """The commit that is checked out, with a + if files differ from it."""
  here = os.path.dirname(os.path.abspath(__file__))
  try:
    found = subprocess.run(
      ["git", "describe", "--always", "--dirty=+"],
      cwd=here,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return found.stdout.strip()
