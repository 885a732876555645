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
import json
import re
import shlex
import signal
import statistics
from typing import Any

from absl import flags, logging

import data_flags
import files
import model_flags
import readers
from console import flag_fields
from models import registry
from scripts import markdown, measuring
from scripts.comparison_runs import Run, perform_all
from training.config import Config as TrainConfig

_ALL = "all"
# What runs are for: to choose the rate, and for a table each, which is named by
# what its trainings have in common.
CHOICE, SAME_STEPS, SAME_TIME = "Learning rates", "Same steps", "Same time"


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
    "Keep the train_dirs of the trainings on all videos, with their "
    "evaluation, for report.py, eval.py and the like.",
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


@dataclasses.dataclass
class Row:
  """A model, or a variant of one, and what was found of it.

  Attributes:
    label: str.
    flags: dict of train.py's flags, those of all rows among them.
    rates: list of the learning rates to choose from; one if it is given.
    choice: {learning rate: GAP on the held-out videos}.
    results: {table: list of the runs' results, one a seed}.
    failures: {directory of a run: why it failed}.
  """

  label: str
  flags: dict[str, Any]
  rates: list[float]
  choice: dict[float, float] = dataclasses.field(default_factory=dict)
  results: dict[str, list] = dataclasses.field(
    default_factory=lambda: {SAME_STEPS: [], SAME_TIME: []}
  )
  failures: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def rate(self) -> float | None:
    """The learning rate of the best held-out GAP, None if all failed."""
    if len(self.rates) == 1:
      return self.rates[0]
    return max(sorted(self.choice), key=self.choice.__getitem__, default=None)

  def steps_in(self, seconds: float) -> int:
    """Steps that fit into a time, at the median speed; 0 if none is known."""
    speeds = [
      result["examples_per_second"] / result["batch_size"]
      for result in self.results[SAME_STEPS]
      if "batch_size" in result  # Not of a run that was taken up at its end.
    ]
    return max(1, round(seconds * statistics.median(speeds))) if speeds else 0

  def take(self, kind: str, run: Run) -> dict[str, Any] | None:
    """Keeps a run's result; None if it has none."""
    found = run.result()
    if found and kind == CHOICE:
      self.choice[run.flags["base_learning_rate"]] = found["gap"]
    elif found:
      self.results[kind].append(found)
    return found


# What all runs say themselves: steps end them, not the data.
_ALWAYS = {"num_epochs": 0, "export_model_steps": 0, "start_new_model": False}
_RESERVED = {
  *_ALWAYS, "holdout_fraction", "max_steps", "seed", "train_data_pattern",
  "train_dir",
}  # fmt: skip


def _parse(words):
  """(train.py's flags, {name: value} of those that some words give)."""
  known = measuring.parse_train_flags(words)
  names = {*model_flags.from_flags(known), *flag_fields.specs(TrainConfig)}
  names = flag_fields.given(names, known)
  if refused := sorted(names & _RESERVED):
    raise ValueError(
      f"leave out --{', --'.join(refused)}: compare_models.py says that."
    )
  return known, {name: known[name].value for name in sorted(names)}


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
  rows: dict[str, Row] = {}
  text = "after --"
  try:
    known, common = _parse(passed_on)
    names = flag_fields.parse_names(config.models)
    if names == [_ALL]:
      values = data_flags.filled(
        model_flags.from_flags(known),
        config.train_data_pattern,
        flag_values=known,
      )
      names = registry.names(values["frame_features"])
    for text in [*(f"{name}: {name}" for name in names), *variants]:
      label, _, rest = map(str.strip, text.partition(":"))
      # It is the name of a directory.
      if label in rows or not re.fullmatch(r"[^./\\][^/\\\n]*", label):
        raise ValueError(
          "need 'LABEL: MODEL --flag=value ...', LABEL another one for each "
          "row, and fit for the name of a directory."
        )
      model, *others = shlex.split(rest) or [""]
      _, own = _parse([f"--model={model.removeprefix('--model=')}", *others])
      own = {**common, **own}
      rate = own.get("base_learning_rate")
      rows[label] = Row(label, own, config.rates if rate is None else [rate])
  except (flags.Error, ValueError) as error:
    raise program.UserError(f"{text}: {error}") from None
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
  name = f"{'choice-' * bool(holdout)}steps-{steps}-rate-{rate:g}-seed-{seed}"
  return Run(
    os.path.join(config.output_dir, row.label, name),
    {"log_steps": max(1, steps // 10), **row.flags, **_ALWAYS, **own},
    config.train_data_pattern if holdout else config.eval_data_pattern,
    config.keep_models and not holdout,
  )


def _stages(config, rows):
  """Yields (what runs are for, {run: its row}), each after the last is done."""
  choices = {
    make_run(config, row, config.max_steps, rate, 0, config.holdout): row
    for row in rows
    if len(row.rates) > 1
    for rate in row.rates
  }
  yield CHOICE, choices

  def trainings(steps_of):
    # Each row has its first seed before one has its second.
    return {
      make_run(config, row, steps, row.rate, seed, 0.0): row
      for seed in range(config.seeds)
      for row in rows
      if row.rate is not None and (steps := steps_of(row))
    }

  yield SAME_STEPS, trainings(lambda row: config.max_steps)
  if config.train_seconds:
    yield SAME_TIME, trainings(lambda row: row.steps_in(config.train_seconds))


def compare(config: Config, rows: list[Row], command: list[str]) -> None:
  """Does the runs that are not done, and reports after each."""
  for kind, runs in _stages(config, rows):
    waiting = [run for run, row in runs.items() if not row.take(kind, run)]
    done = len(runs) - len(waiting)
    with program.progress_bar(
      len(runs), "runs", desc=kind, initial=done, disable=not runs
    ) as bar:
      for run in perform_all(waiting, config.jobs):
        if found := runs[run].take(kind, run):
          said = f"GAP {found['gap']:.4f} ({found['seconds']:.1f} s)"
        else:
          why = runs[run].failures[run.path()] = run.failure()
          said = "FAILED: " + why.rpartition("\n")[2]
        logging.info("%s: %s", run.path(), said)
        bar.update()
        _write(config, rows, command)
  _write(config, rows, command)


def _write(config, rows, command):
  """Writes comparison.md and results.json."""
  found = [{**dataclasses.asdict(row), "rate": row.rate} for row in rows]
  values = {"command": shlex.join(command), "rows": found}
  for name, text in (
    ("comparison.md", report(config, rows, command)),
    ("results.json", json.dumps(values, indent=2) + "\n"),
  ):
    files.write_text(os.path.join(config.output_dir, name), text)


# {column: (what of a result, in what unit, its format)}
_COLUMNS = {
  "GAP": ("gap", 1, ".4f"),
  "MAP": ("map", 1, ".4f"),
  "steps": ("step", 1, ",.0f"),
  "parameters": ("parameters", 1, ",.0f"),
  "examples/s": ("examples_per_second", 1, ",.0f"),
  "seconds": ("seconds", 1, ",.1f"),
  "peak memory (GB)": ("peak_memory", 1e9, ".2f"),
}


def _cell(results, key, unit, form):
  """The mean, with the deviation of the sample if there is one."""
  numbers = [result[key] / unit for result in results if key in result]
  if not numbers:
    return "-"
  deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
  text = f"{statistics.fmean(numbers):{form}}"
  return text + (f" ± {deviation:{form}}" if deviation else "")


def table(rows: list[Row], kind: str) -> str:
  """The table in Markdown, the highest GAP first, rows without one last."""

  def mean_gap(row):
    return statistics.fmean([r["gap"] for r in row.results[kind]] or [-1.0])

  lines = []
  for row in sorted(rows, key=mean_gap, reverse=True):
    results, rate = row.results[kind], row.rate
    cells = [_cell(results, *column) for column in _COLUMNS.values()]
    tried = [f"{each:g}: {gap:.4f}" for each, gap in sorted(row.choice.items())]
    rates = ["-" if rate is None else f"{rate:g}", ", ".join(tried)]
    lines.append([row.label, str(len(results)), *cells, *rates])
  titles = ["model", "runs", *_COLUMNS, "learning rate", "held-out GAP by rate"]
  return markdown.table(titles, lines)


def report(config: Config, rows: list[Row], command: list[str]) -> str:
  """The tables in Markdown, the command, and what failed."""
  parts = [
    "# Comparison of models",
    f"On `{config.eval_data_pattern}`: mean ± deviation of the sample over "
    f"{config.seeds} trainings on `{config.train_data_pattern}`.",
    f"```sh\n{shlex.join(command)}\n```",
    f"## {SAME_STEPS}: {config.max_steps} steps",
    table(rows, SAME_STEPS),
  ]
  if config.train_seconds:
    parts.append(f"## {SAME_TIME}: steps for {config.train_seconds:g} s")
    parts.append(table(rows, SAME_TIME))
  for row in rows:
    for directory, message in row.failures.items():
      parts.append(f"Failed: {directory}\n\n```\n{message}\n```")
  return "\n\n".join(parts) + "\n"


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


def main(passed_on: list[str]) -> int:
  """Compares: the exit status.

  Args:
    passed_on: what the command line has after --.
  """
  config = flag_fields.from_flags(Config)
  rows = make_rows(config, flags.FLAGS.variant, passed_on)
  compare(config, rows, ["python", *sys.argv])
  print(f"Wrote {os.path.join(config.output_dir, 'comparison.md')}.")
  return program.FAILED if any(row.failures for row in rows) else 0


if __name__ == "__main__":
  define_flags()
  program.run(
    main,
    stops_on=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    takes_arguments=True,
  )
