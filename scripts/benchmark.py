"""Measures how fast the code is, how much memory it takes, and against what.

All cases but `paper`, in under a quarter of an hour on two CPU cores:

  python scripts/benchmark.py --output=benchmark.json

One case; two models; before and after a change:

  python scripts/benchmark.py --cases=input
  python scripts/benchmark.py --cases=step --models=NetVLADModelLF,MoeModel
  python scripts/benchmark.py --output=after.json --compare=before.json

Two files of earlier runs, without measuring anything:

  python scripts/benchmark.py --compare=before.json --new=after.json

The cases:

  input      the reader alone, against one record at a time as floats: by
             queues, as in the starter code, and by tf.data
  pooling    pooling layers, against formulations that hold all residuals
  memory     the largest batch of NetVLAD in --memory_gb, against the same
  step       a training step of every model, and what it consists of
  plain      gated NetVLAD's step, against the same model without care: with
             slim, as it was published, and with Keras
  startup    train.py up to its first step
  metrics    evaluation metrics, against heaps in Python, as in the starter code
  inference  from records to the CSV, against the model alone, a batch at a time
  scaling    what towers, videos, frames and centres cost
  paper      a step of the paper's four models at the paper's sizes

Each row is measured in processes of its own, whose peak memory is the row's,
and is a median over so many repeats as it names. What is compared runs in turn
in one process. A quick row is repeated for a tenth of --seconds, a slow one
--repeats times if --seconds are enough for that, in any case once.

Ctrl-C gives up the row that is being measured, twice within a second the rest
too. What was measured is reported all the same; the exit status then is 1, as
it is when a row fails. --output is written anew after each row.

Columns: input wait is what a step takes beyond one on a batch that is there;
the optimiser, with clipping, what that takes beyond its gradients; summaries,
with training metrics, what they add. GFLOP are those of matrix products, as
executed; machine GFLOP/s those of a square product in the same process. Step
memory is the peak less what the process had before the runs. Input and
inference read files that are in the page cache.

Needs the package tabulate: pip install -e '.[plots]'.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import program  # isort: skip  (before TensorFlow)

import dataclasses
import functools
import importlib.util
import json
import math
import signal
import subprocess
import tempfile
import time

import tqdm
from absl import flags

import files
import flag_types
import model_flags
from scripts import (
  benchmark_cases,
  benchmark_pooling,
  benchmark_training,
  make_dataset,
)
from scripts import benchmark_tools as tools
from scripts.benchmark_units import Settings, Unit, UnitFailed

FLAGS = flags.FLAGS

_SAME = 0.05
_TWICE_SECONDS = 1.0
# What a figure's name ends with: its unit in a title, the word for more of it
# and the word for less.
_UNITS = (
  ("_videos_per_cpu_second", "videos/CPU s", "faster", "slower"),
  ("_per_second", "/s", "faster", "slower"),
  ("_speedup", "speed-up", "faster", "slower"),
  ("_saving", "saving", "less memory", "more memory"),
  ("_ms", "(ms)", "slower", "faster"),
  ("_seconds", "(s)", "slower", "faster"),
  ("_overhead", "overhead", "slower", "faster"),
  ("_gb", "(GB)", "more memory", "less memory"),
  ("_bytes", "(bytes)", "more memory", "less memory"),
)
# Columns that hold no numbers.
_TEXTS = ("", "case", "row", "figure")
_GATED = {
  "model": "NetVLADModelLF",
  "gating": True,
  "moe_prob_gating": True,
  "netvlad_relu": False,
  "moe_l2": 1e-6,
}
_GATED_256 = {
  "netvlad_cluster_size": 256,
  "netvlad_hidden_size": 1024,
  "iterations": 300,
  "batch_size": 80,
}
# Configurations with names of their own: flags of train.py.
_CONFIGURATIONS = {
  "gated-netvlad": _GATED,
  "gated-netvlad-256": {**_GATED, **_GATED_256},
}
# The same in bfloat16, where --models asks for it.
_MIXED = {
  f"{name}-mixed": {**given, "mixed_precision": True}
  for name, given in _CONFIGURATIONS.items()
}
_PAPER_SIZES = {
  "netvlad_cluster_size": 256,
  "netvlad_hidden_size": 512,
  "iterations": 256,
  "batch_size": 16,
}
_PAPERS_MODELS = (
  "NetVLADModelLF",
  "AttentionEnhancedNetVLADModel",
  "AttentionNetVLADModel",
  "SecondOrderModel",
)


def define_flags(flag_values: flags.FlagValues = FLAGS):
  """Defines the flags."""
  string = functools.partial(flags.DEFINE_string, flag_values=flag_values)
  path = functools.partial(flag_types.path, flag_values=flag_values)
  integer = functools.partial(
    flag_types.integer, lower_bound=1, flag_values=flag_values
  )
  real = functools.partial(
    flag_types.real, lower_bound=0.0, flag_values=flag_values
  )
  string(
    "cases",
    ",".join(name for name in _CASES if name != "paper"),
    "Comma-separated cases to measure.",
  )
  string(
    "models",
    "",
    "Comma-separated models and configurations of step, plain, startup, "
    "inference and paper; all if not given.",
  )
  path("output", "benchmark.json", "The JSON file to write.")
  path("compare", None, "Tell what is faster and slower than in this file.")
  path(
    "new",
    None,
    "Measure nothing: what to --compare with is in this file.",
  )
  path(
    "data_dir",
    None,
    "Directory of frame/*.tfrecord and video/*.tfrecord to read; where there "
    "is none, synthetic ones are made and stay. A temporary directory if not "
    "given.",
  )
  integer("repeats", 3, "Repeats of a slow row.")
  real("seconds", 5.0, "Budget of each measurement, warming up aside.")
  real("memory_gb", 4.0, "Memory in which the largest batch is looked for.")
  integer("batch_size", 16, "Videos a step of a frame-level model.")
  integer("video_batch_size", 1024, "Videos a step of a video-level model.")
  integer("clusters", 64, "Centres.")
  integer("hidden_size", 512, "Units of the layer behind pooling.")
  integer("frames", 64, "Frames sampled of each video.")
  integer("min_frames", 120, "Frames of the shortest synthetic video.")
  integer("max_frames", 300, "Frames of the longest, and padded length.")
  string("feature_sizes", "1024,128", "Sizes of rgb and audio.")
  integer("num_classes", 3862, "Classes.")
  integer("num_videos", 512, "Synthetic videos of each level.")
  integer(
    "shuffle_buffer",
    1024,
    "Records in the buffer of the reader alone, which reads files as often as "
    "it takes to fill it.",
  )
  integer("metrics_videos", 20000, "Videos to compute metrics of.")


def settings_from_flags(flag_values: flags.FlagValues = FLAGS) -> Settings:
  """Reads the sizes and budgets.

  Raises:
    program.UserError: feature sizes that are not those of rgb and audio.
  """
  try:
    sizes = tuple(model_flags.parse_ints(flag_values["feature_sizes"].value))
  except ValueError as error:
    raise program.UserError(f"--feature_sizes: {error}") from None
  if len(sizes) != 2 or min(sizes) < 1:
    raise program.UserError(
      f"--feature_sizes: need those of rgb and audio, got {sizes}."
    )
  names = set(Settings.__dataclass_fields__) - {"data_dir", "feature_sizes"}
  return Settings(
    data_dir=flag_values["data_dir"].value or "",
    feature_sizes=sizes,
    **{name: flag_values[name].value for name in names},
  )


# The units of each case.


def _rows(settings, names):
  """[(row, flags of train.py)] of models and configurations."""
  found = []
  for name in names:
    own = {"model": name, **{**_CONFIGURATIONS, **_MIXED}.get(name, {})}
    found.append((name, benchmark_training.train_flags(settings, **own)))
  return found


def _chosen(names, models, on_request=()):
  """Those of the names that --models leaves, or adds on request."""
  chosen = [name for name in names if not models or name in models]
  return chosen + [name for name in on_request if name in models]


def _training_units(settings, case, function, names):
  return [
    Unit(case, name, function, {"given": given})
    for name, given in _rows(settings, names)
  ]


def _input_units(settings, models):
  return [Unit("input", "the reader", "reading", {})]


def _pooling_units(settings, models):
  return [
    Unit("pooling", name, "pooling", {"layer": name})
    for name in (*benchmark_pooling.LAYERS, benchmark_pooling.MODEL)
  ]


def _memory_units(settings, models):
  name = next(iter(benchmark_pooling.LAYERS))
  return [Unit("memory", name, "largest_batch", {"layer": name})]


def _step_units(settings, models):
  known = [*model_flags.model_names(), *_CONFIGURATIONS]
  names = _chosen(known, models, _MIXED)
  return _training_units(settings, "step", "step", names)


def _plain_units(settings, models):
  names = _chosen(_CONFIGURATIONS, models, _MIXED)
  return [
    Unit("plain", f"{name}, {way}", "plain_step", {"given": given, "way": way})
    for name, given in _rows(settings, names)
    for way in benchmark_training.PLAIN_STEPS
  ]


def _startup_units(settings, models):
  names = _chosen(["gated-netvlad-256"], models)
  return [
    Unit("startup", "train.py --help", "startup_help", {}),
    *_training_units(settings, "startup", "startup", names),
  ]


def _metrics_units(settings, models):
  return [Unit("metrics", "the metrics", "metrics", {})]


def _inference_units(settings, models):
  names = _chosen(["gated-netvlad", "FrameLevelLogisticModel"], models)
  return _training_units(settings, "inference", "inference", names)


def _scaling_units(settings, models):
  base = benchmark_training.train_flags(settings, **_GATED)
  sizes = [{}]
  sizes += [{"batch_size": f * settings.batch_size} for f in (2, 4, 8)]
  sizes += [{"iterations": f * settings.frames} for f in (2, 4)]
  sizes += [{"iterations": settings.max_frames}]
  sizes += [
    {"netvlad_cluster_size": max(1, int(f * settings.clusters))}
    for f in (0.5, 2, 4, 8)
  ]
  units = []
  for changes in sizes:
    given = {**base, **changes}
    name = (
      f"B={given['batch_size']} T={given['iterations']} "
      f"K={given['netvlad_cluster_size']}"
    )
    units.append(Unit("scaling", name, "scaling", {"given": given}))
  counts = [count for count in (1, 2, 4) if count <= settings.batch_size]
  return [
    *units,
    Unit("scaling", "towers", "towers", {"given": base, "counts": counts}),
  ]


def _paper_units(settings, models):
  return [
    Unit("paper", name, "step", {"given": {**given, **_PAPER_SIZES}})
    for name, given in _rows(settings, _chosen(_PAPERS_MODELS, models))
  ]


_CASES = {
  "input": _input_units,
  "pooling": _pooling_units,
  "memory": _memory_units,
  "step": _step_units,
  "plain": _plain_units,
  "startup": _startup_units,
  "metrics": _metrics_units,
  "inference": _inference_units,
  "scaling": _scaling_units,
  "paper": _paper_units,
}
_WITHOUT_DATA = {"memory", "metrics"}


def _parse_names(text, flag, known):
  names = model_flags.parse_names(text)
  unknown = [name for name in names if name not in known]
  if unknown:
    raise program.UserError(
      f"--{flag}: there is no {', '.join(unknown)}. Known are "
      f"{', '.join(known)}."
    )
  return names


def plan(cases: str, models: str, settings: Settings) -> list[Unit]:
  """The units of --cases and --models.

  Raises:
    program.UserError: an unknown name, or nothing to measure.
  """
  known = [*model_flags.model_names(), *_CONFIGURATIONS, *_MIXED]
  chosen_models = _parse_names(models, "models", known)
  units = []
  for case in _parse_names(cases, "cases", list(_CASES)):
    units += _CASES[case](settings, chosen_models)
  if not units:
    raise program.UserError(
      f"Nothing to measure: --cases={cases} --models={models}."
    )
  return units


# The report.


class Report:
  """What was measured: tables, and the JSON file.

  Attributes:
    machine: dict, see `benchmark_tools.describe_machine`.
    settings: dict of the flags that sizes and budgets are.
    results: {case: {row: {figure: number}}}.
    failures: {case: {row: why it has no figures}}.
  """

  def __init__(self, machine, settings, results=None, failures=None):
    self.machine = machine
    self.settings = settings
    self.results = results or {}
    self.failures = failures or {}

  def add(self, case: str, rows: dict[str, dict[str, float]]) -> None:
    """Adds what a unit found."""
    self.results.setdefault(case, {}).update(rows)

  def fail(self, unit: Unit, message: str) -> None:
    """Notes that a unit found nothing."""
    self.failures.setdefault(unit.case, {})[unit.name] = message

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
    lines = [self._machine_line(), ""]
    for case in _CASES:
      rows = self.results.get(case, {})
      failed = self.failures.get(case, {})
      if rows or failed:
        lines += [f"## {case}", "", _table(rows, failed), ""]
      for name, message in failed.items():
        lines += [f"{name} failed:", "", "```", message, "```", ""]
    return "\n".join(lines)

  def _machine_line(self):
    machine = self.machine
    parts = [machine["cpu"], f"{machine['cores']} cores"]
    if machine["memory_gb"]:
      parts.append(f"{machine['memory_gb']} GB")
    parts += machine["gpus"] or ["no GPU"]
    parts.append(f"TensorFlow {machine['tensorflow']}")
    parts.append(f"Python {machine['python']}")
    if machine["commit"]:
      parts.append(f"commit {machine['commit']}")
    return ", ".join(parts) + "."


def _title(figure):
  """A figure's name as a column has it."""
  for suffix, unit, *_ in _UNITS:
    if f"_{figure}".endswith(suffix):
      stem = f"_{figure}".removesuffix(suffix)
      spelt = stem.strip("_").replace("_", " ")
      return f"{spelt}{unit}" if unit == "/s" else f"{spelt} {unit}".strip()
  return figure.replace("_", " ")


def _number(value):
  """A number to three digits that count."""
  if value is None:
    return ""
  if isinstance(value, int) or not value:
    return f"{value:,}"
  digits = 2 - math.floor(math.log10(abs(value)))
  return f"{value:,.{min(max(0, digits), 6)}f}"


def _markdown(rows, columns):
  # Imported late: --help does without it.
  import tabulate

  sides = ["left" if name in _TEXTS else "right" for name in columns]
  return tabulate.tabulate(
    rows,
    columns,
    tablefmt="pipe",
    disable_numparse=True,
    colalign=sides if rows else None,
  )


def _table(rows, failed):
  """A case's rows, a column for each figure that one of them has."""
  figures = list(dict.fromkeys(name for row in rows.values() for name in row))
  lines = [
    [name, *(_number(row.get(figure)) for figure in figures)]
    for name, row in rows.items()
  ]
  for name in failed:
    lines.append([f"{name}: FAILED", *[""] * len(figures)])
  return _markdown(lines, ["", *map(_title, figures)])


def verdict(figure: str, old: float, new: float) -> str:
  """What a figure's change means: "same", "faster", "more memory"..."""
  if abs(new - old) <= _SAME * abs(old):
    return "same"
  for suffix, _, more, less in _UNITS:
    if f"_{figure}".endswith(suffix):
      return more if new > old else less
  return "higher" if new > old else "lower"


def compare(old: Report, new: Report) -> str:
  """A table of the figures of both, and the names of those of one."""
  before, after = _figures(old), _figures(new)
  lines = [
    [
      *key[:2],
      _title(key[2]),
      _number(before[key]),
      _number(after[key]),
      _number(after[key] / before[key]) if before[key] else "",
      verdict(key[2], before[key], after[key]),
    ]
    for key in before
    if key in after
  ]
  columns = ["case", "row", "figure", "old", "new", "new/old", ""]
  parts = [_markdown(lines, columns)]
  for title, some, others in (
    ("Only in the old file", before, after),
    ("Only in the new file", after, before),
  ):
    alone = [", ".join(key) for key in some if key not in others]
    if alone:
      parts.append("\n".join([f"{title}:", *(f"- {name}" for name in alone)]))
  for title, then, now in (
    ("Machines", old.machine, new.machine),
    ("Settings", old.settings, new.settings),
  ):
    differing = [
      f"{name} was {then.get(name)}, is {now.get(name)}"
      for name in sorted({*then, *now})
      if then.get(name) != now.get(name)
    ]
    if differing:
      parts.append(f"{title} differ: {'; '.join(differing)}.")
  return "\n\n".join(parts)


def _figures(report):
  """{(case, row, figure): number}, without the number of repeats."""
  return {
    (case, row, figure): number
    for case, rows in report.results.items()
    for row, figures in rows.items()
    for figure, number in figures.items()
    if figure != "repeats"
  }


# Measuring.


def _make_data(data_dir, flag_values):
  """Makes the synthetic records that are not there."""
  for level in ("frame", "video"):
    directory = os.path.join(data_dir, level)
    if os.path.isdir(directory) and os.listdir(directory):
      continue
    num_videos = flag_values["num_videos"].value
    _say(f"Making {num_videos} synthetic videos, {level} level.")
    given = {
      "output_dir": directory,
      "level": level,
      # YouTube-8M's files hold about 1,000 videos: opening one costs little.
      "num_shards": min(2, num_videos),
      "labels_per_video": min(3, flag_values["num_classes"].value),
    }
    names = ("num_videos", "feature_sizes", "num_classes")
    names += ("min_frames", "max_frames")
    given |= {name: flag_values[name].value for name in names}
    subprocess.run(
      [
        sys.executable,
        os.path.abspath(make_dataset.__file__),
        *(f"--{name}={value}" for name, value in given.items()),
      ],
      check=True,
      capture_output=True,
    )


def run_units(
  settings: Settings, units: list[Unit], report: Report, output: str
):
  """Measures all units, and writes the report after each."""
  interrupted = -math.inf
  with program.progress_bar(len(units), "rows") as bar:
    for unit in units:
      bar.set_postfix_str(f"{unit.case}: {unit.name}")
      try:
        report.add(unit.case, benchmark_cases.run_apart(settings, unit))
      except UnitFailed as error:
        report.fail(unit, str(error))
        _say(f"{unit.case}: {unit.name}: FAILED: {error}")
      except KeyboardInterrupt:
        report.fail(unit, "stopped by Ctrl-C")
        if time.monotonic() - interrupted < _TWICE_SECONDS:
          _say("Stopped.")
          break
        interrupted = time.monotonic()
        _say(f"{unit.case}: {unit.name}: given up; Ctrl-C again ends all.")
      report.write(output)
      bar.update()
  report.write(output)


def _say(text):
  tqdm.tqdm.write(text, file=sys.stderr)


def _measure(flag_values):
  """The report of what the flags ask for."""
  settings = settings_from_flags(flag_values)
  output = flag_values["output"].value
  with tempfile.TemporaryDirectory() as temporary:
    settings = dataclasses.replace(
      settings, data_dir=settings.data_dir or temporary
    )
    # Wrong names are told before anything is made.
    units = plan(
      flag_values["cases"].value, flag_values["models"].value, settings
    )
    if not {unit.case for unit in units} <= _WITHOUT_DATA:
      _make_data(settings.data_dir, flag_values)
    sizes = dataclasses.asdict(settings)
    del sizes["data_dir"]
    sizes["feature_sizes"] = list(settings.feature_sizes)  # As in JSON.
    report = Report(tools.describe_machine(), sizes)
    run_units(settings, units, report, output)
  print(f"{report.text()}\nWrote {output}.")
  return report


def main(flag_values: flags.FlagValues = FLAGS) -> int:
  """Measures, reports and compares: the exit status."""
  if importlib.util.find_spec("tabulate") is None:
    raise program.UserError(
      "Need the package tabulate: pip install -e '.[plots]'."
    )
  old_path, new_path = flag_values["compare"].value, flag_values["new"].value
  if new_path and not old_path:
    raise program.UserError("--new needs --compare, the file to compare with.")
  if old_path and not new_path:
    files.check_outputs(
      {"--output": flag_values["output"].value}, {"--compare": [old_path]}
    )
  old = Report.read(old_path) if old_path else None
  report = Report.read(new_path) if new_path else _measure(flag_values)
  if old:
    print(f"\n{compare(old, report)}")
  return program.FAILED if report.failures else 0


if __name__ == "__main__":
  define_flags()
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  program.run(main, stops_on=())
