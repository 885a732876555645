"""What `compare_models.py` writes: tables in Markdown, and results.json."""

import dataclasses
import json
import os
import shlex
import statistics
from typing import Any

import files
from scripts import markdown as tables

# A table of its own for each: what trainings have in common.
SAME_STEPS, SAME_TIME = "Same steps", "Same time"


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


# Column: (what of a result, how it is shown).
_COLUMNS = {
  "GAP": ("gap", "{:.4f}"),
  "MAP": ("map", "{:.4f}"),
  "steps": ("step", "{:,.0f}"),
  "parameters": ("parameters", "{:,.0f}"),
  "examples/s": ("examples_per_second", "{:,.0f}"),
  "seconds": ("seconds", "{:,.1f}"),
  "peak memory (GB)": ("peak_memory", "{:.2f}"),
}


def _cell(title, results):
  """The mean, of a metric with the deviation of the sample."""
  key, form = _COLUMNS[title]
  numbers = [result[key] for result in results if key in result]
  if not numbers:
    return "-"
  if key == "peak_memory":
    return form.format(max(numbers) / 1e9)
  text = form.format(statistics.fmean(numbers))
  if key in ("gap", "map") and len(numbers) > 1:
    text += f" ± {form.format(statistics.stdev(numbers))}"
  return text


def table(rows: list[Row], kind: str, num_seeds: int) -> str:
  """The table in Markdown, the highest GAP first, rows without one last."""

  def gap(row):
    return statistics.fmean([r["gap"] for r in row.results[kind]] or [-1.0])

  lines = []
  for row in sorted(rows, key=gap, reverse=True):
    results, name = row.results[kind], row.label
    if len(results) < num_seeds:
      name += f" ({len(results)} of {num_seeds} runs)"
    cells = [_cell(title, results) for title in _COLUMNS]
    lines.append([name, *cells, "-" if row.rate is None else f"{row.rate:g}"])
  return tables.table(["model", *_COLUMNS, "learning rate"], lines)


def _choices(rows):
  """The table of held-out GAP by learning rate."""
  rates = sorted({rate for row in rows for rate in row.choice})
  lines = [
    [row.label]
    + [f"{row.choice[r]:.4f}" if r in row.choice else "-" for r in rates]
    for row in rows
  ]
  return tables.table(["model", *(f"{rate:g}" for rate in rates)], lines)


def markdown(rows: list[Row], config: Any, command: list[str]) -> str:
  """The tables, what their columns are, the command, and what failed."""
  extents = {SAME_STEPS: f"{config.max_steps} steps"}
  if config.train_seconds:
    extents[SAME_TIME] = f"steps for {config.train_seconds:g} s"
  parts = ["# Comparison of models"]
  for kind, extent in extents.items():
    parts += [f"## {kind}: {extent}", table(rows, kind, config.seeds)]
  parts += [
    f"GAP and MAP on `{config.eval_data_pattern}`: mean ± deviation of the "
    f"sample over {config.seeds} trainings on all of "
    f"`{config.train_data_pattern}`. Learning rate, where there are several to "
    f"choose from: that of the best GAP on {config.holdout:.0%} of the "
    "training videos, which a training of seed 0 held out. Examples/s: median "
    "of train.py's reports after the first. Seconds: of a training, building "
    "its graph included. Memory: the most that a training process had.",
    f"```sh\n{shlex.join(command)}\n```",
    "## GAP on held-out training videos, by learning rate",
    _choices(rows),
  ]
  for row in rows:
    for directory, message in row.failures.items():
      parts.append(f"Failed: {directory}\n\n```\n{message}\n```")
  return "\n\n".join(parts) + "\n"


def write(rows: list[Row], config: Any, command: list[str]) -> None:
  """Writes comparison.md and results.json."""
  found = [{**dataclasses.asdict(row), "rate": row.rate} for row in rows]
  values = {"command": shlex.join(command), "rows": found}
  for name, text in (
    ("comparison.md", markdown(rows, config, command)),
    ("results.json", json.dumps(values, indent=2) + "\n"),
  ):
    files.write_text(os.path.join(config.output_dir, name), text)
