"""What `compare_models.py` writes of its runs: a table and a plot."""

import csv
import itertools
import os
import shlex
import statistics
from typing import Any

import files
from scripts.comparison_plan import Run, as_flags

# The table: what `summarize` has, how it is shown, and under what title.
_COLUMNS = {
  "map": ("{:.4f}", "MAP"),
  "hit_at_one": ("{:.4f}", "Hit@1"),
  "perr": ("{:.4f}", "PERR"),
  "training_gap": ("{:.4f}", "training GAP"),
  "gap_difference": ("{:+.4f}", "training - held-out"),
  "parameters": ("{:,.0f}", "parameters"),
  "examples_per_second": ("{:,.1f}", "examples/s"),
  "peak_memory_gb": ("{:.2f}", "peak memory (GB)"),
  "steps": ("{:,.0f}", "steps"),
}
_LEGEND = """
GAP ± sample deviation over the seeds; the other columns are means over the \
seeds, peak memory the highest. Metrics are those of the last checkpoint, \
training GAP too; examples/s is the median of train.py's lines after the \
first; memory is the training process's on the host.

![GAP on held-out data against steps](comparison.png)
"""


def _deviation(numbers):
  """Of a sample; None of one number."""
  return statistics.stdev(numbers) if len(numbers) > 1 else None


def summarize(results: list[dict[str, Any]]) -> dict[str, float | None]:
  """What the table says of a row, from the result.json of its runs.

  Means over the runs, if there are any; `gap_deviation` is the sample's, None
  for one run; `peak_memory_gb` is the highest.
  """
  if not results:
    return {}

  def mean(numbers):
    numbers = [number for number in numbers if number is not None]
    return statistics.fmean(numbers) if numbers else None

  gap, *others, training_gap = (
    mean(result[kind][name] for result in results)
    for kind, name in (
      ("held_out", "gap"),
      ("held_out", "map"),
      ("held_out", "avg_hit_at_one"),
      ("held_out", "avg_perr"),
      ("held_out", "step"),
      ("training", "gap"),
    )
  )
  return {
    "gap": gap,
    "gap_deviation": _deviation([r["held_out"]["gap"] for r in results]),
    **dict(zip(("map", "hit_at_one", "perr", "steps"), others)),
    "training_gap": training_gap,
    "gap_difference": training_gap - gap,
    "parameters": results[0]["parameters"],
    "examples_per_second": mean(r["examples_per_second"] for r in results),
    "peak_memory_gb": max(result["peak_memory"] for result in results) / 1e9,
  }


def average_curve(results: list[dict[str, Any]]) -> list[tuple[float, ...]]:
  """[(step, mean GAP, deviation)] over a row's runs.

  Steps are those that all runs have, and the mean of their last ones, which
  differ when time is equal rather than steps. The deviation of one run is 0.
  """
  curves = [dict(result["curve"][:-1]) for result in results]
  common = sorted(set.intersection(*map(set, curves)))
  points = [[(step, curve[step]) for curve in curves] for step in common]
  points.append([result["curve"][-1] for result in results])
  return [
    (statistics.fmean(steps), statistics.fmean(gaps), _deviation(gaps) or 0.0)
    for steps, gaps in (zip(*point) for point in points)
  ]


class Report:
  """The table and the plot of the runs so far.

  Attributes:
    results: {label: results of the runs that are finished}.
    failures: {run: why it failed}.
  """

  def __init__(self, runs: list[Run]):
    self._config = runs[0].config
    # One of each row.
    self._rows = {run.label: run for run in runs}
    self._num_seeds = len(runs) // len(self._rows)
    self.results = {label: [] for label in self._rows}
    self.failures = {}

  def write(self):
    """Writes comparison.md, comparison.csv and comparison.png."""
    path = os.path.join(self._config.output_dir, "comparison")
    files.write_text(f"{path}.md", self.markdown())
    keys = ["label", "finished", "failed", "gap", "gap_deviation", *_COLUMNS]
    with files.ReplacedFile(f"{path}.csv") as stream:
      writer = csv.DictWriter(stream, keys, lineterminator="\n")
      writer.writeheader()
      writer.writerows(map(self._numbers, self.results))
    with files.ReplacedFile(f"{path}.png", binary=True) as stream:
      self._plot(stream)

  def _numbers(self, label):
    return {
      "label": label,
      "finished": len(self.results[label]),
      "failed": sum(run.label == label for run in self.failures),
      **summarize(self.results[label]),
    }

  def table(self) -> str:
    """The table, in Markdown."""
    import tabulate  # Late: --help does without it.

    titles = ["model", "GAP ± deviation"]
    titles += [title for _, title in _COLUMNS.values()]
    return tabulate.tabulate(
      [self._cells(self._numbers(label)) for label in self.results],
      titles,
      "pipe",
      colalign=["left", *["right"] * (len(titles) - 1)],
      disable_numparse=True,
    )

  def _cells(self, numbers):
    name = numbers["label"].replace("|", "\\|")
    if numbers["failed"]:
      name += f" ({numbers['failed']} of {self._num_seeds} failed)"
    elif numbers["finished"] < self._num_seeds:
      name += f" ({numbers['finished']} of {self._num_seeds} done)"

    def show(form, key):
      return "-" if numbers.get(key) is None else form.format(numbers[key])

    gap = show("{:.4f}", "gap")
    if numbers["finished"]:
      gap += f" ± {show('{:.4f}', 'gap_deviation')}"
    return [
      name,
      gap,
      *(show(form, key) for key, (form, _) in _COLUMNS.items()),
    ]

  def markdown(self) -> str:
    """What was compared, the table, failures and the plot."""
    config, results = self._config, [*itertools.chain(*self.results.values())]
    files_of = {name: f"`{text}`" for name, text in config.patterns.items()}
    extent = f"{config.minutes} minutes"
    if config.max_steps:
      extent = f"{config.max_steps} steps"
    held_out = ", the videos held out of training" if config.holdout else ""
    (common, *_) = (run.common for run in self._rows.values())
    lines = [
      "# Comparison of models",
      "",
      f"- Trained on {files_of['train_data_pattern']}, {extent} each, seeds "
      + config.seeds.replace(",", ", "),
      f"- Evaluated on {files_of['eval_data_pattern']}{held_out}: "
      + _num_videos(results, "held_out"),
      "- Training GAP of the same checkpoints on "
      f"{files_of['train_eval_data_pattern']}: "
      + _num_videos(results, "training"),
      f"- Flags of all: `{shlex.join(as_flags(common)) or 'none'}`",
    ]
    for label, run in self._rows.items():
      if run.own != {"model": label}:
        lines.append(f"- {label}: `{shlex.join(as_flags(run.own))}`")
    for machine in sorted({result["machine"] for result in results}):
      lines.append(f"- Machine: {machine}")
    lines += ["", self.table(), _LEGEND]
    for run, message in self.failures.items():
      lines.append(
        f"Failed: {run.label} seed {run.seed}:\n\n```\n{message}\n```\n"
      )
    return "\n".join(lines)

  def _plot(self, stream):
    from matplotlib import figure  # Late: --help does without it.

    plot = figure.Figure(figsize=(8, 5), layout="constrained")
    axes = plot.add_subplot(
      xlabel="steps", ylabel="GAP on held-out data", title="mean ± deviation"
    )
    for label, own in self.results.items():
      if own:
        steps, means, deviations = zip(*average_curve(own))
        # A leading underscore would hide the label.
        shown = f" {label}" if label.startswith("_") else label
        axes.errorbar(
          steps, means, deviations, marker=".", capsize=3, label=shown
        )
    axes.grid(alpha=0.3)
    if axes.containers:
      axes.legend()
    plot.savefig(stream, format="png", dpi=150)


def _num_videos(results, kind):
  numbers = sorted({result[kind]["num_videos"] for result in results})
  return " or ".join(map(str, numbers or [0])) + " videos"
