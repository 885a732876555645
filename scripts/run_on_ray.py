"""Runs the shards of a program on a cluster of Ray, or on this machine.

  python scripts/run_on_ray.py --shards=16 --gpus=1 -- \\
    inference.py --train_dir=/shared/runs/netvlad \\
    --input_data_pattern='/shared/yt8m/frame/test*.tfrecord' \\
    --output_file=/shared/test.csv

A shard is a task that starts the program after -- with --shard=I/N, in a
process of its own. Ray finds it a machine with --cpus and --gpus to spare, asks
for more machines where the cluster can grow, and tries again, --retries times,
what failed or whose machine was lost. The same command again makes what is
missing. This checkout, its packages and the data are to be at the same paths on
all machines.

It needs the extra [ray]: pip install -c constraints.txt -e '.[ray]'
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import contextlib
import dataclasses
from collections.abc import Sequence

from absl import logging

from console import flag_fields
from sharding import shard as shard_lib

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LOCAL = "local"
# Ray's least: a shard's result is a number.
_STORE_BYTES = 80 << 20


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Shards"):
  """What run_on_ray.py is told."""

  shards: int = flag_fields.integer(
    None, "Shares to make of the input.", low=1, required=True
  )
  address: str = flag_fields.text(
    _LOCAL,
    "Of the cluster: auto for the one that this machine is part of, HOST:PORT, "
    "or ray://HOST:PORT; local for this machine alone.",
  )
  cpus: float = flag_fields.real(1.0, "Cores of a shard.", low=0.01)
  gpus: float = flag_fields.real(
    0.0, "GPUs of a shard; 0.5 for two shards on a GPU.", low=0.0
  )
  retries: int = flag_fields.integer(
    3, "Times to try a shard again that failed.", low=0
  )


def require():
  """ray; ValueError, which tells how to get it, where it is missing."""
  # It would tell its makers what runs.
  os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
  try:
    import ray
  except ImportError:
    raise ValueError(
      "scripts/run_on_ray.py needs ray: pip install -c constraints.txt -e "
      "'.[ray]'"
    ) from None
  return ray


def run(config: Config, command: Sequence[str]) -> dict[shard_lib.Shard, int]:
  """Runs the shards of a program, its path and flags: {shard: exit status}."""
  ray = require()
  local = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
  is_local = config.address == _LOCAL
  ray.init(config.address, **(local if is_local else {}))
  good = (0, program.INCOMPLETE)

  # Inside, so that it travels as it is: no machine imports this module.
  def attempt(words, own):
    import subprocess
    import sys

    status = subprocess.run(
      [sys.executable, *words, f"--shard={own}"]
    ).returncode
    if status not in good:
      raise RuntimeError(f"--shard={own} ended with status {status}.")
    return status

  task = ray.remote(
    num_cpus=config.cpus,
    num_gpus=config.gpus,
    max_retries=config.retries,
    retry_exceptions=True,
  )(attempt)
  count, found = config.shards, {}
  try:
    waiting = {
      task.remote(list(command), str(own)): own
      for own in (shard_lib.Shard(i, count) for i in range(count))
    }
    with contextlib.closing(program.progress_bar(count, "shards")) as bar:
      while waiting:
        (ended,), _ = ray.wait(list(waiting))
        own = waiting.pop(ended)
        try:
          found[own] = ray.get(ended)
        except ray.exceptions.RayError as error:
          found[own] = program.FAILED
          logging.error("%s", str(error).strip().splitlines()[-1])
        bar.update()
  finally:
    ray.shutdown()
  return found


def main(arguments):
  """Runs the shards of a command; returns an exit status."""
  config = flag_fields.from_flags(Config)
  if not arguments:
    raise program.UserError(
      "Give the program and its flags after --, as in: -- inference.py ..."
    )
  script = os.path.join(_ROOT, arguments[0])
  if not os.path.exists(script):
    raise program.UserError(f"There is no program {arguments[0]} in {_ROOT}.")
  found = run(config, [script, *arguments[1:]])
  failed = [own for own, status in found.items() if status == program.FAILED]
  if failed:
    logging.error(
      "%d of %d shards failed: %s. The same command tries these again.",
      len(failed),
      config.shards,
      shard_lib.some(sorted(map(str, failed))),
    )
    return program.FAILED
  logging.info("All %d shards are whole: merge.py joins them.", config.shards)
  return program.INCOMPLETE if any(found.values()) else None


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main, takes_arguments=True)
