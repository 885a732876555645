"""Tests of scripts/compare_models.py: its flags, its runs, its table."""

import csv
import json
import os
import sys

import pytest
from absl import flags

import flag_fields
import program
from scripts import compare_models, comparison_plan, comparison_report
from tests import runs

FAST = "FrameLevelLogisticModel"
# Bias and weights of each class.
NUM_PARAMETERS = runs.NUM_CLASSES * (1 + sum(runs.SIZES.values()))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """(pattern to train on, pattern to evaluate on)."""
  directory = tmp_path_factory.mktemp("data")
  return (
    runs.write_data(directory, num_videos=12),
    runs.write_data(directory, num_videos=7, split="validate", seed=1),
  )


def parsed(data, directory, *arguments):
  """The flags of a command line."""
  values = flags.FlagValues()
  compare_models.define_flags(values)
  values(
    [
      "compare_models.py",
      f"--output_dir={directory}",
      f"--train_data_pattern={data[0]}",
      f"--eval_data_pattern={data[1]}",
      *arguments,
    ]
  )
  return values


@pytest.fixture
def plan(data, tmp_path):
  """make(*arguments, passed_on=[...]): the runs of a command line."""

  def make(*arguments, passed_on=()):
    known = parsed(data, tmp_path / "out", *arguments)
    return comparison_plan.make_runs(
      flag_fields.from_flags(comparison_plan.Config, known),
      known["variant"].value,
      [*runs.model_flag_list(model=None), *passed_on],
    )

  return make


def result(gap, step=10, **changes):
  """What result.json holds, with numbers that are easy to average."""
  metrics = {"num_videos": 7, "step": step, "gap": gap}
  metrics |= {"map": 0.5, "avg_hit_at_one": 0.25, "avg_perr": 0.125}
  return {
    "held_out": metrics,
    "training": {"num_videos": 12, "gap": 0.875},
    "curve": [[step, gap]],
    "parameters": 1234567,
    "examples_per_second": 100.0,
    "peak_memory": 1_500_000_000,
    "machine": "a machine",
    **changes,
  }


class TestFlags:
  def test_what_is_behind_the_dashes_is_train_pys(self):
    assert compare_models.split_arguments(["x", "--a", "--", "--b", "--"]) == (
      ["x", "--a"],
      ["--b", "--"],
    )
    assert compare_models.split_arguments(["x"]) == (["x"], [])

  def test_train_pys_flags_are_parsed_as_it_does(self):
    arguments = ["--gating", "--nolightvlad", "--batch_size", "3"]
    arguments += ["--moe_l2=1e-6", "--optimizer=AdagradOptimizer"]
    assert comparison_plan.parse_train_flags(arguments, "here") == {
      "gating": True,
      "lightvlad": False,
      "batch_size": 3,
      "moe_l2": 1e-6,
      "optimizer": "AdagradOptimizer",
    }

  @pytest.mark.parametrize(
    "arguments, message",
    [
      (["--bach_size=3"], "here: .*bach_size.*batch_size"),
      (["--batch_size=many"], "here: .*--batch_size=many"),
      (["--batch_size=0"], "here: .*--batch_size=0"),
      (["--optimizer=Adam"], "here: .*--optimizer=Adam"),
      (["--model=None"], "here: .*--model=None"),
      (["batch_size=3"], r"here: \['batch_size=3'\] are not flags"),
    ],
  )
  def test_flags_that_train_py_lacks_are_refused(self, arguments, message):
    with pytest.raises(program.UserError, match=message):
      comparison_plan.parse_train_flags(arguments, "here")

  def test_a_variant_is_a_label_and_flags(self, plan):
    variant = "two words : --model=DbofModel --feature_names='rgb, audio'"
    (run,) = plan(
      "--max_steps=2", "--models=", f"--variant={variant}", "--seeds=0"
    )
    assert run.label == "two words"
    assert run.own == {"model": "DbofModel", "feature_names": "rgb, audio"}

  @pytest.mark.parametrize(
    "arguments, message",
    [
      (["--models=NoModel"], "NoModel: .*--model=NoModel"),
      (["--models="], "Neither --models nor --variant"),
      (["--models=MoeModel"], "MoeModel: .*video-level"),
      (["--models=DbofModel,DbofModel"], "a LABEL for each row"),
      (["--models=", "--variant=--model=DbofModel"], "need 'LABEL:"),
      (["--models=", "--variant=x: --gating"], "'x' has no --model"),
      (["--models=", "--variant=x: --model=X"], "x: .*--model=X"),
      (["--models=", "--variant=x: '"], "No closing quotation"),
      (["--models=", "--variant=a/b: --model=DbofModel"], "Label 'a/b' cannot"),
      (["--models=", "--variant=..: --model=DbofModel"], "Label '..' cannot"),
      (["--models=", "--variant=: --model=DbofModel"], "Label '' cannot"),
      (["--seeds=1,2,1"], "--seeds: need different numbers"),
      (["--seeds="], "--seeds: need different numbers"),
      (["--seeds=a"], "--seeds=a: .*'a'"),
      (["--holdout"], "--holdout needs -- --holdout_fraction"),
      (["--eval_data_pattern=/nowhere/*"], "--eval_data_pattern: no file"),
      (["--train_data_pattern=/nowhere/*"], "--train_data_pattern: no file"),
      (["--train_data_pattern="], "--train_data_pattern is missing"),
    ],
  )
  def test_what_cannot_be_compared_is_refused(self, plan, arguments, message):
    errors = (program.UserError, ValueError, flags.Error)
    with pytest.raises(errors, match=message):
      plan("--max_steps=2", f"--models={FAST}", *arguments)

  @pytest.mark.parametrize("arguments", [[], ["--max_steps=1", "--minutes=1"]])
  def test_either_steps_or_time_are_equal(self, plan, arguments):
    with pytest.raises(ValueError, match="--max_steps or --minutes, and not"):
      plan(f"--models={FAST}", *arguments)

  @pytest.mark.parametrize(
    "arguments, passed_on, message",
    [
      ([], ["--seed=4", "--max_step=9"], "after --: .* --max_steps, --seed:"),
      ([], ["--model=MoeModel", "--gating"], "after --: .* --model:"),
      (
        ["--variant=x: --model=DbofModel --num_epochs=3"],
        [],
        "x: .*num_epochs",
      ),
    ],
  )
  def test_flags_that_a_comparison_sets_are_refused(
    self, plan, arguments, passed_on, message
  ):
    with pytest.raises(program.UserError, match=message):
      plan("--minutes=2", f"--models={FAST}", *arguments, passed_on=passed_on)


class TestRuns:
  def test_every_row_has_its_first_seed_before_one_has_its_second(self, plan):
    made = plan(
      "--max_steps=2",
      "--seeds=5,3",
      f"--models={FAST}",
      "--variant=two words: --model=DbofModel --batch_size=9",
      passed_on=["--batch_size=8"],
    )
    found = made
    assert [f"{run.label} seed {run.seed}" for run in found] == [
      f"{FAST} seed 5",
      "two words seed 5",
      f"{FAST} seed 3",
      "two words seed 3",
    ]
    assert found[1].directory.endswith("out/two words/seed-5")
    given = found[1].train_flags()
    assert given["model"] == "DbofModel"
    assert given["batch_size"] == 9  # The variant's prevails.
    assert (given["seed"], given["max_steps"]) == (5, 2)
    # The data must not end a run before its steps do.
    assert given["num_epochs"] == 0
    assert "keep_checkpoints" not in given

  def test_equal_time_has_no_last_step_and_a_plot_needs_checkpoints(self, plan):
    (run,) = plan(
      "--minutes=1.5", "--seeds=0", f"--models={FAST}", "--eval_steps=7"
    )
    given = run.train_flags()
    assert "max_steps" not in given
    assert given["save_checkpoints_steps"] == 7
    assert given["keep_checkpoints"] == 0
    assert run.settings()["minutes"] == 1.5

  def test_a_run_counts_only_with_its_flags(self, plan):
    common = ["--seeds=0", f"--models={FAST}"]
    (run,) = plan("--max_steps=2", *common)
    assert compare_models.load_state(run) == {
      "settings": run.settings(),
      "seconds": 0.0,
      "peak_memory": 0,
      "trained": False,
    }
    assert not os.path.exists(run.directory)
    state = {**compare_models.load_state(run), "seconds": 4.0, "trained": True}
    compare_models._write_json(run.path("run.json"), state)
    compare_models._write_json(run.path("result.json"), result(0.5))
    (same,) = plan("--max_steps=2", *common, "--eval_batch_size=1")
    assert compare_models.load_state(same) == state

    others = plan(
      "--max_steps=3",
      *common,
      "--train_eval_data_pattern=/dev/null",
      passed_on=["--batch_size=9"],
    )
    with pytest.raises(program.UserError) as error:
      compare_models.compare(others)  # Nothing runs.
    first, *rows, last = str(error.value).splitlines()
    assert run.directory in first
    assert "delete that directory" in last
    assert "  --max_steps: was 2, now 3" in rows
    assert "  --batch_size: was None, now 9" in rows
    assert [row.split(":")[0].strip() for row in rows] == [
      "--batch_size",
      "--max_steps",
      "--train_eval_data_pattern",
    ]
    assert os.path.exists(run.path("result.json"))

  def test_directories_of_others_are_left_alone(self, plan):
    (run,) = plan("--max_steps=2", "--seeds=0", f"--models={FAST}")
    os.makedirs(run.directory)
    compare_models.load_state(run)  # Empty.
    with open(run.path("thesis.tex"), "w"):
      pass
    with pytest.raises(program.UserError, match="has no run.json"):
      compare_models.load_state(run)


# Stands for train.py: answers SIGTERM by saving, once it trains.
SAVES = """
import signal, sys, time
def save(*unused):
  for part in ("data-00000-of-00001", "index"):
    with open(f"model.ckpt-7.{part}", "w") as stream:
      stream.write("saved")
  print("saved")
  sys.exit()
signal.signal(signal.SIGTERM, save)
print("training step 7 | Loss: 1", flush=True)
time.sleep(60)
"""
STARTS_FOR_EVER = "import time; time.sleep(60)"
FAILS = "import sys; sys.exit('No room.')"


@pytest.mark.slow
class TestTraining:
  @pytest.fixture
  def train(self, plan, monkeypatch):
    """train(script, seconds, ...): the state of a run after its training."""
    (run,) = plan("--minutes=0.1", "--seeds=0", f"--models={FAST}")
    self.run, self.state = run, compare_models.load_state(run)
    start = compare_models.subprocess.Popen

    def train(script, seconds=0.0):
      script = f"import os; os.chdir({run.directory!r})\n{script}"
      command = [sys.executable, "-c", script]
      monkeypatch.setattr(
        compare_models.subprocess,
        "Popen",
        lambda given, **options: start(command, **options),
      )
      self.state["seconds"] = seconds
      compare_models.train_run(run, self.state)

    return train

  def saved_state(self):
    return compare_models._read_json(self.run.path("run.json"))

  def log(self):
    with open(self.run.path("train.log")) as stream:
      return stream.read()

  def test_equal_time_counts_what_earlier_starts_took(self, train):
    train(SAVES, seconds=2.0)
    assert self.log().count("saved") == 1
    assert 6.0 <= self.state["seconds"]
    assert self.saved_state() == self.state
    assert self.state["trained"]
    assert self.state["peak_memory"] > 0

  def test_time_may_end_while_a_run_is_taken_up_again(self, train):
    with pytest.raises(compare_models.RunFailed, match="stopped at step 0"):
      train(STARTS_FOR_EVER, seconds=6.0)
    assert not self.saved_state()["trained"]
    train(SAVES, seconds=2.0)
    self.state["trained"] = False
    train(STARTS_FOR_EVER, seconds=6.0)
    assert self.saved_state()["trained"]

  def test_an_interrupted_run_saves_and_is_asked_once(self, train, monkeypatch):
    def interrupt(seconds):
      if "step 7" in self.log():
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_models.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
      train(SAVES)
    assert self.log().count("saved") == 1
    assert self.saved_state()["seconds"] > 0
    assert not self.saved_state()["trained"]

  def test_a_failure_shows_the_end_of_the_log(self, train):
    with pytest.raises(compare_models.RunFailed, match="status 1.\nNo room."):
      train(FAILS)


class TestTable:
  def test_a_row_has_the_means_over_its_seeds(self):
    found = comparison_report.summarize(
      [
        result(0.5, step=10, peak_memory=2_000_000_000),
        result(0.75, step=13, examples_per_second=None),
        result(1.0, step=16, examples_per_second=50.0),
      ]
    )
    assert found == pytest.approx(
      {
        "gap": 0.75,
        # Of the sample: 0.25 twice and 0, over 3 - 1.
        "gap_deviation": ((0.25**2 + 0 + 0.25**2) / 2) ** 0.5,
        "map": 0.5,
        "hit_at_one": 0.25,
        "perr": 0.125,
        "training_gap": 0.875,
        "gap_difference": 0.875 - 0.75,
        "parameters": 1234567,
        "examples_per_second": (100.0 + 50.0) / 2,
        "peak_memory_gb": 2.0,
        "steps": 13,
      }
    )

  def test_a_curve_has_the_steps_that_all_seeds_have_and_their_ends(self):
    curves = [
      [[5, 0.1], [10, 0.2], [15, 0.5], [17, 0.6]],
      [[5, 0.3], [10, 0.2], [13, 0.4]],
    ]
    found = comparison_report.average_curve(
      [result(0.5, curve=curve) for curve in curves]
    )
    # Half the difference of two numbers, times sqrt(2), is their deviation.
    for point, expected in zip(
      found,
      [
        (5, 0.2, 0.1 * 2**0.5),
        (10, 0.2, 0.0),
        ((17 + 13) / 2, 0.5, 0.1 * 2**0.5),
      ],
    ):
      assert point == pytest.approx(expected)
    assert len(found) == 3
    assert comparison_report.average_curve([result(0.5)]) == [(10, 0.5, 0.0)]

  def test_rows_may_be_done_failed_and_begun(self, plan):
    made = plan(
      "--max_steps=10",
      "--seeds=0,1",
      f"--models={FAST},DbofModel",
      "--variant=a|b: --model=DbofModel --batch_size=9",
      passed_on=["--batch_size=8"],
    )
    report = comparison_report.Report(made)
    done, failed, begun, *_ = made
    for run, gap in zip((done, done, begun), (0.5, 0.75, 0.5)):
      report.results[run.label].append(result(gap))
    message = "status 1.\nx.py: error: No `room`.\nBye."
    report.failures[failed] = message
    header, _, *rows = [
      [cell.strip() for cell in line.replace("\\|", "/")[1:-1].split("|")]
      for line in report.table().splitlines()
    ]
    assert header[:2] == ["model", "GAP ± deviation"]
    metrics, cost = "0.5000 0.2500 0.1250", "1,234,567 100.0 1.50 10"
    assert rows == [
      [FAST, "0.6250 ± 0.1768", *f"{metrics} 0.8750 +0.2500 {cost}".split()],
      ["DbofModel (1 of 2 failed)", "-", *["-"] * 9],
      [
        "a/b (1 of 2 done)",
        "0.5000 ± -",
        *f"{metrics} 0.8750 +0.3750 {cost}".split(),
      ],
    ]

    text = report.markdown()
    assert report.table() in text
    assert (
      f"Trained on `{done.config.train_data_pattern}`, 10 steps each" in text
    )
    assert f"Evaluated on `{done.config.eval_data_pattern}`: 7 videos" in text
    assert "seeds 0, 1\n" in text
    assert "--batch_size=8" in text
    assert "- a|b: `--model=DbofModel --batch_size=9`" in text
    assert "- Machine: a machine" in text
    assert f"Failed: DbofModel seed 0:\n\n```\n{message}\n```\n" in text

    report.write()
    path = f"{done.config.output_dir}/comparison"
    with open(f"{path}.csv") as stream:
      first, second, _ = csv.DictReader(stream)
    assert (first["label"], second["label"]) == (FAST, "DbofModel")
    assert float(first["gap_deviation"]) == pytest.approx(0.125 * 2**0.5)
    assert (second["gap"], second["failed"]) == ("", "1")
    with open(f"{path}.png", "rb") as stream:
      assert stream.read(4) == b"\x89PNG"


@pytest.mark.slow
def test_trains_evaluates_reports_and_goes_on_where_it_was(
  data, tmp_path, capfd, monkeypatch
):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
  passed_on = [
    *runs.model_flag_list(model=None),
    "--batch_size=4",
    "--num_gpu=0",
    "--log_steps=2",
    "--base_learning_rate=0.05",
  ]

  def compare(*arguments):
    """(exit status, output, lines of the CSV) of a comparison."""
    status = compare_models.main(
      passed_on, parsed(data, tmp_path / "out", *arguments)
    )
    with open(tmp_path / "out" / "comparison.csv") as stream:
      rows = list(csv.DictReader(stream))
    return status, capfd.readouterr(), rows

  arguments = ["--max_steps=6", "--eval_steps=3", f"--models={FAST}"]
  # Only train.py can tell that the second row is unusable.
  broken = "--variant=broken: --model=DbofModel --ema_decay=1.0"
  status, output, rows = compare(*arguments, broken, "--seeds=2")
  assert status == program.FAILED
  assert f"{FAST} seed 2: GAP 0." in output.err
  assert "broken seed 2: FAILED: train.py ended with" in output.err
  assert "--ema_decay < 1, got 1.0" in output.err
  assert [(row["finished"], row["failed"]) for row in rows] == [
    ("1", "0"),
    ("0", "1"),
  ]
  assert rows[0]["gap_deviation"] == rows[1]["gap"] == ""

  # Another seed: one run is done, one is not.
  status, output, rows = compare(*arguments, "--seeds=2,1")
  assert status == 0
  assert output.err.count("done before") == 1
  (row,) = rows
  assert int(row["parameters"]) == NUM_PARAMETERS
  assert float(row["steps"]) == 6
  assert float(row["examples_per_second"]) > 0
  assert 0.1 < float(row["peak_memory_gb"]) < 10
  gaps = []
  for seed in (1, 2):
    directory = tmp_path / "out" / FAST / f"seed-{seed}"
    found = json.loads((directory / "result.json").read_text())
    assert [step for step, _ in found["curve"]] == [3, 6]
    assert found["curve"][1][1] == found["held_out"]["gap"]
    gaps.append(found["held_out"]["gap"])
  # What eval.py finds.
  for kind, pattern in (("held_out", data[1]), ("training", data[0])):
    expected = runs.run_eval(directory, pattern, batch_size=256)
    assert found[kind] == {**expected, "data_pattern": pattern}
  assert found["training"]["num_videos"] == 12
  assert gaps[0] != gaps[1]
  assert float(row["gap"]) == pytest.approx(sum(gaps) / 2)

  # Nothing is left to do.
  logs = [(directory / name).read_text() for name in ("train.log", "eval.log")]
  status, output, again = compare(*arguments, "--seeds=2,1")
  assert (status, again) == (0, rows)
  assert output.err.count("done before") == 2
  assert f"| {FAST} " in output.out
  assert logs == [
    (directory / name).read_text() for name in ("train.log", "eval.log")
  ]
  with pytest.raises(program.UserError, match="made with other flags"):
    compare("--max_steps=7", *arguments[1:], "--seeds=2,1")
