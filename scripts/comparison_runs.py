"""Runs of `compare_models.py`: each a training and an evaluation.

A run is forked from a server that has loaded TensorFlow already: loading it
takes longer than many a run. The server is no program of ours: absl's start of
one makes TensorFlow look for GPUs, which do not survive a fork.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from multiprocessing import connection
from typing import Any

import tensorflow.compat.v1 as tf
from absl import logging
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tb_logging

import files
import readers
import train
from checkpoints import evaluations, restore
from console import program
from evaluation import measure
from scripts import measuring

_ROOT = os.path.dirname(os.path.abspath(train.__file__))
_TAIL_LINES = 15
_EVAL_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A training and the evaluation of its last checkpoint.

  Attributes:
    name: str, its directory, but for a hash of what it is.
    flags: dict of train.py's flags, --train_dir aside; with --holdout_fraction,
      only what is held out is evaluated.
    eval_data_pattern: str.
    keeps: bool, keep the train_dir.
  """

  name: str
  flags: dict[str, Any]
  eval_data_pattern: str
  keeps: bool

  def path(self, *names: str) -> str:
    """A file in its directory: with other flags, another one."""
    text = json.dumps([self.flags, self.eval_data_pattern], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return os.path.join(f"{self.name}-{digest}", *names)

  def result(self) -> dict[str, Any] | None:
    """What `perform` found, None if it has yet to."""
    evaluated = self.path("train_dir", evaluations.DIRECTORY)
    if self.keeps and not os.path.isdir(evaluated):
      return None
    try:
      return json.loads(files.read_text(self.path("result.json")))
    except FileNotFoundError:
      return None

  def failure(self) -> str:
    """The end of its log."""
    with open(self.path("log.txt"), errors="replace") as log:
      return "".join(log.readlines()[-_TAIL_LINES:]).strip()


class _Trainer(train.Trainer):
  """Keeps what only it knows, as `facts`; None if nothing is left to do."""

  facts = None

  def build(self, batch):
    """See the base class."""
    built = super().build(batch)
    self.facts = {
      "parameters": built.num_parameters,
      "batch_size": self._batch_size,
    }
    return built


def perform(run: Run) -> None:
  """Trains, evaluates and writes result.json, in this process.

  Raises:
    program.UserError, ValueError: train.py or eval.py would, or training was
      stopped.
  """
  train_dir = run.path("train_dir")
  given = {**run.flags, "train_dir": train_dir}
  trainer, config, values = measuring.make_trainer(given, _Trainer)
  start = time.monotonic()
  trainer.run()
  seconds, peak = time.monotonic() - start, measuring.peak_memory()
  checkpoint = restore.latest_checkpoint(train_dir)
  if not checkpoint or restore.step_of(checkpoint) < config.max_steps:
    raise program.UserError("Training was stopped.")
  found = measure.evaluate(
    checkpoint,
    values,
    readers.expand_data_pattern(run.eval_data_pattern),
    batch_size=_EVAL_BATCH_SIZE,
    num_readers=config.num_readers,
    holdout=bool(values["holdout_fraction"]),
  )
  found |= {"seconds": seconds, "peak_memory": peak, **(trainer.facts or {})}
  found["examples_per_second"] = _examples_per_second(train_dir)
  if run.keeps:
    evaluations.write(found, os.path.join(train_dir, evaluations.DIRECTORY))
  else:
    shutil.rmtree(train_dir)
  files.write_text(run.path("result.json"), json.dumps(found, indent=2) + "\n")


def _examples_per_second(train_dir):
  """Median of what train.py reported, the first aside, when it warmed up."""
  tb_logging.get_logger().setLevel("WARNING")  # It tells of every file.
  events = event_accumulator.EventAccumulator(train_dir).Reload()
  rates = [each.value for each in events.Scalars("global_step/Examples/Second")]
  return statistics.median(rates[1:] or rates)


def perform_all(runs: list[Run], jobs: int) -> Iterator[Run]:
  """Performs runs, each in a process of its own; yields them as they end.

  If this process ends before, it asks those that train to save, and waits.

  Args:
    runs: those to perform.
    jobs: how many at a time. They share out the processor's cores.
  """
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload([__name__])
  os.environ["PYTHONPATH"] = _ROOT  # The server's.
  cores = []
  if jobs > 1 and hasattr(os, "sched_getaffinity"):
    cores = sorted(os.sched_getaffinity(0))
  waiting, free = runs[::-1], [cores[job::jobs] for job in range(jobs)]
  running: dict[Any, tuple] = {}
  while waiting or running:
    while waiting and free:
      arguments = run, own = waiting.pop(), free.pop()
      # A daemon is sent SIGTERM, and waited for, when this process ends.
      process = context.Process(target=_in_child, args=arguments, daemon=True)
      process.start()
      running[process.sentinel] = process, run, own
    for sentinel in connection.wait(list(running)):
      process, run, own = running.pop(sentinel)
      process.join()
      free.append(own)
      yield run


def _in_child(run, cores):
  """Performs a run in a process that was forked for it."""
  # Ctrl-C comes from the parent, once, so that training saves.
  os.setsid()
  if cores:
    # TensorFlow starts as many threads as it has cores.
    os.sched_setaffinity(0, cores)
  os.makedirs(run.path(), exist_ok=True)
  log = os.open(run.path("log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  for stream in (1, 2):
    os.dup2(log, stream)
  # As `program.run` has it.
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  tf.logging.set_verbosity(tf.logging.FATAL)
  perform(run)
