"""Trains on a cluster: a parameter server, a chief and a worker, for real."""

import json
import os
import re
import subprocess
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
import readers
from checkpoints import restore
from evaluation import measure
from tests import programs, runs
from tests import record_data as records

pytestmark = pytest.mark.slow

_SIZES = {"rgb": 8, "audio": 4}
_NUM_CLASSES = 5
_NUM_VIDEOS = 24
_MAX_STEPS = 60
_TIMEOUT = 120


def _write_data(path):
  """Frame-level videos of 3 to 7 frames, in two files."""
  rng = np.random.default_rng(0)
  path.mkdir()
  for part in range(2):
    records.write(
      path / f"train-{part}.tfrecord",
      [
        records.frame_record(
          b"video%d_%d" % (part, i),
          [i % _NUM_CLASSES],
          records.random_frames(rng, 3 + i % 5, _SIZES),
        )
        for i in range(_NUM_VIDEOS // 2)
      ],
    )
  return f"{path}/train-*.tfrecord"


def _start(jobs, job, directory, pattern, log, **changes):
  """Starts train.py as one task, its flags changed if need be."""
  flags = {
    "train_dir": directory,
    "train_data_pattern": pattern,
    "model": "NetVLADModelLF",
    "frame_features": True,
    "feature_names": ",".join(_SIZES),
    "feature_sizes": ",".join(map(str, _SIZES.values())),
    "num_classes": _NUM_CLASSES,
    "iterations": 4,
    "netvlad_cluster_size": 3,
    "netvlad_hidden_size": 6,
    "gating": True,
    "batch_size": 8,
    "num_epochs": 0,
    "max_steps": _MAX_STEPS,
    "export_model_steps": 0,
    "num_readers": 2,
    "num_gpu": 0,
    "seed": 1,
    **changes,
  }
  task = {"cluster": jobs, "task": {"type": job, "index": 0}}
  return programs.start_program(
    "train.py",
    *runs.flag_list(flags),
    log=log,
    environment={"TF_CONFIG": json.dumps(task)},
  )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """(train_dir, data pattern, {job: exit status}, {job: log}) of a run."""
  path = tmp_path_factory.mktemp("cluster")
  directory = path / "train_dir"
  pattern = _write_data(path / "data")
  names = ("ps", "chief", "worker")
  jobs = {
    job: [address] for job, address in zip(names, programs.free_addresses(3))
  }
  logs = {job: path / f"{job}.log" for job in names}
  tasks = {}
  statuses = dict.fromkeys(names, "did not end")
  try:
    # The chief comes last: the others must wait for it.
    for job in ("ps", "worker", "chief"):
      tasks[job] = _start(jobs, job, directory, pattern, logs[job])
    end = time.monotonic() + _TIMEOUT
    for job in ("chief", "worker"):
      try:
        statuses[job] = tasks[job].wait(max(0.1, end - time.monotonic()))
      except subprocess.TimeoutExpired:
        break
    # It serves until it is killed.
    statuses["ps"] = tasks["ps"].poll()
  finally:
    for task in tasks.values():
      task.kill()
      task.wait()
  texts = {job: log.read_text() for job, log in logs.items()}
  return directory, pattern, statuses, texts


@pytest.mark.parametrize("job", ["chief", "worker"])
def test_every_task_ends_well(run, job):
  _, _, statuses, logs = run
  assert statuses[job] == 0, logs[job][-3000:]
  assert "Traceback" not in logs[job]


def test_the_parameter_server_serves_until_it_is_killed(run):
  _, _, statuses, logs = run
  assert statuses["ps"] is None, logs["ps"][-3000:]
  assert "Parameter server 0: serving until killed." in logs["ps"]


def test_the_steps_of_all_tasks_count_together(run):
  _, _, _, logs = run
  ends = {
    job: int(re.search(r"Done at step (\d+) \(--max_steps\)", log)[1])
    for job, log in logs.items()
    if job != "ps" and "Nothing to do" not in log
  }
  # A task may be in the midst of a step when another ends.
  assert "chief" in ends
  assert all(_MAX_STEPS <= end <= _MAX_STEPS + 1 for end in ends.values())


def test_only_the_chief_writes(run):
  directory, _, _, logs = run
  step = int(re.search(r"Saved .*/model\.ckpt-(\d+)", logs["chief"])[1])
  names = sorted(os.listdir(directory))
  assert [name for name in names if not name.startswith("events.out")] == [
    "checkpoint",
    "finished.json",
    f"model.ckpt-{step}.data-00000-of-00001",
    f"model.ckpt-{step}.index",
    "model_flags.json",
  ]
  assert sum(name.startswith("events.out") for name in names) == 1
  assert "Saved" not in logs["worker"]


def test_the_checkpoint_is_of_the_last_step_and_finite(run):
  directory, _, _, _ = run
  checkpoint = restore.latest_checkpoint(str(directory))
  named = restore.step_of(checkpoint)
  reader = tf.train.load_checkpoint(checkpoint)
  # The worker may have been in the midst of a step.
  assert _MAX_STEPS <= named <= reader.get_tensor("global_step") <= named + 1
  shapes = reader.get_variable_to_shape_map()
  assert any(name.startswith("tower/") for name in shapes)
  for name in shapes:
    assert np.all(np.isfinite(reader.get_tensor(name))), name


def test_the_checkpoint_can_be_evaluated(run):
  directory, pattern, _, _ = run
  checkpoint = restore.latest_checkpoint(str(directory))
  results = measure.evaluate(
    checkpoint,
    model_flags.load(str(directory)),
    readers.expand_data_pattern(pattern),
    batch_size=5,
    num_readers=1,
  )
  assert results["step"] == restore.step_of(checkpoint)
  assert results["num_videos"] == _NUM_VIDEOS
  assert results["flawed_records"] == {}
  assert np.isfinite(results["avg_loss"])
  assert 0 < results["gap"] <= 1


def _steps(log):
  """Steps that a log tells of, in their order."""
  return [int(n) for n in re.findall(r"training step (\d+) ", log)]


def test_a_chief_that_returns_goes_on_from_where_the_others_are(tmp_path):
  directory, pattern = tmp_path / "train_dir", _write_data(tmp_path / "data")
  names = ("ps", "chief", "worker")
  jobs = {
    job: [address] for job, address in zip(names, programs.free_addresses(3))
  }
  tasks, logs = {}, {}

  def start(name, job, **changes):
    logs[name] = tmp_path / f"{name}.log"
    changes = {"model": "FrameLevelLogisticModel", **changes}
    changes |= {"max_steps": 10**9, "log_steps": 1, "log_secs": 0}
    tasks[name] = _start(jobs, job, directory, pattern, logs[name], **changes)

  def wait(name, condition):
    runs.wait_for_log(tasks[name], logs[name], condition)

  try:
    start("worker", "worker")
    # It says whom it waits for.
    wait("worker", lambda log: f"Waiting for ps 0 at {jobs['ps'][0]}" in log)
    start("ps", "ps")
    wait("worker", lambda log: f"chief 0 at {jobs['chief'][0]}" in log)
    start("chief", "chief")
    wait("chief", lambda log: len(_steps(log)) > 9)
    wait("worker", lambda log: len(_steps(log)) > 9)
    tasks["chief"].kill()
    tasks["chief"].wait()
    # Nothing was saved, and yet nothing is lost.
    assert not list(directory.glob("model.ckpt*"))
    start("again", "chief")
    wait("again", lambda log: len(_steps(log)) > 9)
    first = _steps(logs["again"].read_text())[0]
    assert first > _steps(logs["chief"].read_text())[-1]
    wait("worker", lambda log: _steps(log)[-1] > first)
    assert "goes on from there" in logs["again"].read_text()
    # A new run on the same servers is a new run.
    tasks["again"].kill()
    tasks["again"].wait()
    start("new", "chief", train_dir=f"{directory}2")
    wait("new", lambda log: len(_steps(log)) > 9)
    assert f"of the run in {directory}:" in logs["new"].read_text()
    wait("worker", lambda log: "has begun again" in log)
    wait("worker", lambda log: len(_steps(log.split("begun again")[1])) > 9)
    steps = _steps(logs["worker"].read_text().split("has begun again")[0])
    assert steps == sorted(steps)
  finally:
    for task in tasks.values():
      task.kill()
      task.wait()
