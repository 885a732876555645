"""Runs a part of a tf.data service, whose machines read for training.

  python scripts/data_service.py --port=5000                  # the dispatcher
  python scripts/data_service.py --port=5001 \\
      --dispatcher=reader0:5000 --address=reader1:5001         # on each reader
  python train.py --data_service=grpc://reader0:5000 ...

All machines see the training files under the same paths. A dispatcher that is
started again goes on where it was, with --work_dir.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses

import tensorflow as tf
from absl import logging

from console import flag_fields


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Service"):
  """What data_service.py is told."""

  port: int = flag_fields.integer(5000, "Port to listen at.", low=0, high=65535)
  dispatcher: str = flag_fields.text(
    "", "Address of the dispatcher, HOST:PORT, for a worker of it."
  )
  address: str = flag_fields.text(
    "",
    "Address by which training reaches this worker, HOST:PORT; localhost and "
    "its port, if not given.",
  )
  work_dir: str = flag_fields.path(
    "", "Where the dispatcher notes what it has given out, to go on from."
  )


def start(config):
  """Starts the server: it runs as long as it is referred to."""
  service = tf.data.experimental.service
  if config.dispatcher:
    return service.WorkerServer(
      service.WorkerConfig(
        dispatcher_address=config.dispatcher,
        worker_address=config.address or None,
        port=config.port,
      )
    )
  return service.DispatchServer(
    service.DispatcherConfig(
      port=config.port,
      work_dir=config.work_dir or None,
      fault_tolerant_mode=bool(config.work_dir),
    )
  )


def main():
  """Serves until it is killed."""
  config = flag_fields.from_flags(Config)
  server = start(config)
  logging.info(
    "%s at port %d: serving until killed.",
    f"Worker of {config.dispatcher}" if config.dispatcher else "Dispatcher",
    config.port,
  )
  server.join()


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
