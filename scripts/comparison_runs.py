"""Runs of `compare_models.py`: each a training and an evaluation.

A run is forked from a server that has loaded TensorFlow already: loading it
takes longer than many a run. The server is no program of ours: absl's start of
one makes TensorFlow look for GPUs, which do not survive a fork.
"""

import collections
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import time
from multiprocessing import connection
from typing import Any

import tensorflow.compat.v1 as tf
from absl import logging

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
    parent: str, the directory of its row.
    name: str, what tells it from the others there, in words.
    flags: dict of train.py's flags, --train_dir aside; with --holdout_fraction,
      only what is held out is evaluated.
    eval_data_pattern: str.
    keeps: bool, keep the train_dir.
  """

  parent: str
  name: str
  flags: dict[str, Any]
  eval_data_pattern: str
  keeps: bool

  def path(self, name: str = "") -> str:
    """A file in its directory: with other flags, another one."""
    text = json.dumps([self.flags, self.eval_data_pattern], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return os.path.join(self.parent, f"{self.name}-{digest}", name)

  def result(self) -> dict[str, Any] | None:
    """What `perform` found, None if it has yet to."""
    if self.keeps and not os.path.isdir(self.path("train_dir")):
      return None
    try:
      with open(self.path("result.json"), encoding="utf-8") as stream:
        return json.load(stream)
    except FileNotFoundError:
      return None

  def failure(self) -> str:
    """The end of its log."""
    with open(self.path("log.txt"), errors="replace") as log:
      lines = [line for line in log.read().splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])


class _Trainer(train.Trainer):
  """Keeps what only it knows, as `facts`; None if nothing is left to do."""

  facts = None

  def build(self, batch):
    """See the base class."""
    built = super().build(batch)
    weights = [v.shape.num_elements() for v in built.variables if v.trainable]
    self.facts = {"parameters": sum(weights), "batch_size": self._batch_size}
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
  rates = [
    value.simple_value
    for path in sorted(tf.gfile.Glob(os.path.join(train_dir, "events.out.*")))
    for event in tf.train.summary_iterator(path)
    for value in event.summary.value
    if value.tag == "global_step/Examples/Second"
  ]
  return statistics.median(rates[1:] or rates)


def perform_all(runs, jobs):
  """Performs runs, each in a process of its own.

  Closed or interrupted, it asks those that train to save, and waits for that.

  Args:
    runs: list of `Run`.
    jobs: int, how many at a time. They share out the processor's cores.

  Yields:
    (Run, whether it went well), as they end.
  """
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload([__name__])
  os.environ["PYTHONPATH"] = _ROOT  # The server's.
  cores = []
  if jobs > 1 and hasattr(os, "sched_getaffinity"):
    cores = sorted(os.sched_getaffinity(0))
  waiting, slots = collections.deque(runs), [*range(jobs)]
  running: dict[Any, tuple] = {}
  try:
    while waiting or running:
      while waiting and slots:
        run, slot = waiting.popleft(), slots.pop()
        arguments = (run, cores[slot::jobs])
        process = context.Process(target=_in_child, args=arguments, daemon=True)
        process.start()
        running[process.sentinel] = process, run, slot
      for sentinel in connection.wait(list(running)):
        process, run, slot = running.pop(sentinel)
        process.join()
        slots.append(slot)
        yield run, process.exitcode == 0
  finally:
    for process, *_ in running.values():
      process.terminate()
    for process, *_ in running.values():
      process.join()


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
