"""Tests of training/log.py."""

import logging
import re
import types

import pytest
import tensorflow.compat.v1 as tf
from tensorboard.plugins.hparams import metadata as hparams_metadata

import eval_util
from checkpoints import events
from tests import runs
from training import config
from training import log as train_log

# What two videos leave of three classes: the first has label 0; the second has
# 1 and 2, and its best classes are 0 and 1.
_BATCH = {
  "classes": [[0, 1, 2], [0, 1, 2]],
  "scores": [[0.9, 0.5, 0.1], [0.8, 0.7, 0.2]],
  "hits": [[True, False, False], [False, True, True]],
  "num_labels": [1, 2],
  "perr": [1.0, 0.5],
  "num_positives": [1, 1, 1],
}
_HIT_AT_1 = (1 + 0) / 2
_PERR = (1 + 1 / 2) / 2
# Scores 0.9, 0.7 and 0.2 are right, at ranks 1, 3 and 5.
_GAP = (1 / 1 + 2 / 3 + 3 / 5) / 3


class _Clock:
  """Stands for the module `time`; only tests move it."""

  def __init__(self):
    self.now = 1000.0

  def monotonic(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = _Clock()
  # Not time.monotonic itself, on which others wait.
  monkeypatch.setattr(
    train_log, "time", types.SimpleNamespace(monotonic=clock.monotonic)
  )
  return clock


@pytest.fixture
def lines(caplog):
  """A function: the lines logged since it was called last."""
  caplog.set_level(logging.INFO, logger="absl")

  def take():
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found

  return take


def _log(writer=None, *, start_step=0, total_steps=None, **options):
  return train_log.TrainLog(
    writer=writer,
    num_classes=3,
    start_step=start_step,
    total_steps=total_steps,
    **options,
  )


def _writer(directory):
  with tf.Graph().as_default():  # Writers refuse to exist in eager mode.
    return events.EventWriter(str(directory))


def _summaries(directory):
  """[(step, `tf.Summary.Value`)] of the only event file of a directory."""
  (path,) = directory.iterdir()
  return [
    (event.step, value)
    for event in tf.train.summary_iterator(str(path))
    for value in event.summary.value
  ]


def _scalars(directory):
  """{(step, tag): value}."""
  return {
    (step, value.tag): value.simple_value
    for step, value in _summaries(directory)
  }


# Lines.


def test_a_line_has_step_loss_and_throughput(clock, lines):
  log = _log()
  log.count(30, 10)
  clock.now += 4
  log.report(10, 0.123456789, None, None, {})
  assert lines() == ["training step 10 | Loss: 0.123457 Examples/sec: 7.5"]


def test_a_line_has_the_metrics_of_its_batch(clock, lines):
  log = _log()
  for step in (10, 20):  # The second line says the same: nothing adds up.
    clock.now += 1
    log.report(step, 2.0, _BATCH, None, {})
    (line,) = lines()
    assert line.startswith(f"training step {step} | Loss: 2 ")
    assert line.endswith(
      f" | Hit@1: {_HIT_AT_1:.3f} Perr: {_PERR:.3f} GAP: {_GAP:.3f}"
    )


def test_throughput_is_of_the_examples_counted_since_the_last_line(
  clock, lines
):
  log = _log()
  rates = []
  for counts, seconds in [((8, 8, 3), 2), ((), 5), ((7,), 0.5)]:
    for count in counts:
      log.count(count, 1)
    clock.now += seconds
    log.report(1, 0.0, None, None, {})
    rates += re.findall(r"Examples/sec: (\S+)", lines()[0])
  assert rates == [f"{(8 + 8 + 3) / 2:.1f}", f"{0 / 5:.1f}", f"{7 / 0.5:.1f}"]


def test_no_time_between_two_lines_is_no_error(clock, lines):
  log = _log()
  log.report(1, 0.0, None, None, {})
  assert len(lines()) == 1


def test_a_line_has_progress_and_once_it_is_known_the_time_left(clock, lines):
  log = _log(start_step=100, total_steps=300)
  said = []
  # 50 steps of warming up do not tell; nor do 10 in 2 s.
  for seconds, step in ((50, 150), (2, 160), (10, 200), (30, 250)):
    clock.now += seconds
    log.report(step, 0.0, None, None, {})
    said += lines()
  assert said[0].endswith(" | 50% of 300 steps")
  assert said[1].endswith(" | 53% of 300 steps")
  # 50 steps took 12 s, 100 are left; then 100 took 42 s, 50 are left.
  ends = r"% of 300 steps, ends \w+ [\d:]+ \(in 0:00:"
  assert re.search(rf"66{ends}24\)$", said[2])
  assert re.search(rf"83{ends}21\)$", said[3])


@pytest.mark.parametrize(
  ("step", "total", "expected"),
  [
    (2, 2 + 86400, r"0% of 86402 steps, .*\(in 10 days, 0:00:00\)$"),
    (20, 20, r"100% of 20 steps, .*\(in 0:00:00\)$"),
    # More than were estimated are not more than all.
    (25, 20, r"100% of 25 steps, .*\(in 0:00:00\)$"),
    (10, None, None),
    (10, 0, None),
    # Of a run on a cluster, where another task resumed from further back.
    (0, 300, r"0% of 300 steps$"),
  ],
)
def test_progress_ten_seconds_after_the_first_step(
  clock, lines, step, total, expected
):
  log = _log(total_steps=total)
  log.report(1, 0.0, None, None, {})
  clock.now += 10
  log.report(step, 0.0, None, None, {})
  line = lines()[1]
  assert re.search(expected, line) if expected else "%" not in line


def test_lines_are_some_seconds_apart_and_the_last_step_has_one(clock, lines):
  log = _log(log_secs=10)
  said = []
  for step in range(1, 8):
    clock.now += 4
    log.count(8, step)
    log.report(step, 0.0, None, None, {})
    said += lines()
  log.end(7, 0.0)
  said += lines()
  assert [line.split(" | ")[0] for line in said] == [
    f"training step {step}" for step in (1, 4, 7)
  ]
  # Of the three steps since the line before.
  assert "Examples/sec: 2.0" in said[1]
  log.count(8, 8)
  log.end(8, 0.5)
  assert lines()[0].startswith("training step 8 | Loss: 0.5 ")


# The share of time that metrics take.


def test_metrics_take_a_small_part_of_the_time(clock, lines, monkeypatch):
  class Slow(eval_util.EvaluationMetrics):
    def get(self):
      clock.now += 5
      return super().get()

  monkeypatch.setattr(
    train_log, "eval_util", types.SimpleNamespace(EvaluationMetrics=Slow)
  )
  log = _log()
  assert log.wants_metrics()
  clock.now += 100
  log.report(10, 0.0, _BATCH, None, {})
  assert not log.wants_metrics()
  clock.now += 10
  assert not log.wants_metrics()
  # 4 % of 125 s and more.
  clock.now += 120
  assert log.wants_metrics()
  clock.now += 100
  log.report(20, 0.0, _BATCH, None, {})
  assert not log.wants_metrics()


# TensorBoard.


def test_the_tags_of_a_report(clock, tmp_path):
  writer = _writer(tmp_path)
  log = _log(writer, kind="-segments")
  more = tf.Summary()
  more.value.add(tag="label_loss", simple_value=0.5)
  log.count(30, 10)
  clock.now += 4
  log.report(
    10,
    0.5,
    _BATCH,
    more.SerializeToString(),
    {"bad_checksum": 3, "missing_id": 1},
  )
  writer.close()
  assert _scalars(tmp_path) == pytest.approx(
    {
      (10, "global_step/Examples/Second"): 30 / 4,
      (10, "model/Training_Hit@1"): _HIT_AT_1,
      (10, "model/Training_Perr"): _PERR,
      (10, "model/Training_GAP"): _GAP,
      (10, "Hit@1-segments"): _HIT_AT_1,
      (10, "PERR-segments"): _PERR,
      (10, "GAP-segments"): _GAP,
      (10, "loss-segments"): 0.5,
      (10, "input/bad_checksum"): 3,
      (10, "input/missing_id"): 1,
      (10, "label_loss"): 0.5,
    }
  )


def test_without_metrics_or_summaries_there_is_the_throughput(clock, tmp_path):
  writer = _writer(tmp_path)
  log = _log(writer)
  clock.now += 4
  log.report(10, 0.5, None, None, {})
  writer.close()
  assert _scalars(tmp_path) == {
    (10, "global_step/Examples/Second"): 0.0,
    (10, "loss"): 0.5,
  }


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
  """{tag: value} of what `write_flags` writes, read before it is closed."""
  directory = tmp_path_factory.mktemp("flags")
  writer = _writer(directory)
  train_log.write_flags(
    writer,
    config.Config(train_data_pattern="/data/a*", batch_size=80),
    runs.model_values(gating=True, netvlad_relu=False),
    ["python", "train.py", "--train_data_pattern=/data/a*"],
  )
  found = {value.tag: value for _, value in _summaries(directory)}
  writer.close()
  return found


def test_flags_are_written_as_a_table_and_the_command_as_a_text(plugins):
  for tag in ("flags", "command"):
    assert plugins[tag].metadata.plugin_data.plugin_name == "text"
  (table,) = tf.make_ndarray(plugins["flags"].tensor)
  lines = table.decode().splitlines()
  assert lines[:2] == ["| flag | value |", "|---|---|"]
  assert lines[2:] == sorted(lines[2:])
  for line in (
    "| --batch_size | `80` |",
    "| --gating | `True` |",
    "| --max_steps | `None` |",
    "| --lstm_cells | `4` |",
  ):
    assert line in lines
  (command,) = tf.make_ndarray(plugins["command"].tensor)
  assert command.decode() == "python train.py '--train_data_pattern=/data/a*'"


def _hparams(plugins, tag):
  data = plugins[tag].metadata.plugin_data
  assert data.plugin_name == "hparams"
  return data.content


def test_hyper_parameters_are_the_flags_that_bear_on_what_is_learnt(plugins):
  start = hparams_metadata.parse_session_start_info_plugin_data(
    _hparams(plugins, hparams_metadata.SESSION_START_INFO_TAG)
  )
  # The dashboard takes the run's name.
  assert start.group_name == ""
  found = {
    name: getattr(value, value.WhichOneof("kind"))
    for name, value in start.hparams.items()
  }
  assert found["model"] == "NetVLADModelLF"
  assert found["batch_size"] == 80
  assert found["gating"] is True
  assert found["netvlad_relu"] is False
  # Of another model, of what is written, a path, without a value.
  for name in ("lstm_cells", "log_steps", "train_data_pattern", "max_steps"):
    assert name not in found

  experiment = hparams_metadata.parse_experiment_plugin_data(
    _hparams(plugins, hparams_metadata.EXPERIMENT_TAG)
  )
  names = {info.name for info in experiment.hparam_infos}
  # Of runs whose flags this one lacks, too.
  assert names > {*found, "lstm_cells", "max_steps"}
  assert not names & {"log_steps", "train_data_pattern"}
  assert {i.name for i in experiment.hparam_infos if i.differs} == {
    "model",
    "base_learning_rate",
    "batch_size",
    "iterations",
    "netvlad_cluster_size",
  }
  # eval.py writes these tags to train_dir/eval.
  assert [
    (info.name.group, info.name.tag) for info in experiment.metric_infos
  ] == [("eval", name) for name in ("GAP", "MAP", "Hit@1", "PERR", "loss")]
