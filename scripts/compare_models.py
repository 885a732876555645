"""Trains models on the same data, and compares them in a table and a plot.

The comparison of the paper's Table 1, on data of one's own:

  python scripts/compare_models.py --output_dir=models/comparison \\
    --train_data_pattern='/data/yt8m/frame/train*.tfrecord' \\
    --eval_data_pattern='/data/yt8m/frame/validate*.tfrecord' \\
    --max_steps=20000 --eval_steps=2000 --seeds=0,1,2 \\
    -- --frame_features=True --feature_names=rgb,audio \\
    --feature_sizes=1024,128 --batch_size=80 --base_learning_rate=0.0002

Everything behind -- goes to train.py, of every run. Instead of equal steps,
--minutes=60 gives each run equal time. --models chooses the models; a variant
of one, under a label of its own, is a further row:

    --variant='gated: --model=NetVLADModelLF --gating=True'

Each run is a train.py of its own in OUTPUT_DIR/LABEL/seed-N, with what it said
in train.log. OUTPUT_DIR/comparison.md, .csv and .png are written anew after
each run. A comparison that was stopped, or a run that failed, goes on with the
same command; what is finished is not done again. Ctrl-C saves first.

Memory is that of the training process on the host. Time of --minutes counts
from the start of train.py, building of its graph included, over all its starts.
Needs the packages of pip install -e '.[plots]'.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import program  # isort: skip  (before TensorFlow)

import csv
import dataclasses
import fcntl
import functools
import importlib.util
import io
import json
import math
import multiprocessing
import platform
import re
import shlex
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Collection
from typing import Any

import tensorflow.compat.v1 as tf
import tqdm
from absl import flags

import evaluation
import files
import flag_types
import model_flags
import predictor
import readers
import train
from checkpoints import evaluations, restore

FLAGS = flags.FLAGS

_ROOT = os.path.dirname(os.path.abspath(train.__file__))
# Table 1 of the paper.
_PAPERS_MODELS = (
  "NetVLADModelLF",
  "SecondOrderModel",
  "AttentionEnhancedNetVLADModel",
  "AttentionNetVLADModel",
)
# In a run's directory.
_STATE_FILE = "run.json"
_RESULT_FILE = "result.json"
_TRAIN_LOG = "train.log"
_EVAL_LOG = "eval.log"

# ru_maxrss is in kilobytes, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_TELL_SECONDS = 10.0
_INTERRUPTED = 130
_TAIL_LINES = 15

# The table: title, format, and where `summarize` has it.
_COLUMNS = (
  ("MAP", "{:.4f}", "map"),
  ("Hit@1", "{:.4f}", "hit_at_one"),
  ("PERR", "{:.4f}", "perr"),
  ("training GAP", "{:.4f}", "training_gap"),
  ("training - held-out", "{:+.4f}", "gap_difference"),
  ("parameters", "{:,}", "parameters"),
  ("examples/s", "{:,.1f}", "examples_per_second"),
  ("peak memory (GB)", "{:.2f}", "peak_memory_gb"),
  ("steps", "{:,.0f}", "steps"),
)


def define_flags(flag_values: flags.FlagValues = FLAGS):
  """Defines the flags."""
  string = functools.partial(flags.DEFINE_string, flag_values=flag_values)
  integer = functools.partial(flag_types.integer, flag_values=flag_values)
  paths = functools.partial(flag_types.paths, flag_values=flag_values)
  flag_types.path(
    "output_dir",
    None,
    "Directory for the runs, the table and the plot.",
    required=True,
    flag_values=flag_values,
  )
  paths(
    "train_data_pattern",
    None,
    "Files to train on: comma-separated globs or directories.",
    required=True,
  )
  paths(
    "eval_data_pattern",
    None,
    "Files to evaluate on, which training must not see.",
    required=True,
  )
  paths(
    "train_eval_data_pattern",
    None,
    "Files for the training GAP; --train_data_pattern if not given. A few "
    "shards will do where there are many.",
  )
  flags.DEFINE_bool(
    "holdout",
    False,
    "Evaluate on those videos of --eval_data_pattern that training held out "
    "by -- --holdout_fraction, and no others. The training GAP is of all "
    "videos of its files, held out or not.",
    flag_values=flag_values,
  )
  string(
    "models",
    ",".join(_PAPERS_MODELS),
    "Comma-separated models, a row each; '' for those of --variant alone.",
  )
  flags.DEFINE_multi_string(
    "variant",
    [],
    "'LABEL: --model=X --flag=value ...': a further row, with flags of "
    "train.py, which prevail over those behind --. May be repeated.",
    flag_values=flag_values,
  )
  string(
    "seeds", "0,1,2", "Comma-separated train.py --seed of each row's runs."
  )
  integer(
    "max_steps", None, "Equal steps: every run ends at this one.", lower_bound=1
  )
  flag_types.real(
    "minutes",
    None,
    "Equal time: every run trains so long, evaluation aside.",
    lower_bound=0.1,
    flag_values=flag_values,
  )
  flags.mark_flags_as_mutual_exclusive(
    ["max_steps", "minutes"], required=True, flag_values=flag_values
  )
  integer(
    "eval_steps",
    0,
    "Evaluate every so many steps, for the plot; 0 for only the end. Keeps a "
    "checkpoint for each.",
    lower_bound=0,
  )
  integer(
    "eval_batch_size",
    256,
    "Videos to evaluate at a time; changes no result.",
    lower_bound=1,
  )


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table: a label and train.py's flags, "model" among them."""

  label: str
  own: dict[str, Any]
  common: dict[str, Any]  # Those of every row, over which its own prevail.

  @property
  def flags(self) -> dict[str, Any]:
    return {**self.common, **self.own}


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to compare, and how; most fields are the flag of their name."""

  output_dir: str
  train_data_pattern: str
  eval_data_pattern: str
  train_eval_data_pattern: str
  holdout: bool
  rows: tuple[Row, ...]
  seeds: tuple[int, ...]
  max_steps: int | None
  minutes: float | None
  eval_steps: int
  eval_batch_size: int

  def runs(self) -> list["Run"]:
    """All runs. Each row has its first seed before one has its second."""
    return [Run(self, row, seed) for seed in self.seeds for row in self.rows]

  def train_flags(self) -> dict[str, Any]:
    """The flags of every train.py that a comparison sets."""
    own = {
      "train_data_pattern": self.train_data_pattern,
      # Steps or time end a run, not the data.
      "num_epochs": 0,
      "export_model_steps": 0,
      "start_new_model": False,
    }
    if self.max_steps:
      own["max_steps"] = self.max_steps
    if self.eval_steps:
      own |= {"save_checkpoints_steps": self.eval_steps, "keep_checkpoints": 0}
    return own


@dataclasses.dataclass(frozen=True)
class Run:
  """One row with one seed."""

  plan: Plan
  row: Row
  seed: int

  @property
  def name(self) -> str:
    return f"{self.row.label} seed {self.seed}"

  @property
  def directory(self) -> str:
    return f"{self.plan.output_dir}/{self.row.label}/seed-{self.seed}"

  def path(self, name: str) -> str:
    return os.path.join(self.directory, name)

  def _train_flags(self):
    return {**self.row.flags, **self.plan.train_flags(), "seed": self.seed}

  def command(self) -> list[str]:
    """The train.py that it is."""
    given = {**self._train_flags(), "train_dir": self.directory}
    return [sys.executable, os.path.join(_ROOT, "train.py"), *_as_list(given)]

  def settings(self) -> dict[str, Any]:
    """What its results depend on: flags of train.py, and of the evaluation."""
    names = ("minutes", "holdout")
    names += ("eval_data_pattern", "train_eval_data_pattern")
    own = {name: getattr(self.plan, name) for name in names}
    return {**self._train_flags(), **own}


def _as_list(given):
  return [f"--{name}={value}" for name, value in given.items()]


def split_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
  """(arguments of this program, what is behind the first --)."""
  if "--" not in argv:
    return argv, []
  at = argv.index("--")
  return argv[:at], argv[at + 1 :]


def _new_train_flags():
  """train.py's flags; this program has others of the same names."""
  known = flags.FlagValues()
  train.define_flags(known)
  return known


def _values(known):
  """What train.py makes of its flags: name to value."""
  config = dataclasses.asdict(train.Config.from_flags(known))
  return {**model_flags.from_flags(known), **config}


def parse_train_flags(
  arguments: list[str], source: str, reserved: Collection[str] = ()
) -> dict[str, Any]:
  """The flags of train.py that some arguments give: name to value.

  Args:
    arguments: list of str.
    source: where they were given, for errors.
    reserved: names of flags that may not be given.

  Raises:
    program.UserError: train.py has no such flag, or no such value for it.
  """
  known = _new_train_flags()
  try:
    rest = known(["train.py", *arguments])[1:]
  except flags.Error as error:
    raise program.UserError(f"{source}: {error}") from None
  if rest:
    raise program.UserError(
      f"{source}: {rest} are not flags; those of train.py start with --."
    )
  given = {k: v for k, v in _values(known).items() if known[k].present}
  refused = [f"--{name}" for name in sorted(set(given) & set(reserved))]
  if refused:
    raise program.UserError(
      f"{source}: leave out {', '.join(refused)}: compare_models.py says that."
    )
  return given


def parse_variant(text: str) -> tuple[str, list[str]]:
  """(label, arguments) of 'LABEL: --model=X --flag=value ...'."""
  label, colon, rest = text.partition(":")
  try:
    arguments = shlex.split(rest)
  except ValueError as error:
    raise program.UserError(f"--variant={text!r}: {error}.") from None
  if not colon:
    raise program.UserError(
      f"--variant={text!r}: need 'LABEL: --model=X --flag=value ...'."
    )
  return label.strip(), arguments


def make_rows(
  models: list[str],
  variants: list[str],
  common: dict[str, Any],
  reserved: Collection[str] = (),
) -> tuple[Row, ...]:
  """The rows of --models and --variant, with the flags common to all.

  Raises:
    program.UserError: no row, a label that cannot be used, an unknown model,
      flags that are reserved, or that a model refuses.
  """
  given = [(name, [f"--model={name}"]) for name in models]
  given += map(parse_variant, variants)
  if not given:
    raise program.UserError("Neither --models nor --variant has a model.")
  rows = []
  for label, arguments in given:
    if not label.isprintable() or not re.match(r"[^./\\][^/\\]*$", label):
      raise program.UserError(
        f"Label {label!r} cannot be the name of a directory: it needs at least "
        "one character, no / or \\, and no dot at its start."
      )
    if any(row.label == label for row in rows):
      raise program.UserError(
        f"Label {label!r} is used twice: give a variant another one."
      )
    row = Row(label, parse_train_flags(arguments, label, reserved), common)
    if "model" not in row.own:
      raise program.UserError(f"Variant {label!r} has no --model.")
    values = {**_values(_new_train_flags()), **row.flags}
    try:
      model_flags.build_model(values)
      model_flags.build_reader(values)
    except ValueError as error:
      raise program.UserError(f"{label}: {error}") from None
    rows.append(row)
  return tuple(rows)


def plan_from_flags(
  passed_on: list[str], flag_values: flags.FlagValues = FLAGS
) -> Plan:
  """Reads and checks all that can be checked before anything is written.

  Args:
    passed_on: what the command line has behind --.
    flag_values: the parsed flags.

  Raises:
    program.UserError, ValueError: flags that cannot be used.
  """
  own = {
    field.name: flag_values[field.name].value
    for field in dataclasses.fields(Plan)
    if field.name not in ("rows", "seeds")
  }
  own["train_eval_data_pattern"] = (
    own["train_eval_data_pattern"] or own["train_data_pattern"]
  )
  for name in own:
    if name.endswith("data_pattern"):
      readers.expand_data_pattern(own[name], name)
  try:
    seeds = tuple(model_flags.parse_ints(flag_values["seeds"].value))
  except ValueError as error:
    raise program.UserError(f"--seeds: {error}") from None
  if not seeds or len(set(seeds)) < len(seeds):
    raise program.UserError(f"--seeds: need different numbers, got {seeds}.")
  plan = Plan(**own, rows=(), seeds=seeds)
  # --max_steps would end a run of --minutes too.
  reserved = {"train_dir", "seed", "max_steps", *plan.train_flags()}
  rows = make_rows(
    model_flags.parse_names(flag_values["models"].value),
    flag_values["variant"].value,
    parse_train_flags(passed_on, "behind --", {*reserved, "model"}),
    reserved,
  )
  for row in rows:
    if plan.holdout and not row.flags.get("holdout_fraction"):
      raise program.UserError(
        f"{row.label}: --holdout needs -- --holdout_fraction above 0."
      )
  return dataclasses.replace(plan, rows=rows)


def _read_json(path):
  """What a file of ours holds, None if there is none."""
  try:
    with open(path, encoding="utf-8") as stream:
      return json.load(stream)
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise program.UserError(f"{path} is damaged: {error}.") from None


def _write_json(path, values):
  files.write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def load_state(run: Run) -> dict[str, Any]:
  """A run's settings, seconds trained, peak memory, and whether it is trained.

  Raises:
    program.UserError: its directory holds something else, or was made with
      other flags.
  """
  now = run.settings()
  state = _read_json(run.path(_STATE_FILE))
  if state is None:
    if os.path.isdir(run.directory) and os.listdir(run.directory):
      raise program.UserError(
        f"{run.directory} has no {_STATE_FILE}: what is in it is not of this "
        "program. Give another --output_dir."
      )
    return {"settings": now, "seconds": 0.0, "peak_memory": 0, "trained": False}
  then = state["settings"]
  differing = [
    f"  --{name}: was {then.get(name)}, now {now.get(name)}"
    for name in sorted({*then, *now})
    if then.get(name) != now.get(name)
  ]
  if differing:
    raise program.UserError(
      "\n".join([f"{run.directory} was made with other flags:", *differing])
      + "\nGive those flags as they were, or another --output_dir, or delete "
      "that directory."
    )
  return state


class RunFailed(Exception):
  """A run ended otherwise than it should; its message is the log's end."""


def _tail(path, num_lines):
  """The last lines of a log."""
  with open(path, "rb") as stream:
    stream.seek(max(0, os.path.getsize(path) - 20000))
    lines = stream.read().decode(errors="replace").splitlines()
  return "\n".join([line for line in lines if line.strip()][-num_lines:])


def _failed(what, path):
  return RunFailed(f"{what}\n{_tail(path, _TAIL_LINES)}")


def _logged_step(path):
  """The step that train.py's log tells of last."""
  found = re.findall(r"training step (\d+) ", _tail(path, 50))
  return int(found[-1]) if found else 0


def train_run(
  run: Run, state: dict[str, Any], tell: Callable[[str], None] = str
) -> None:
  """Trains, from where the run was stopped, to its end.

  Args:
    run: the run.
    state: what `load_state` returned; is updated, in its file too.
    tell: called now and then with what the run is at.

  Raises:
    KeyboardInterrupt: after train.py has saved.
    RunFailed: train.py failed, or ended before its last step.
    program.UserError: another process trains the run.
  """
  log_path = run.path(_TRAIN_LOG)
  limit = 60 * run.plan.minutes if run.plan.minutes else math.inf
  _write_json(run.path(_STATE_FILE), state)
  start = time.monotonic() - state["seconds"]
  process = _start_training(run, log_path)
  asked = False  # To save and end.

  def ended(options=os.WNOHANG):
    # The kernel counts in what this process had at the start, but train.py,
    # which loads the same libraries and trains, has more.
    pid, status, usage = os.wait4(process.pid, options)
    if pid:
      process.returncode = os.waitstatus_to_exitcode(status)
      peak = usage.ru_maxrss * _MAXRSS_UNIT
      state["peak_memory"] = max(state["peak_memory"], peak)
    state["seconds"] = time.monotonic() - start
    return bool(pid)

  told = -math.inf
  try:
    while not ended():
      if state["seconds"] >= limit and not asked:
        asked = True
        process.terminate()
      if time.monotonic() - told >= _TELL_SECONDS:
        told = time.monotonic()
        tell(f"step {_logged_step(log_path)}")
        # Should this process be killed, the time is known.
        _write_json(run.path(_STATE_FILE), state)
      time.sleep(0.1)
  except KeyboardInterrupt:
    _say("Waiting for train.py to save and end; Ctrl-C once more kills it.")
    if not asked:
      process.terminate()
    ended(options=0)
    raise
  finally:
    if process.returncode is None:
      process.kill()
      ended(options=0)
    _write_json(run.path(_STATE_FILE), state)
  # Asked before its first step, it has nothing to save and is just killed.
  if process.returncode not in ([0, -signal.SIGTERM] if asked else [0]):
    raise _failed(f"train.py ended with status {process.returncode}.", log_path)
  checkpoint = restore.latest_checkpoint(run.directory)
  step = _step_of(checkpoint) if checkpoint else 0
  if not step or (not asked and step < (run.plan.max_steps or math.inf)):
    raise _failed(f"train.py was stopped at step {step}.", log_path)
  state["trained"] = True
  _write_json(run.path(_STATE_FILE), state)


def _start_training(run, log_path):
  """Starts train.py, unless it is running."""
  with open(log_path, "ab") as log:
    try:
      # Held by train.py as well, which may outlive this process.
      fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise program.UserError(
        f"{run.directory} is being trained by another process."
      ) from None
    # In a session of its own: Ctrl-C comes from here, once, so that it saves.
    return subprocess.Popen(
      run.command(),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      env={k: v for k, v in os.environ.items() if k != "TF_CONFIG"},
      start_new_session=True,
    )


def _step_of(checkpoint):
  return int(checkpoint.rpartition("-")[2])


def examples_per_second(log_path: str) -> float | None:
  """Median of what train.py logged; the first, of warming up, is left out."""
  with open(log_path, errors="replace") as log:
    rates = re.findall(r"training step .* Examples/sec: ([\d.]+)", log.read())
  return statistics.median(map(float, rates[1:])) if rates[1:] else None


def count_parameters(values: dict[str, Any], paths: list[str]) -> int:
  """The number of trainable parameters of a model."""
  reader = model_flags.build_reader(values)
  with tf.Graph().as_default():
    data = tf.data.make_initializable_iterator(
      reader.batches(paths[:1], batch_size=1)
    )
    model = model_flags.build_model(values)
    predictor.predict(model, data.get_next(), reader.num_classes)
    return sum(v.shape.num_elements() for v in tf.trainable_variables())


def describe_machine() -> str:
  """Cores and GPUs."""
  gpus = [
    tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    for gpu in tf.config.list_physical_devices("GPU")
  ]
  return ", ".join([f"{os.cpu_count()} {platform.machine()} cores", *gpus])


def _checkpoints(run):
  """[path prefix] of the checkpoints to evaluate, the last one last."""
  period = run.plan.eval_steps
  found = restore.known_checkpoints(run.directory)
  chosen = {path for path in found if period and _step_of(path) % period == 0}
  last = restore.latest_checkpoint(run.directory)
  return sorted({*chosen, last}, key=_step_of)


def evaluate_run(run: Run, state: dict[str, Any]) -> None:
  """Evaluates a trained run's checkpoints, and writes its result.json."""
  plan, values = run.plan, model_flags.load(run.directory)

  def evaluate(checkpoint, pattern, name, holdout):
    path = run.path(f"{name}/metrics-{_step_of(checkpoint)}.json")
    if not os.path.exists(path):
      results = evaluation.evaluate(
        checkpoint,
        values,
        readers.expand_data_pattern(pattern),
        batch_size=plan.eval_batch_size,
        num_readers=8,
        holdout=holdout,
      )
      evaluations.log(results)
      evaluations.write(results, run.path(name))
    return _read_json(path)

  checkpoints = _checkpoints(run)
  held_out = [
    evaluate(each, plan.eval_data_pattern, "eval_held_out", plan.holdout)
    for each in checkpoints
  ]
  training = evaluate(
    checkpoints[-1], plan.train_eval_data_pattern, "eval_training", False
  )
  paths = readers.expand_data_pattern(plan.train_data_pattern)
  result = {
    "held_out": held_out[-1],
    "training": training,
    "curve": [[each["step"], each["gap"]] for each in held_out],
    "parameters": count_parameters(values, paths),
    "examples_per_second": examples_per_second(run.path(_TRAIN_LOG)),
    "peak_memory": state["peak_memory"],
    "machine": describe_machine(),
  }
  _write_json(run.path(_RESULT_FILE), result)


def _evaluate_logged(run, state):
  with open(run.path(_EVAL_LOG), "ab") as log:
    for number in (1, 2):
      os.dup2(log.fileno(), number)
  evaluate_run(run, state)


def _evaluate_apart(run, state):
  """`evaluate_run` in a process: a GPU is free again when it has ended."""
  process = multiprocessing.get_context("spawn").Process(
    target=_evaluate_logged, args=(run, state)
  )
  process.start()
  try:
    process.join()
  finally:
    process.kill()
    process.join()
  if process.exitcode:
    what = f"Evaluation ended with status {process.exitcode}."
    raise _failed(what, run.path(_EVAL_LOG))


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

  def held_out(name):
    return [result["held_out"][name] for result in results]

  gap = mean(held_out("gap"))
  training_gap = mean(result["training"]["gap"] for result in results)
  return {
    "gap": gap,
    "gap_deviation": _deviation(held_out("gap")),
    "map": mean(held_out("map")),
    "hit_at_one": mean(held_out("avg_hit_at_one")),
    "perr": mean(held_out("avg_perr")),
    "training_gap": training_gap,
    "gap_difference": training_gap - gap,
    "parameters": results[0]["parameters"],
    "examples_per_second": mean(r["examples_per_second"] for r in results),
    "peak_memory_gb": max(result["peak_memory"] for result in results) / 1e9,
    "steps": mean(held_out("step")),
  }


def average_curve(results: list[dict[str, Any]]) -> list[tuple[float, ...]]:
  """[(step, mean GAP, deviation)] over a row's runs.

  Steps are those that all runs have, and the mean of their last ones, which
  differ when time is equal rather than steps. The deviation of one run is 0.
  """
  curves = [dict(result["curve"][:-1]) for result in results]
  groups = [
    [(step, curve[step]) for curve in curves]
    for step in sorted(set.intersection(*map(set, curves)))
  ]
  groups.append([result["curve"][-1] for result in results])
  return [
    (statistics.fmean(steps), statistics.fmean(gaps), _deviation(gaps) or 0.0)
    for steps, gaps in (zip(*group) for group in groups)
  ]


def _plot(stream, results):
  # Loaded late, as evaluating processes do without it.
  from matplotlib import figure

  plot = figure.Figure(figsize=(8, 5), layout="constrained")
  axes = plot.add_subplot(
    xlabel="steps", ylabel="GAP on held-out data", title="mean ± deviation"
  )
  for label, own in results.items():
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


class Report:
  """The table and the plot of the runs so far."""

  def __init__(self, plan: Plan):
    self._plan = plan
    self.results = {row.label: [] for row in plan.rows}
    self.failures = {row.label: {} for row in plan.rows}  # {seed: message}.

  def write(self):
    """Writes comparison.md, comparison.csv and comparison.png."""
    path = os.path.join(self._plan.output_dir, "comparison")
    files.write_text(f"{path}.md", self.markdown())
    files.write_text(f"{path}.csv", self.csv())
    with files.ReplacedFile(f"{path}.png", binary=True) as stream:
      _plot(stream, self.results)

  def table(self) -> str:
    """The table, in Markdown."""
    import tabulate

    titles = ["model", "GAP ± deviation", *(title for title, *_ in _COLUMNS)]
    return tabulate.tabulate(
      [self._cells(label) for label in self.results],
      titles,
      "pipe",
      colalign=["left", *["right"] * (len(titles) - 1)],
      disable_numparse=True,
    )

  def _cells(self, label):
    num_done, num_failed = len(self.results[label]), len(self.failures[label])
    num_seeds = len(self._plan.seeds)
    name = label.replace("|", "\\|")
    if num_failed:
      name += f" ({num_failed} of {num_seeds} failed)"
    elif num_done < num_seeds:
      name += f" ({num_done} of {num_seeds} done)"
    found = summarize(self.results[label])

    def show(form, key):
      return "-" if found.get(key) is None else form.format(found[key])

    gap = show("{:.4f}", "gap")
    if found:
      gap += f" ± {show('{:.4f}', 'gap_deviation')}"
    return [name, gap, *(show(form, key) for _, form, key in _COLUMNS)]

  def csv(self) -> str:
    """The table's numbers with all their digits."""
    stream = io.StringIO()
    keys = ["label", "finished", "failed", "gap", "gap_deviation"]
    keys += [key for *_, key in _COLUMNS]
    writer = csv.DictWriter(stream, keys, lineterminator="\n")
    writer.writeheader()
    for label, results in self.results.items():
      num_failed = len(self.failures[label])
      row = {"label": label, "finished": len(results), "failed": num_failed}
      writer.writerow({**row, **summarize(results)})
    return stream.getvalue()

  def markdown(self) -> str:
    """What was compared, the table, failures and the plot."""
    plan = self._plan
    results = [result for own in self.results.values() for result in own]
    steps, minutes = f"{plan.max_steps} steps", f"{plan.minutes} minutes"
    extent = steps if plan.max_steps else minutes
    held_out = ", the videos held out of training" if plan.holdout else ""
    common = shlex.join(_as_list(plan.rows[0].common)) or "none"
    lines = [
      "# Comparison of models",
      "",
      f"- Trained on `{plan.train_data_pattern}`, {extent} each, seeds "
      + ", ".join(map(str, plan.seeds)),
      f"- Evaluated on `{plan.eval_data_pattern}`{held_out}: "
      + _num_videos(results, "held_out"),
      "- Training GAP of the same checkpoints on "
      f"`{plan.train_eval_data_pattern}`: {_num_videos(results, 'training')}",
      f"- Flags of all: `{common}`",
    ]
    for row in plan.rows:
      if row.own != {"model": row.label}:
        lines.append(f"- {row.label}: `{shlex.join(_as_list(row.own))}`")
    for machine in sorted({result["machine"] for result in results}):
      lines.append(f"- Machine: {machine}")
    lines += [
      "",
      self.table(),
      "",
      "GAP ± sample deviation over the seeds; the other columns are means over "
      "the seeds, peak memory the highest. Metrics are those of the last "
      "checkpoint, training GAP too; examples/s is the median of train.py's "
      "lines after the first; memory is the training process's on the host.",
      "",
      "![GAP on held-out data against steps](comparison.png)",
      "",
    ]
    for label, failures in self.failures.items():
      for seed, message in failures.items():
        lines.append(f"Failed: {label} seed {seed}:\n\n```\n{message}\n```\n")
    return "\n".join(lines)


def _num_videos(results, kind):
  numbers = sorted({result[kind]["num_videos"] for result in results})
  return " or ".join(map(str, numbers or [0])) + " videos"


def compare(plan: Plan) -> int:
  """Does all runs that are not done, and reports: how many failed."""
  runs = plan.runs()
  states = [load_state(run) for run in runs]  # Refuses before the first run.
  report = Report(plan)
  num_failed = 0
  with program.progress_bar(len(runs), "runs") as bar:
    for run, state in zip(runs, states):
      try:
        result = _do(run, state, bar)
      except RunFailed as error:
        num_failed += 1
        report.failures[run.row.label][run.seed] = str(error)
        _say(f"{run.name}: FAILED: {error}\nLogs are in {run.directory}.")
      else:
        report.results[run.row.label].append(result)
        found = result["held_out"]
        _say(f"{run.name}: GAP {found['gap']:.4f} at step {found['step']}")
      report.write()
      bar.update()
  print(f"\n{report.table()}\n")
  print(f"Wrote {os.path.join(plan.output_dir, 'comparison')}.md, .csv, .png.")
  return num_failed


def _do(run, state, bar):
  """The result of a run, which is trained and evaluated if that is not done."""

  def tell(text):
    bar.set_postfix_str(f"{run.name}, {text}")

  result = _read_json(run.path(_RESULT_FILE))
  if result:
    _say(f"{run.name}: done before")
    return result
  if not state["trained"]:
    train_run(run, state, tell)
  tell("evaluating")
  _evaluate_apart(run, state)
  return _read_json(run.path(_RESULT_FILE))


def _say(text):
  tqdm.tqdm.write(text, file=sys.stderr)


def main(passed_on: list[str], flag_values: flags.FlagValues = FLAGS) -> int:
  """Compares: the exit status."""
  for name in ("matplotlib", "tabulate"):
    if importlib.util.find_spec(name) is None:
      raise program.UserError(
        f"Need the package {name}: pip install -e '{_ROOT}[plots]'."
      )
  plan = plan_from_flags(passed_on, flag_values)
  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:  # As nohup has it.
      signal.signal(number, signal.default_int_handler)  # As Ctrl-C.
  try:
    num_failed = compare(plan)
  except KeyboardInterrupt:
    _say("Stopped. The same command goes on from here.")
    return _INTERRUPTED
  return program.FAILED if num_failed else 0


if __name__ == "__main__":
  define_flags()
  sys.argv, _PASSED_ON = split_arguments(sys.argv)
  program.run(lambda: main(_PASSED_ON), stops_on=())
