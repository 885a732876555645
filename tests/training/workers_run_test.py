"""Trains with several processes that take each step together, for real."""

import contextlib
import json
import os
import re
import signal

import numpy as np
import pytest

from checkpoints import restore
from tests import programs, runs
from tests import record_data as records

pytestmark = pytest.mark.slow

_STEPS, _BATCH = 20, 6


class _Tasks:
  """Processes of one training; those that are left are killed at its end."""

  def __init__(self, tmp_path, count, pattern, *, num_ps=0, **flags):
    self._path = tmp_path
    self._addresses = programs.free_addresses(count)
    self._ps = programs.free_addresses(num_ps)
    self.directory = tmp_path / "train_dir"
    self._flags = runs.train_flag_list(self.directory, pattern, **flags)
    self._started = []

  def start(self, number, job="worker"):
    """Starts one: (process, file of its log)."""
    log = self._path / f"{len(self._started)}.log"
    task = {"type": job, "index": number}
    jobs = {"worker": self._addresses, "ps": self._ps}
    config = {"cluster": jobs, "task": task}
    process = programs.start_program(
      "train.py",
      *self._flags,
      log=log,
      environment={"TF_CONFIG": json.dumps(config)},
    )
    self._started.append(process)
    return process, log

  def name(self, number):
    return f"worker {number} at {self._addresses[number]}"

  def __enter__(self):
    return self

  def __exit__(self, *unused_exc_info):
    for process in self._started:
      with contextlib.suppress(ProcessLookupError):
        process.kill()


def _videos(count):
  rng = np.random.default_rng(0)
  return [
    records.frame_record(
      b"v%03d" % i,
      [int(rng.integers(runs.NUM_CLASSES))],
      records.random_frames(rng, int(rng.integers(2, 6)), runs.SIZES),
    )
    for i in range(count)
  ]


def _losses(log):
  return {step: float(loss) for step, loss in runs.losses_of(log).items()}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  """(checkpoint to start from, videos, {step: loss}) of one process's run."""
  path = tmp_path_factory.mktemp("one")
  videos = _videos(_STEPS * _BATCH + 4)
  start = runs.run_train(
    path / "start",
    records.write(path / "start.tfrecord", videos[:8]),
    max_steps=1,
    model="FrameLevelLogisticModel",
  )
  whole = records.write(path / "whole.tfrecord", videos)
  runs.run_train(path / "model", whole, **_flags(start, _BATCH))
  loss = runs.events(path / "model")["label_loss"]
  assert len(loss) == _STEPS + 1
  return start, videos, loss


def _flags(start, batch_size):
  return {
    "model": "FrameLevelLogisticModel",
    "init_checkpoint": start,
    "batch_size": batch_size,
    "shuffle_buffer": 0,
    "num_readers": 1,
    "num_epochs": 1,
    "max_steps": None,
    "regularization_penalty": 0.5,
    "teachers": start,
  }


@pytest.mark.parametrize(("count", "num_ps"), [(2, 1), (3, 0)])
def test_tasks_lose_what_one_process_with_all_their_videos_loses(
  one, tmp_path, count, num_ps
):
  start, videos, expected = one
  # Each task has a file; one has more than the others at its end.
  size = _BATCH // count
  shares = [[] for _ in range(count)]
  for i in range(_STEPS * _BATCH):
    shares[i // size % count].append(videos[i])
  shares[1] += videos[_STEPS * _BATCH :]
  for i, share in enumerate(shares):
    records.write(tmp_path / f"train{i}.tfrecord", share)
  flags = {**_flags(start, size), "synchronous": bool(num_ps)}
  with _Tasks(
    tmp_path, count, f"{tmp_path}/train*", num_ps=num_ps, **flags
  ) as tasks:
    servers = [tasks.start(number, "ps") for number in range(num_ps)]
    started = [tasks.start(number) for number in reversed(range(count))]
    for process, log in started:
      assert programs.finish(process)[0] == 0, log.read_text()
    for process, log in servers:
      assert "idle, as of --synchronous, until killed." in log.read_text()
      assert process.poll() is None
  loss = runs.events(tasks.directory)["label_loss"]
  for step in range(1, _STEPS + 1):
    np.testing.assert_allclose(loss[step], expected[step], rtol=1e-5)
  assert "from host to host: no GPU is in use." in started[0][1].read_text()
  # The last videos come in batches of one task alone.
  text = started[-1][1].read_text()
  assert f"Done at step {_STEPS + -(-4 // size)} (end of data)" in text
  # The others write nothing, and say little.
  assert sum("events" in name for name in os.listdir(tasks.directory)) == 1
  assert len(_losses(started[0][1].read_text())) <= 2


def _num_threads(process):
  with open(f"/proc/{process.pid}/status") as status:
    return int(re.search(r"Threads:\s+(\d+)", status.read())[1])


def test_a_task_that_ends_comes_back_and_training_goes_on(tmp_path):
  pattern = runs.write_data(tmp_path / "data")
  with _Tasks(
    tmp_path,
    2,
    pattern,
    model="FrameLevelLogisticModel",
    max_steps=10**6,
    save_checkpoints_steps=20,
  ) as tasks:
    started = [tasks.start(0), tasks.start(1)]

    def wait(number, condition):
      programs.wait_for_log(*started[number], condition)

    wait(0, lambda log: "Saved " in log)
    before = [_num_threads(process) for process, _ in started]
    wait(0, lambda log: log.count("Saved ") > 3)
    # A step leaves none behind.
    for (process, _), count in zip(started, before):
      assert _num_threads(process) < count + 20
    started[1][0].kill()
    wait(0, lambda log: f"{tasks.name(1)} is gone." in log)
    started[1] = tasks.start(1)
    wait(0, lambda log: "Saved " in log.partition(" is gone.")[2])
    started[0][0].kill()  # The chief too.
    wait(1, lambda log: f"{tasks.name(0)} is gone." in log)
    started[0] = tasks.start(0)
    wait(0, lambda log: "Saved " in log)
    # Who is told to leave has the chief save first; the others wait for it.
    started[1][0].send_signal(signal.SIGTERM)
    assert programs.finish(started[1][0])[0] == 0
    wait(0, lambda log: "another task was told to stop. Beginning" in log)
    chiefs, workers = (log.read_text() for _, log in started)
  resumed = int(re.findall(r"Resuming from .*ckpt-(\d+)\.", chiefs)[0])
  assert resumed >= 40
  assert min(_losses(chiefs)) == resumed + 1
  stopped = re.search(r"Done at step (\d+) \(SIGTERM\)", workers)[1]
  assert restore.latest_checkpoint(str(tasks.directory)).endswith(f"-{stopped}")
