"""Trains models on the same data with several seeds, and compares them.

  python scripts/compare_models.py --output_dir=runs/comparison \\
    --train_data_pattern='/data/yt8m/frame/train*.tfrecord' \\
    --eval_data_pattern='/data/yt8m/frame/validate*.tfrecord' \\
    --models=NetVLADModelLF,DbofModel --max_steps=20000 \\
    -- --frame_features=True --feature_names=rgb,audio \\
    --feature_sizes=1024,128 --batch_size=80

What stands after -- goes to train.py, of every run. A variant of a model is a
row of its own: --variant='gated: NetVLADModelLF --gating=True'; --flagfile=FILE
reads many of them.

1. For each row a training with each of --learning_rates; the best GAP on a part
   of the training videos, --holdout, chooses one. Who gives
   --base_learning_rate has chosen.
2. At that rate, trainings with --seeds seeds on all training videos, each
   evaluated once on --eval_data_pattern.
3. With --train_seconds, the same with the steps that fit into that time.

Writes OUTPUT_DIR/comparison.md and results.json after each run. A run that
fails is named there, and the others go on. The same command goes on where it
was stopped, and tries again what failed.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import glob
import re
import shlex
import signal

from absl import flags, logging

import data_flags
import model_flags
import readers
import report
from console import flag_fields
from models import registry
from scripts import comparison_report, comparison_runs, measuring
from scripts.comparison_report import SAME_STEPS, SAME_TIME, Row
from scripts.comparison_runs import Run
from training.config import Config as TrainConfig

_ALL = "all"


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Comparison"):
  """What to compare, and how."""

  output_dir: str = flag_fields.path(
    None, "Directory for the runs and the table.", required=True
  )
  train_data_pattern: str = flag_fields.paths(
    None,
    "Files to train on: comma-separated globs or directories.",
    required=True,
  )
  eval_data_pattern: str = flag_fields.paths(
    None, "Files to evaluate on, which training must not see.", required=True
  )
  models: str = flag_fields.text(
    _ALL,
    "Comma-separated models, a row each; 'all' for every model of the level "
    "that --frame_features says, '' for those of --variant alone.",
  )
  max_steps: int = flag_fields.integer(1000, "Steps of each training.", low=1)
  seeds: int = flag_fields.integer(
    5, "Trainings of each row, with seeds from 0 on.", low=1
  )
  learning_rates: str = flag_fields.text(
    "0.0003,0.001,0.003", "Comma-separated learning rates to choose from."
  )
  holdout: float = flag_fields.real(
    0.2,
    "Share of the training videos, by a hash of their id, to choose the "
    "learning rate on.",
    low=0.01,
    high=0.9,
  )
  train_seconds: float = flag_fields.real(
    0.0,
    "Make a second table, of trainings of the steps that fit into so many "
    "seconds at the speed measured for the first; 0 for none.",
    low=0.0,
  )
  jobs: int = flag_fields.integer(
    1,
    "Runs at a time, which share out the cores. Of small models, one a core is "
    "fastest.",
    low=1,
    high=1024,
  )
  keep_models: bool = flag_fields.boolean(
    False,
    "Keep the train_dirs of the trainings on all videos, for eval.py and the "
    "like, and write their page as comparison.html, as report.py does.",
  )

  def __post_init__(self):
    super().__post_init__()
    if not self.rates:
      raise ValueError("--learning_rates is empty.")
    for name in ("train_data_pattern", "eval_data_pattern"):
      readers.expand_data_pattern(getattr(self, name), name)

  @property
  def rates(self) -> list[float]:
    """The learning rates to choose from."""
    parse = flag_fields.specs(TrainConfig)["base_learning_rate"].parse
    names = flag_fields.parse_names(self.learning_rates)
    return sorted({parse(name) for name in names})


# What all runs say themselves: steps end them, not the data.
_ALWAYS = {"num_epochs": 0, "export_model_steps": 0, "start_new_model": False}
_RESERVED = {
  *_ALWAYS, "holdout_fraction", "max_steps", "seed", "train_data_pattern",
  "train_dir",
}  # fmt: skip


def split_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
  """(arguments of this program, what comes after the first --)."""
  at = argv.index("--") if "--" in argv else len(argv)
  return argv[:at], argv[at + 1 :]


def _parse(arguments, source):
  """The flags of train.py that some arguments give: name to value."""
  try:
    known = measuring.parse_train_flags(arguments)
    values = model_flags.from_flags(known)
    names = {*values, *flag_fields.specs(TrainConfig)}
    names = flag_fields.given(names, known)
    if refused := sorted(names & _RESERVED):
      raise ValueError(
        f"leave out --{', --'.join(refused)}: compare_models.py says that."
      )
  except (flags.Error, ValueError) as error:
    raise program.UserError(f"{source}: {error}") from None
  return {name: known[name].value for name in sorted(names)}


def _models(config, common):
  """The names of --models: all are those of the level of the flags or data."""
  names = flag_fields.parse_names(config.models)
  if names != [_ALL]:
    return names
  if (is_frame_level := common.get("frame_features")) is None:
    flag = "train_data_pattern"
    paths = readers.expand_data_pattern(config.train_data_pattern, flag)
    is_frame_level = data_flags.beside(paths, flag) is not None
  return registry.names(is_frame_level)


def make_rows(
  config: Config, variants: list[str], passed_on: list[str]
) -> list[Row]:
  """The rows of the table.

  Args:
    config: the flags.
    variants: list of 'LABEL: MODEL --flag=value ...'.
    passed_on: what the command line has after --.

  Raises:
    program.UserError: no row, a label that cannot be used, an unknown model or
      flag, flags that are reserved. What only a training can tell fails there.
  """
  common = _parse(passed_on, "after --")
  rows = {}
  models = [f"{name}: {name}" for name in _models(config, common)]
  for text in models + variants:
    label, _, rest = text.partition(":")
    label = label.strip()
    # It is the name of a directory.
    if label in rows or not re.fullmatch(r"[^./\\\s][^/\\\n]*", label):
      raise program.UserError(
        f"{text!r}: need 'LABEL: MODEL --flag=value ...', LABEL another one "
        "for each row, and fit for the name of a directory."
      )
    try:
      model, *others = shlex.split(rest)
    except ValueError as error:  # Nothing, or a quotation mark too few.
      raise program.UserError(f"{text!r}: need a model: {error}.") from None
    own = _parse([f"--model={model.removeprefix('--model=')}", *others], label)
    both = {**common, **own}
    rate = both.get("base_learning_rate")
    rates = config.rates if rate is None else [rate]
    rows[label] = Row(label, both, rates)
  if not rows:
    raise program.UserError("Neither --models nor --variant names a model.")
  return [*rows.values()]


def make_run(
  config: Config, row: Row, steps: int, rate: float, seed: int, holdout: float
) -> Run:
  """One run of a row; with a holdout, one that helps to choose the rate."""
  own = {
    "train_data_pattern": config.train_data_pattern,
    "max_steps": steps,
    "base_learning_rate": rate,
    "seed": seed,
    "holdout_fraction": holdout,
  }
  return Run(
    os.path.join(config.output_dir, row.label),
    f"{'choice-' * bool(holdout)}steps-{steps}-rate-{rate:g}-seed-{seed}",
    {"log_steps": max(1, steps // 10), **row.flags, **_ALWAYS, **own},
    config.train_data_pattern if holdout else config.eval_data_pattern,
    config.keep_models and not holdout,
  )


class Comparison:
  """Does what is not done, and reports after each run."""

  def __init__(self, config: Config, rows: list[Row], command: list[str]):
    """Counts the runs; the command is told in the report."""
    self._config, self._rows, self._command = config, rows, command
    choices = sum(len(row.rates) for row in rows if len(row.rates) > 1)
    trainings = len(rows) * config.seeds * (2 if config.train_seconds else 1)
    # As if all went well.
    self._bar = program.progress_bar(choices + trainings, "runs")

  def run(self) -> int:
    """Does all runs: how many failed."""
    config, rows = self._config, self._rows
    choices = {
      make_run(config, row, config.max_steps, rate, 0, config.holdout): row
      for row in rows
      if len(row.rates) > 1
      for rate in row.rates
    }
    with self._bar:
      for run, result in self._perform(choices):
        choices[run].choice[run.flags["base_learning_rate"]] = result["gap"]
      self._train(SAME_STEPS, lambda row: config.max_steps)
      if config.train_seconds:
        self._train(SAME_TIME, lambda row: row.steps_in(config.train_seconds))
    comparison_report.write(rows, config, self._command)
    return sum(len(row.failures) for row in rows)

  def _train(self, kind, steps_of):
    """Each row has its first seed before one has its second."""
    runs = {
      make_run(self._config, row, steps, row.rate, seed, 0.0): row
      for seed in range(self._config.seeds)
      for row in self._rows
      if row.rate is not None and (steps := steps_of(row))
    }
    self._bar.total -= len(self._rows) * self._config.seeds - len(runs)
    for run, result in self._perform(runs):
      runs[run].results[kind].append(result)

  def _perform(self, runs):
    """Yields (run, result) of those that go well; {run: row}."""
    done = {run: result for run in runs if (result := run.result())}
    self._bar.total -= len(done)
    yield from done.items()
    waiting = [run for run in runs if run not in done]
    for run, is_well in comparison_runs.perform_all(waiting, self._config.jobs):
      name = os.path.relpath(run.path(), self._config.output_dir)
      if is_well:
        result = run.result()
        found = f"GAP {result['gap']:.4f} ({result['seconds']:.1f} s)"
        yield run, result
      else:
        failure = runs[run].failures[run.path()] = run.failure()
        found = "FAILED: " + failure.rpartition("\n")[2]
      logging.info("%s: %s", name, found)
      self._bar.update()
      comparison_report.write(self._rows, self._config, self._command)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags."""
  flag_fields.define(Config, flag_values)
  flags.DEFINE_multi_string(
    "variant",
    [],
    "'LABEL: MODEL --flag=value ...': a further row, with flags of train.py, "
    "which prevail over those after --. May be repeated.",
    flag_values=flag_values,
  )


def _write_page(output_dir):
  """The page of the trainings that are kept."""
  pattern = os.path.join(glob.escape(output_dir), "*/*/train_dir")
  page = os.path.join(output_dir, "comparison.html")
  if kept := sorted(glob.glob(pattern)):
    try:
      report.write(kept, page)
    except program.UserError as error:  # A package is missing.
      logging.warning("No %s: %s", page, error)


def main(
  argv: list[str], passed_on: list[str], values: flags.FlagValues = flags.FLAGS
) -> int:
  """Compares: the exit status.

  Args:
    argv: the whole command line, for the report.
    passed_on: what it has after --.
    values: the parsed flags.
  """
  config = flag_fields.from_flags(Config, values)
  rows = make_rows(config, values["variant"].value or [], passed_on)
  failed = Comparison(config, rows, ["python", *argv]).run()
  if config.keep_models:
    _write_page(config.output_dir)
  print(f"Wrote {os.path.join(config.output_dir, 'comparison.md')}.")
  return program.FAILED if failed else 0


if __name__ == "__main__":
  define_flags()
  _ARGV = sys.argv
  sys.argv, _PASSED_ON = split_arguments(sys.argv)
  program.run(
    lambda: main(_ARGV, _PASSED_ON),
    stops_on=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
  )
