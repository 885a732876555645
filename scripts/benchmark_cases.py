"""The measurements of `benchmark.py`, each in a process of its own.

A `Unit` names one of `FUNCTIONS` and its arguments; `run_apart` calls it in a
new process, whose peak memory then is the unit's. It returns rows of a table:
{row: {figure: number}}. A figure's name tells its unit, see `benchmark.py`.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import program  # isort: skip  # noqa: F401  (before TensorFlow)

import dataclasses
import json
import signal
import subprocess

from scripts import (
  benchmark_evaluation,
  benchmark_pooling,
  benchmark_reading,
  benchmark_training,
)
from scripts.benchmark_units import Rows, Settings, Unit, UnitFailed

_UNIT_TIMEOUT = 1200.0
_TAIL_LINES = 12

FUNCTIONS = {
  function.__name__: function
  for function in (
    benchmark_evaluation.inference,
    benchmark_evaluation.metrics,
    benchmark_pooling.largest_batch,
    benchmark_pooling.pooling,
    benchmark_reading.reading,
    benchmark_training.plain_step,
    benchmark_training.scaling,
    benchmark_training.startup,
    benchmark_training.startup_help,
    benchmark_training.step,
    benchmark_training.towers,
  )
}


def run_apart(settings: Settings, unit: Unit) -> Rows:
  """Measures a unit in a new process.

  Raises:
    UnitFailed: it failed, or took too long.
  """
  process = subprocess.Popen(
    [sys.executable, os.path.abspath(__file__)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    # Ctrl-C is for the program that asked for the unit, which then ends the
    # unit's group: the unit and the processes it has asked for.
    start_new_session=True,
    env={k: v for k, v in os.environ.items() if k != "TF_CONFIG"},
  )
  given = {"settings": dataclasses.asdict(settings), "unit": unit._asdict()}
  try:
    stdout, stderr = process.communicate(json.dumps(given), _UNIT_TIMEOUT)
  except subprocess.TimeoutExpired:
    raise UnitFailed(f"took longer than {_UNIT_TIMEOUT:.0f} s") from None
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
  if process.returncode:
    lines = [line for line in stderr.splitlines() if line.strip()]
    raise UnitFailed(
      "\n".join([f"status {process.returncode}", *lines[-_TAIL_LINES:]])
    )
  return json.loads(stdout.splitlines()[-1])


def run_unit(settings: Settings, unit: Unit) -> Rows:
  """Measures a unit in this process."""
  rows = FUNCTIONS[unit.function](settings, **unit.arguments)
  # A function that makes one row leaves its name to the unit.
  return {name or unit.name: figures for name, figures in rows.items()}


def main():
  """Measures the unit on stdin, and prints its rows as the last line."""
  given = json.load(sys.stdin)
  sizes = given["settings"]
  sizes["feature_sizes"] = tuple(sizes["feature_sizes"])
  rows = run_unit(Settings(**sizes), Unit(**given["unit"]))
  print(json.dumps(rows))


if __name__ == "__main__":
  main()
