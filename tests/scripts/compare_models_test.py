"""Tests of scripts/compare_models.py: its rows, its runs, its tables."""

import json
import re
import signal
import time

import pytest
from absl import flags

import files
import report
from console import flag_fields, program
from scripts import compare_models, comparison_runs
from scripts.compare_models import SAME_STEPS, SAME_TIME, Row
from tests import programs, runs

FAST = "FrameLevelLogisticModel"
# Bias and weights of each class.
NUM_PARAMETERS = runs.NUM_CLASSES * (1 + sum(runs.SIZES.values()))
# As a command line has it after --.
PASSED_ON = [*runs.model_flag_list(model=None), "--batch_size=4", "--num_gpu=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """(pattern to train on, pattern to evaluate on)."""
  directory = tmp_path_factory.mktemp("data")
  return (
    runs.write_data(directory, num_videos=24),
    runs.write_data(directory, num_videos=7, split="validate", seed=1),
  )


@pytest.fixture
def own(data, tmp_path):
  """The arguments that every command line has."""
  return [
    f"--output_dir={tmp_path / 'out'}",
    f"--train_data_pattern={data[0]}",
    f"--eval_data_pattern={data[1]}",
  ]


@pytest.fixture
def plan(own):
  """make(*arguments, passed_on=[...]): (config, rows) of a command line."""

  def make(*arguments, passed_on=()):
    values = flags.FlagValues()
    compare_models.define_flags(values)
    values(["compare_models.py", *own, *arguments])
    config = flag_fields.from_flags(compare_models.Config, values)
    return config, compare_models.make_rows(
      config, values["variant"].value, [*PASSED_ON, *passed_on]
    )

  return make


def result(gap, **changes):
  """What result.json holds."""
  return {
    "gap": gap,
    "map": 0.5,
    "step": 10,
    "parameters": 1234567,
    "examples_per_second": 100.0,
    "batch_size": 4,
    "seconds": 2.0,
    "peak_memory": 1_500_000_000,
    **changes,
  }


class TestRows:
  def test_a_row_is_a_model_or_a_variant_of_one(self, plan):
    config, rows = plan(
      f"--models={FAST}",
      "--variant=two words : DbofModel --batch_size 9 --feature_names='a, b'",
      "--variant=old: --model=DbofModel --base_learning_rate=0.5",
      passed_on=["--nogating"],
    )
    assert [row.label for row in rows] == [FAST, "two words", "old"]
    assert [row.flags["model"] for row in rows] == [FAST, *["DbofModel"] * 2]
    # The variant's prevails.
    assert [row.flags["batch_size"] for row in rows] == [4, 9, 4]
    assert rows[1].flags["feature_names"] == "a, b"
    assert not any(row.flags["gating"] for row in rows)
    rates = [0.0003, 0.001, 0.003]
    assert [row.rates for row in rows] == [rates, rates, [0.5]]
    assert config.seeds == 5

  def test_all_are_those_of_the_level(self, plan):
    _, rows = plan()
    labels = [row.label for row in rows]
    assert FAST in labels and "NetVLADModelLF" in labels
    assert "MoeModel" not in labels

  @pytest.mark.parametrize(
    "arguments, message",
    [
      (["--models=NoModel"], "NoModel: .*--model=NoModel"),
      (["--models="], "Neither --models nor --variant"),
      (["--models=DbofModel,DbofModel"], "another one for each row"),
      (["--variant=x"], "x: .*--model="),
      (["--variant=x: DbofModel '"], "No closing quotation"),
      (["--variant=x: DbofModel --gatin"], "x: .*gatin"),
      (["--variant=x: DbofModel y"], r"x: D.*: \['y'\] are not flags"),
      (["--variant=x: DbofModel --num_epochs=3"], "leave out --num_epochs"),
      (["--variant=a/b: DbofModel"], "fit for the name of a directory"),
      (["--variant=..: DbofModel"], "fit for the name of a directory"),
      (["--variant=: DbofModel"], "fit for the name of a directory"),
      (["--learning_rates="], "--learning_rates is empty"),
      (["--learning_rates=0.1,-1"], "--base_learning_rate needs.*-1"),
      (["--eval_data_pattern=/nowhere/*"], "--eval_data_pattern: no file"),
      (["--train_data_pattern="], "--train_data_pattern is missing"),
    ],
  )
  def test_what_cannot_be_compared_is_refused(self, plan, arguments, message):
    with pytest.raises((program.UserError, ValueError), match=message):
      plan(f"--models={FAST}", *arguments)

  def test_another_flag_makes_another_run(self, plan):
    config, (row,) = plan(f"--models={FAST}", "--keep_models")

    def run(steps=10, rate=0.1, seed=0, holdout=0.0):
      return compare_models.make_run(config, row, steps, rate, seed, holdout)

    made = [run(), run(11), run(rate=0.2), run(seed=1), run(holdout=0.2)]
    assert len({each.path() for each in made}) == 5
    assert run().path() == run().path()
    # What an earlier version has trained is found.
    known = comparison_runs.Run("out/x/seed-1", {"seed": 1}, "v*", keeps=False)
    assert known.path("log.txt") == "out/x/seed-1-62edd07a/log.txt"
    assert run().flags["num_epochs"] == 0
    assert made[0].eval_data_pattern == config.eval_data_pattern
    assert made[0].keeps
    # The rate is not chosen on what it is then judged by.
    assert made[4].eval_data_pattern == config.train_data_pattern
    assert made[4].flags["holdout_fraction"] == 0.2
    assert not made[4].keeps

  def test_a_run_whose_model_is_wanted_is_done_with_that(self, tmp_path):
    gone, kept = [
      comparison_runs.Run(str(tmp_path / "x"), {}, "v*", keeps=keeps)
      for keeps in (False, True)
    ]
    assert gone.result() is None
    files.write_text(gone.path("result.json"), json.dumps(result(0.5)))
    assert gone.result() == result(0.5) and kept.result() is None
    files.write_text(kept.path("train_dir", "eval", "metrics-10.json"), "{}")
    assert kept.result() == result(0.5)


class TestTable:
  def test_the_rate_is_that_of_the_best_gap(self):
    row = Row("x", {}, [0.1, 0.2, 0.3])
    assert row.rate is None
    row.choice = {0.3: 0.5, 0.2: 0.75, 0.1: 0.75}
    assert row.rate == 0.1
    assert Row("x", {}, [0.2]).rate == 0.2

  def test_same_time_is_steps_at_the_median_speed(self):
    row = Row("x", {}, [0.1])
    assert row.steps_in(3.0) == 0
    row.results[SAME_STEPS] = [
      result(0.5, examples_per_second=speed) for speed in (8.0, 40.0, 9.0)
    ]
    assert row.steps_in(3.0) == round(3.0 * 9.0 / 4)
    assert row.steps_in(1e-9) == 1

  def test_rows_stand_by_their_gap_with_its_deviation(self):
    low, high, failed = [Row(name, {}, [0.5]) for name in ("a|b", "h", "f")]
    low.results[SAME_STEPS] = [
      result(0.25, seconds=1.0), result(0.5, peak_memory=2_000_000_000)
    ]  # fmt: skip
    high.results[SAME_STEPS] = [result(0.75), result(0.75, map=0.75)]
    low.choice = {0.5: 0.125, 1e-5: 0.25}
    header, line, *rows = compare_models.table(
      [failed, low, high], SAME_STEPS
    ).splitlines()
    assert header.startswith("| model | runs | GAP | MAP | steps |")
    assert line.startswith("| --- | ---: | ---: |")
    # Half the difference of two numbers, times sqrt(2), is their deviation.
    same = "10 | 1,234,567 | 100"
    assert rows == [
      f"| h | 2 | 0.7500 | 0.6250 ± 0.1768 | {same} | 2.0 | 1.50 | 0.5 |  |",
      f"| a\\|b | 2 | 0.3750 ± 0.1768 | 0.5000 | {same} | 1.5 ± 0.7 "
      "| 1.75 ± 0.35 | 0.5 | 1e-05: 0.2500, 0.5: 0.1250 |",
      f"| f | 0 |{' - |' * 7} 0.5 |  |",
    ]

  def test_the_command_and_what_failed_are_told(self, plan):
    config, (row,) = plan(f"--models={FAST}", "--train_seconds=9")
    row.failures["x/y"] = "No room.\nBye."
    command = ["python", "compare_models.py", "--models=a b"]
    text = compare_models.report(config, [row], command)
    assert "## Same steps: 1000 steps\n" in text
    assert "## Same time: steps for 9 s\n" in text
    assert "\npython compare_models.py '--models=a b'\n" in text
    assert "Failed: x/y\n\n```\nNo room.\nBye.\n```" in text


@pytest.mark.slow
def test_chooses_trains_reports_and_goes_on_where_it_was(own, tmp_path):
  out = tmp_path / "out"
  own += [
    f"--models={FAST}",
    # Only a training can tell that this row is unusable.
    "--variant=broken: DbofModel --ema_decay=1.0 --base_learning_rate=0.1",
    "--max_steps=20",
    "--learning_rates=1e-9,0.05",
    "--jobs=2",
    "--keep_models",
  ]

  def compare(*arguments):
    """(what it said, rows of results.json)."""
    status, _, said = programs.run_program(
      "scripts/compare_models.py", *own, *arguments, "--", *PASSED_ON
    )
    with open(out / "results.json") as stream:
      found = json.load(stream)
    assert status == program.FAILED, said
    return said, found["rows"]

  said, (row, broken) = compare("--seeds=1", "--train_seconds=0.01")
  assert said.count("FAILED") == said.count("--ema_decay < 1") == 1
  for bar in (
    "Learning rates: 100%.* 2/2",
    "Same steps: .* 2/2",
    "Same time: .* 1/1",
  ):
    assert re.search(bar, said)
  assert set(row["choice"]) == {"1e-09", "0.05"}
  assert row["choice"][str(row["rate"])] == max(row["choice"].values())
  (found,) = row["results"][SAME_STEPS]
  assert found["parameters"] == NUM_PARAMETERS
  assert found["step"] == 20 and found["num_videos"] == 7
  assert 0.1 < found["peak_memory"] / 1e9 < 10
  assert found["examples_per_second"] > 0
  assert row["results"][SAME_TIME][0]["step"] >= 1
  # What eval.py finds.
  directory = found["path"].rpartition("/")[0]
  expected = runs.run_eval(directory, own[2].partition("=")[2], batch_size=256)
  for name in ("gap", "map", "avg_loss"):
    assert found[name] == pytest.approx(expected[name], rel=1e-5)
  assert broken["results"] == {SAME_STEPS: [], SAME_TIME: []}
  page = tmp_path / "page.html"
  report.write(report.find(f"{out}/*/*/train_dir"), str(page))
  assert f"{found['gap']:.4f}" in page.read_text()

  # What is done is not done again, what failed is.
  said, (again, broken) = compare("--seeds=1")
  assert again["results"][SAME_STEPS] == [found]
  assert said.count("FAILED") == len(broken["failures"]) == 1
  assert said.count("GAP") == 0
  text = (out / "comparison.md").read_text()
  assert f"| {FAST} | 1 | 0." in text
  assert "| broken | 0 | - |" in text


@pytest.mark.slow
def test_stopped_it_saves(own, tmp_path):
  process = programs.start_program(
    "scripts/compare_models.py",
    *own,
    f"--models={FAST}",
    "--learning_rates=0.05",
    "--max_steps=2000000000",
    "--",
    *PASSED_ON,
    "--log_steps=10",
    "--log_secs=0",
  )
  end = time.monotonic() + programs.TIMEOUT
  log = None
  while not (log and "training step" in log.read_text()):
    assert process.poll() is None and time.monotonic() < end
    time.sleep(0.05)
    log = next(tmp_path.glob("out/*/*/log.txt"), None)
  process.send_signal(signal.SIGTERM)
  status, _, stderr = programs.finish(process)
  assert status == 128 + signal.SIGTERM, stderr
  text = log.read_text()
  assert "Saved" in text and text.strip().endswith("Training was stopped.")
