"""Measures how fast the code is, how much memory it takes, and against what.

All cases; two models' steps; before and after a change:

  python scripts/benchmark.py --output=before.json
  python scripts/benchmark.py --cases=step --models=NetVLADModelLF,MoeModel
  python scripts/benchmark.py --output=after.json --compare=before.json

Two files of earlier runs, without measuring anything:

  python scripts/benchmark.py --compare=before.json --new=after.json

The cases:

  input      the reader alone, its files in the page cache, against `tf.data`
             that parses one record at a time
  step       every model's training step: from records, as train.py takes it,
             and on a batch in memory; there against the same model with its
             pooling as it was published, or else as its equation stands, where
             memory allows, and against the machine's fastest matrix product
             (share_of_peak)
  metrics    evaluation metrics, as eval.py has them
  inference  from records to the CSV, against the model alone on a batch in
             memory (its share is above 1 where two batches keep more cores
             busy than one)
  scaling    a step of the same videos in several towers

Each row is measured in a process of its own, whose peak memory is the row's.
What is compared runs in turn in one process; times are medians. A figure holds
within a tenth or so, a ratio better. What was measured when Ctrl-C came is in
--output, which is written anew after each row. The exit status is 1 when a row
fails.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import json
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import process
from typing import Any

import tqdm

import files
import model_flags
from console import flag_fields
from scripts import benchmark_cases, markdown, measuring, sizes

# Changes of a figure that say nothing.
_SAME = 0.05
# Ends of the names of figures that had better be high; others are times, sizes.
_HIGH = ("per_second", "speedup", "share_of_model", "share_of_peak")
# {case: (function of the settings, of a model too)}
_CASES: dict[str, Callable[..., benchmark_cases.Rows]] = {
  "input": benchmark_cases.read,
  "step": benchmark_cases.step,
  "metrics": benchmark_cases.metrics,
  "inference": benchmark_cases.infer,
  "scaling": benchmark_cases.towers,
}
# If --models chooses none.
_MODELS = {
  "step": [
    *model_flags.model_names(),
    *(n for n in sizes.CONFIGURATIONS if "-mixed" not in n),
  ],
  "inference": ["gated-netvlad", "FrameLevelLogisticModel"],
}


@dataclasses.dataclass(frozen=True)
class _What(flag_fields.Config, group="What"):
  """What to measure, and where to write it."""

  cases: str = flag_fields.text(
    ",".join(_CASES), "Comma-separated cases to measure."
  )
  models: str = flag_fields.text(
    "",
    "Comma-separated models of step and inference. Besides train.py's --model "
    f"there are {', '.join(sizes.CONFIGURATIONS)}.",
  )
  output: str = flag_fields.path("benchmark.json", "The JSON file to write.")
  compare: str = flag_fields.path(
    None, "Tell what is better and worse than in this file."
  )
  new: str = flag_fields.path(
    None, "Measure nothing: what to --compare with is in this file."
  )


@dataclasses.dataclass(frozen=True)
class Config(sizes.Settings, _What):
  """All flags."""

  def __post_init__(self):
    super().__post_init__()
    if self.new and not self.compare:
      raise ValueError("--new needs --compare, the file to compare with.")

  def rows(self) -> list[tuple[str, str]]:
    """(case, model or "") of all that is to be measured.

    Raises:
      ValueError: an unknown name, or nothing to measure.
    """
    known = [*model_flags.model_names(), *sizes.CONFIGURATIONS]
    models = _names(self.models, "models", known)
    rows = [
      (case, model)
      for case in _names(self.cases, "cases", list(_CASES))
      for model in ((models or _MODELS[case]) if case in _MODELS else [""])
    ]
    if not rows:
      raise ValueError("--cases is empty: nothing to measure.")
    return rows


def _names(text, flag, known):
  names = flag_fields.parse_names(text)
  if unknown := [name for name in names if name not in known]:
    raise ValueError(
      f"--{flag}: there is no {', '.join(unknown)}. Known are "
      f"{', '.join(known)}."
    )
  return names


@dataclasses.dataclass
class Report:
  """What was measured: the JSON file.

  Attributes:
    machine: dict, see `measuring.describe_machine`.
    settings: dict of the flags that sizes and budgets are.
    results: {case: {row: {figure: number}}}.
    failures: {case: {row: why it has no figures}}.
  """

  machine: dict[str, Any]
  settings: dict[str, Any]
  results: dict[str, benchmark_cases.Rows]
  failures: dict[str, dict[str, str]]

  def write(self, path: str) -> None:
    """Writes the JSON file, replacing it as a whole."""
    files.write_text(path, json.dumps(vars(self), indent=2) + "\n")

  @classmethod
  def read(cls, path: str) -> "Report":
    """Reads what `write` wrote.

    Raises:
      program.UserError: there is no such file, or it is something else.
    """
    try:
      with open(path, encoding="utf-8") as stream:
        return cls(**json.load(stream))
    except (OSError, TypeError, ValueError) as error:
      raise program.UserError(
        f"{path} is no file of this program's: {error}"
      ) from None

  def text(self) -> str:
    """All of it in markdown."""
    told = [f"{name} {value}" for name, value in self.machine.items() if value]
    parts = [f"Machine: {', '.join(told)}."]
    for case in {**self.results, **self.failures}:
      rows, failed = self.results.get(case, {}), self.failures.get(case, {})
      figures = list(dict.fromkeys(key for row in rows.values() for key in row))
      lines = [
        [row, *(_number(rows[row].get(figure)) for figure in figures)]
        for row in rows
      ]
      lines += [[f"{row}: FAILED", *[""] * len(figures)] for row in failed]
      titles = ["", *(figure.replace("_", " ") for figure in figures)]
      table = markdown.table(titles, lines)
      parts += [f"## {case}", table]
      parts += [f"{row} failed:\n\n```\n{failed[row]}\n```" for row in failed]
    return "\n\n".join(parts)


def _number(value):
  """A number to three digits that count."""
  if value is None:
    return ""
  return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict(figure: str, old: float, new: float) -> str:
  """What a figure's change means: same, better or worse."""
  if abs(new - old) <= _SAME * abs(old):
    return "same"
  is_high_good = figure.endswith(_HIGH)
  return "better" if (new > old) == is_high_good else "worse"


def compare(old: Report, new: Report) -> str:
  """A table of the figures of both, and what else differs."""
  before, after = (
    {
      (case, row, figure): number
      for case, rows in report.results.items()
      for row, figures in rows.items()
      for figure, number in figures.items()
    }
    for report in (old, new)
  )
  lines = [
    [
      *key,
      _number(before[key]),
      _number(after[key]),
      f"{after[key] / before[key]:.3f}" if before[key] else "",
      verdict(key[2], before[key], after[key]),
    ]
    for key in before
    if key in after
  ]
  titles = ["case", "row", "figure", "old", "new", "new/old", ""]
  parts = [markdown.table(titles, lines)]
  if alone := set(before) ^ set(after):
    rows = sorted({f"{case} {row}" for case, row, _ in alone})
    parts.append(f"Some figures are in one file alone: {', '.join(rows)}.")
  for title in ("machine", "settings"):
    then, now = getattr(old, title), getattr(new, title)
    differing = [
      f"{name} was {then.get(name)}, is {now.get(name)}"
      for name in sorted({*then, *now})
      if then.get(name) != now.get(name)
    ]
    if differing:
      parts.append(f"Another {title}: {'; '.join(differing)}.")
  return "\n\n".join(parts)


def _call(case, config, model):
  """(what a case finds, None) or (None, why it failed)."""
  # What the programs' parts tell users would bury the table.
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
  try:
    return _CASES[case](config, *[model] * bool(model)), None
  except Exception:  # Whatever it is, the other rows are measured.
    return None, traceback.format_exc(limit=-2)


def run_apart(case: str, config: Config, model: str) -> tuple:
  """`_call` in a process of its own."""
  context = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
    try:
      return pool.submit(_call, case, config, model).result()
    except process.BrokenProcessPool:
      return None, "killed, for want of memory?"


def measure(config: Config) -> Report:
  """Measures all rows, and writes the report after each."""
  rows = config.rows()
  settings = dataclasses.asdict(config)
  for name in ("data_dir", *flag_fields.specs(_What)):
    del settings[name]
  report = Report(measuring.describe_machine(), settings, {}, {})
  with tempfile.TemporaryDirectory() as temporary:
    config = dataclasses.replace(config, data_dir=config.data_dir or temporary)
    if {case for case, _ in rows} != {"metrics"}:
      sizes.make_data(config)
    try:
      for case, model in tqdm.tqdm(rows, "rows", leave=False):
        found, error = run_apart(case, config, model)
        if error:
          report.failures.setdefault(case, {})[model or case] = error
        else:
          report.results.setdefault(case, {}).update(found)
        report.write(config.output)
    finally:
      print(f"{report.text()}\n\nWrote {config.output}.")
  return report


def main() -> int:
  """Measures, reports and compares: the exit status."""
  config = flag_fields.from_flags(Config)
  old = Report.read(config.compare) if config.compare else None
  if old and not config.new:
    files.check_outputs(
      {"--output": config.output}, {"--compare": [config.compare]}
    )
  report = Report.read(config.new) if config.new else measure(config)
  if old:
    print(f"\n{compare(old, report)}")
  return program.FAILED if report.failures else 0


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
