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
from when train.py's graph is built and its variables have their values, over
all its starts. Needs the packages of pip install -e '.[plots]'.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import program  # isort: skip  (before TensorFlow)

import contextlib
import csv
import dataclasses
import fcntl
import glob
import importlib.util
import io
import json
import multiprocessing
import platform
import re
import resource
import shlex
import shutil
import signal
import statistics
import subprocess
import time
import types
import typing

import tensorflow.compat.v1 as tf
import tqdm
from absl import flags, logging

import eval as eval_program
import files
import losses
import model_flags
import readers
import towers
import train
import train_dir

FLAGS = flags.FLAGS

_ROOT = os.path.dirname(os.path.abspath(train.__file__))
# Table 1 of the paper.
_PAPERS_MODELS = (
  "NetVLADModelLF",
  "SecondOrderModel",
  "AttentionEnhancedNetVLADModel",
  "AttentionNetVLADModel",
)
_STATE_FILE = "run.json"
_RESULT_FILE = "result.json"
_TRAIN_LOG = "train.log"
_EVAL_LOG = "eval.log"
_RATE_TAG = "global_step/Examples/Second"
# ru_maxrss is in kilobytes, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
# train.py answers SIGTERM by saving from its first step on: it gets so long.
_LEAST_SECONDS = 3.0
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

  def required(name, text):
    flags.DEFINE_string(
      name, None, text, required=True, flag_values=flag_values
    )

  required("output_dir", "Directory for the runs, the table and the plot.")
  required(
    "train_data_pattern",
    "Files to train on: comma-separated globs or directories of TFRecords.",
  )
  required(
    "eval_data_pattern", "Files to evaluate on, which training must not see."
  )
  flags.DEFINE_string(
    "train_eval_data_pattern",
    None,
    "Files for the training GAP; --train_data_pattern if not given. A few "
    "shards will do where there are many.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "holdout",
    False,
    "Evaluate on those videos of --eval_data_pattern that training held out "
    "by -- --holdout_fraction, and no others.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "models",
    ",".join(_PAPERS_MODELS),
    "Comma-separated models, a row each; '' for those of --variant alone.",
    flag_values=flag_values,
  )
  flags.DEFINE_multi_string(
    "variant",
    [],
    "'LABEL: --model=X --flag=value ...': a further row, with flags of "
    "train.py, which prevail over those behind --. May be repeated.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "seeds",
    "0,1,2",
    "Comma-separated train.py --seed of each row's runs.",
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "max_steps",
    None,
    "Equal steps: every run ends at this step.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    "minutes",
    None,
    "Equal time: every run trains so long, evaluation aside.",
    lower_bound=_LEAST_SECONDS / 60,
    flag_values=flag_values,
  )
  flags.mark_flags_as_mutual_exclusive(
    ["max_steps", "minutes"], required=True, flag_values=flag_values
  )
  flags.DEFINE_integer(
    "eval_steps",
    0,
    "Evaluate every so many steps, for the plot; 0 for only the end. Keeps a "
    "checkpoint for each.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "eval_batch_size",
    256,
    "Videos to evaluate at a time; changes no result.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "overwrite",
    False,
    "Do runs anew that were made with other flags: all of them if flags of "
    "training differ, else the evaluation.",
    flag_values=flag_values,
  )


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table: a label and train.py's flags, "model" among them."""

  label: str
  flags: dict[str, typing.Any]


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
  overwrite: bool
  common: dict[str, typing.Any]  # Flags of every run.

  def runs(self) -> list["Run"]:
    """All runs. Each row has its first seed before one has its second."""
    return [Run(self, row, seed) for seed in self.seeds for row in self.rows]


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
    return os.path.join(
      self.plan.output_dir, self.row.label, f"seed-{self.seed}"
    )

  def path(self, name: str) -> str:
    return os.path.join(self.directory, name)

  def command(self) -> list[str]:
    """The train.py that it is."""
    given = {
      **self.row.flags,
      "train_dir": self.directory,
      **_own_flags(self.plan, self.seed),
    }
    return [sys.executable, os.path.join(_ROOT, "train.py"), *_as_list(given)]

  def settings(self) -> dict[str, dict[str, typing.Any]]:
    """What its results depend on: flags of training and of evaluation."""
    values = _model_values(self.row.flags)
    unused = set(values) - model_flags.used_flags(values)
    defaults = _model_values({})
    training = {
      name: value
      for name, value in self.row.flags.items()
      if name not in unused and value != defaults.get(name)
    }
    training |= _own_flags(self.plan, self.seed)
    if self.plan.minutes:
      training["minutes"] = self.plan.minutes
    evaluation = {
      name: getattr(self.plan, name)
      for name in ("eval_data_pattern", "train_eval_data_pattern", "holdout")
    }
    return {"training": training, "evaluation": evaluation}


def _own_flags(plan, seed):
  """The flags of train.py that a comparison sets, but for the directory."""
  own = {
    "train_data_pattern": plan.train_data_pattern,
    "seed": seed,
    # Steps or time end a run, not the data.
    "num_epochs": 0,
    "export_model_steps": 0,
    "start_new_model": False,
  }
  if plan.max_steps:
    own["max_steps"] = plan.max_steps
  if plan.eval_steps:
    own |= {"save_checkpoints_steps": plan.eval_steps, "keep_checkpoints": 0}
  return own


def _as_list(given):
  return [f"--{name}={value}" for name, value in given.items()]


def split_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
  """(arguments of this program, what is behind the first --)."""
  if "--" not in argv:
    return argv, []
  at = argv.index("--")
  return argv[:at], argv[at + 1 :]


def _train_flag_values():
  """train.py's flags, to parse a command line with; only models' have values.

  train.py itself defines them among this program's, of which some have the
  same names.
  """
  known = flags.FlagValues()
  model_flags.define(known)
  define = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
  }
  for field in dataclasses.fields(train.Config):
    kinds = {field.type, *typing.get_args(field.type)}
    kind = (kinds - {types.NoneType}) & set(define)
    define[kind.pop()](field.name, None, "", flag_values=known)
  flags.DEFINE_alias("max_step", "max_steps", flag_values=known)
  return known


def _model_values(given):
  """The values of all model flags, with defaults for those not given."""
  known = flags.FlagValues()
  model_flags.define(known)
  values = model_flags.from_flags(known)
  return values | {name: given[name] for name in given if name in values}


def parse_train_flags(arguments: list[str], source: str) -> dict:
  """The flags of train.py that some arguments give.

  Args:
    arguments: list of str.
    source: where they were given, for errors.

  Returns:
    dict of name to value.

  Raises:
    program.UserError: train.py has no such flag, or no such value for it.
  """
  known = _train_flag_values()
  try:
    rest = known(["train.py", *arguments])[1:]
  except flags.Error as error:
    raise program.UserError(f"{source}: {error}") from None
  if rest:
    raise program.UserError(
      f"{source}: {rest} are not flags; those of train.py start with --."
    )
  values = model_flags.from_flags(known)
  for field in dataclasses.fields(train.Config):
    values[field.name] = known[field.name].value
  return {name: values[name] for name in values if known[name].present}


def parse_variant(text: str) -> tuple[str, list[str]]:
  """(label, arguments) of 'LABEL: --model=X --flag=value ...'."""
  label, colon, rest = text.partition(":")
  if not colon:
    raise program.UserError(
      f"--variant={text!r}: need 'LABEL: --model=X --flag=value ...'."
    )
  try:
    return label.strip(), shlex.split(rest)
  except ValueError as error:
    raise program.UserError(f"--variant={text!r}: {error}.") from None


def make_rows(
  models: list[str],
  variants: list[str],
  common: dict[str, typing.Any],
  reserved: typing.Collection[str] = (),
) -> tuple[Row, ...]:
  """The rows of --models and --variant.

  Args:
    models: names.
    variants: what --variant said.
    common: flags of train.py for every row.
    reserved: flags that a variant cannot set; a warning names them.

  Raises:
    program.UserError: no row, a label that cannot be used, an unknown model, or
      flags that a model refuses.
  """
  rows = []
  for name in models:
    # The parser knows other names of models too.
    own = parse_train_flags([f"--model={name}"], "--models")
    rows.append(Row(name, {**common, **own}))
  for text in variants:
    label, arguments = parse_variant(text)
    source = f"--variant={label!r}"
    own = parse_train_flags(arguments, source)
    if "model" not in own:
      raise program.UserError(f"{source} has no --model.")
    own = _without_reserved(own, reserved, source)
    rows.append(Row(label, {**common, **own}))
  if not rows:
    raise program.UserError("Neither --models nor --variant has a model.")
  labels = [row.label for row in rows]
  for row in rows:
    _check_label(row.label, labels)
    try:
      values = _model_values(row.flags)
      model_flags.build_model(values)
      model_flags.build_reader(values)
    except ValueError as error:
      raise program.UserError(f"{row.label}: {error}") from None
  return tuple(rows)


def _check_label(label, labels):
  if not label or not label.isprintable() or re.search(r"^\.|[/\\]", label):
    raise program.UserError(
      f"Label {label!r} cannot be the name of a directory: it needs at least "
      "one character, no / or \\, and no dot at its start."
    )
  if labels.count(label) > 1:
    raise program.UserError(
      f"Label {label!r} is used {labels.count(label)} times: give a variant "
      "another one."
    )


def _without_reserved(given, reserved, source):
  """Flags but for those that a comparison sets, of which it warns."""
  ignored = sorted(set(given) & set(reserved))
  if ignored:
    logging.warning(
      "%s: ignored %s: compare_models.py sets that itself.",
      source,
      ", ".join(f"--{name}" for name in ignored),
    )
  return {name: given[name] for name in given if name not in ignored}


def plan_from_flags(
  passed_on: list[str], flag_values: flags.FlagValues = FLAGS
) -> Plan:
  """Reads and checks all that can be checked before anything is written.

  Args:
    passed_on: what the command line has behind --.
    flag_values: the parsed flags.

  Raises:
    program.UserError: flags that cannot be used.
    ValueError: a pattern without files.
  """
  own = {
    field.name: flag_values[field.name].value
    for field in dataclasses.fields(Plan)
    if field.name not in ("rows", "seeds", "common")
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
  plan = Plan(**own, rows=(), seeds=seeds, common={})
  # --max_steps would end a run of --minutes too.
  reserved = {"train_dir", "max_steps", *_own_flags(plan, 0)}
  common = _without_reserved(
    parse_train_flags(passed_on, "behind --"),
    {*reserved, "model"},
    "behind --",
  )
  rows = make_rows(
    model_flags.parse_names(flag_values["models"].value),
    flag_values["variant"].value,
    common,
    reserved,
  )
  if plan.holdout:
    for row in rows:
      if not row.flags.get("holdout_fraction"):
        raise program.UserError(
          f"{row.label}: --holdout needs -- --holdout_fraction above 0."
        )
  return dataclasses.replace(plan, rows=rows, common=common)


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


def settings_that_differ(run: Run) -> dict[str, list[tuple]]:
  """What a run's directory was made with and is not asked for now.

  Args:
    run: the run.

  Returns:
    dict of "training" and "evaluation" to [(flag, value then, value now)];
    empty lists for a directory that is not there yet.

  Raises:
    program.UserError: the directory holds something else.
  """
  state = _read_json(run.path(_STATE_FILE))
  if state is None:
    if os.path.isdir(run.directory) and os.listdir(run.directory):
      raise program.UserError(
        f"{run.directory} has no {_STATE_FILE}: what is in it is not of this "
        "program. Give another --output_dir."
      )
    return {"training": [], "evaluation": []}
  # As they look when they were written and read.
  now = json.loads(json.dumps(run.settings()))
  then = state["settings"]
  return {
    kind: [
      (f"--{name}", *(v[kind].get(name, "(not given)") for v in (then, now)))
      for name in sorted({*then[kind], *now[kind]})
      if then[kind].get(name) != now[kind].get(name)
    ]
    for kind in now
  }


def check_settings(runs: list[Run]):
  """Refuses runs that were made with other flags.

  Raises:
    program.UserError: names them, and what differs.
  """
  found = []
  for run in runs:
    differing = settings_that_differ(run)
    rows = [*differing["training"], *differing["evaluation"]]
    if rows:
      found.append((run, rows))
  if found:
    import tabulate

    run, rows = found[0]
    table = tabulate.tabulate(
      rows, ["flag", "made with", "now"], "plain", disable_numparse=True
    )
    others = f", as were {len(found) - 1} further ones" if found[1:] else ""
    raise program.UserError(
      f"{run.directory} was made with other flags{others}:\n{table}\n"
      "Give those flags as they were, another --output_dir, or --overwrite."
    )


def prepare(run: Run) -> dict[str, typing.Any]:
  """Makes a run's directory ready, clearing what was made with other flags.

  Returns:
    The run's state: its `settings`, `seconds` trained, `peak_memory` in bytes,
    and whether it is `trained`.
  """
  differing = settings_that_differ(run)
  if differing["training"]:
    shutil.rmtree(run.directory)
  elif differing["evaluation"]:
    for name in ("eval_held_out", "eval_training"):
      shutil.rmtree(run.path(name), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
      os.remove(run.path(_RESULT_FILE))
  state = {
    "seconds": 0.0,
    "peak_memory": 0,
    "trained": False,
    **(_read_json(run.path(_STATE_FILE)) or {}),
    "settings": run.settings(),
  }
  _write_json(run.path(_STATE_FILE), state)
  return state


class RunFailed(Exception):
  """A run ended otherwise than it should; its message is the log's end."""


def _tail(path, num_lines):
  """The last lines of a log."""
  with open(path, "rb") as stream:
    stream.seek(max(0, os.path.getsize(path) - 20000))
    text = stream.read().decode(errors="replace")
  return [line for line in text.splitlines() if line.strip()][-num_lines:]


def _failed(what, path):
  return RunFailed("\n".join([what, *_tail(path, _TAIL_LINES)]))


class _TrainProcess:
  """A train.py: how long it has trained, and the most memory it took."""

  def __init__(self, run):
    self._log = open(run.path(_TRAIN_LOG), "ab")
    try:
      # Held by train.py as well, as long as it lives.
      fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise program.UserError(
        f"{run.directory} is being trained by another process."
      ) from None
    self._events = run.path("events.out.tfevents.*")
    self._earlier = set(glob.glob(self._events))
    self._began = None
    self._ended = None
    self._high_water = 0
    self.peak_memory = 0
    self.returncode = None
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    # In a session of its own: Ctrl-C comes from here, once, so that it saves.
    self._process = subprocess.Popen(
      run.command(),
      stdin=subprocess.DEVNULL,
      stdout=self._log,
      stderr=self._log,
      env=environment,
      start_new_session=True,
    )

  @property
  def seconds(self):
    """Since its first step began."""
    if self._began is None:
      return 0.0
    return (self._ended or time.monotonic()) - self._began

  def poll(self, options=os.WNOHANG):
    """Whether it has ended."""
    if self.returncode is not None:
      return True
    if self._began is None and set(glob.glob(self._events)) - self._earlier:
      self._began = time.monotonic()
    self._high_water = self._read_high_water() or self._high_water
    pid, status, usage = os.wait4(self._process.pid, options)
    if not pid:
      return False
    self._ended = self._ended or time.monotonic()
    self.returncode = os.waitstatus_to_exitcode(status)
    self._process.returncode = self.returncode
    peak = usage.ru_maxrss * _MAXRSS_UNIT
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    # The kernel counts what this process had when it started the other: only
    # beyond that is it the other's own.
    self.peak_memory = peak if peak > ours else self._high_water or peak
    self._log.close()
    return True

  def terminate(self):
    """Asks it to save and end; that is no time of training any more."""
    self._ended = time.monotonic()
    self._process.terminate()

  def stop(self):
    """Ends it: by asking, and if interrupted once more, by force."""
    try:
      if not self.poll():
        _say("Asking train.py to save and end; Ctrl-C once more kills it.")
        self.terminate()
        self.poll(options=0)
    finally:
      if not self.poll():
        self._process.kill()
        self.poll(options=0)

  def _read_high_water(self):
    """Its peak memory so far in bytes; 0 where the system does not tell."""
    try:
      with open(f"/proc/{self._process.pid}/status") as stream:
        found = re.search(r"VmHWM:\s+(\d+) kB", stream.read())
    except OSError:
      return 0
    return int(found[1]) * 1024 if found else 0


def _step_of(run):
  """The step of the newest checkpoint; 0 if there is none."""
  checkpoint = train_dir.latest_checkpoint(run.directory)
  return int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0


def _logged_step(run):
  """The step that the log tells of last."""
  found = re.findall(
    r"training step (\d+) ", "\n".join(_tail(run.path(_TRAIN_LOG), 50))
  )
  return int(found[-1]) if found else 0


def train_run(run: Run, state: dict, tell=lambda amount: None):
  """Trains, from where the run was stopped, to its end.

  Args:
    run: the run, prepared.
    state: what `prepare` returned; is updated, in its file too.
    tell: called now and then with what is done: steps, or seconds.

  Raises:
    RunFailed: train.py failed, or ended before its last step.
  """
  limit = run.plan.minutes and max(
    60 * run.plan.minutes - state["seconds"], _LEAST_SECONDS
  )
  before = state["seconds"]
  process = _TrainProcess(run)
  asked = False
  saved = time.monotonic()
  try:
    while not process.poll():
      state["seconds"] = before + process.seconds
      tell(state["seconds"] if limit else _logged_step(run))
      if limit and not asked and process.seconds >= limit:
        process.terminate()
        asked = True
      if time.monotonic() - saved > 10:
        # Should this process be killed, most of the time is known.
        _write_json(run.path(_STATE_FILE), state)
        saved = time.monotonic()
      time.sleep(0.1)
  finally:
    process.stop()
    state["seconds"] = before + process.seconds
    state["peak_memory"] = max(state["peak_memory"], process.peak_memory)
    _write_json(run.path(_STATE_FILE), state)
  log = run.path(_TRAIN_LOG)
  if process.returncode:
    raise _failed(f"train.py ended with status {process.returncode}.", log)
  step = _step_of(run)
  if not step or (
    step < run.plan.max_steps if run.plan.max_steps else not asked
  ):
    raise _failed(f"train.py was stopped at step {step}.", log)
  state["trained"] = True
  _write_json(run.path(_STATE_FILE), state)


def examples_per_second(directory: str) -> float | None:
  """Median of what train.py measured; warming up is left out."""
  rates = []
  for path in sorted(glob.glob(f"{directory}/events.out.tfevents.*")):
    own = [
      value.simple_value
      for event in tf.train.summary_iterator(path)
      for value in event.summary.value
      if value.tag == _RATE_TAG
    ]
    rates += own[1:]
  return statistics.median(rates) if rates else None


def count_parameters(values: dict, paths: list[str]) -> int:
  """The number of trainable parameters of a model, as train.py builds it."""
  reader = model_flags.build_reader(values)
  with tf.Graph().as_default():
    data = reader.batches(paths[:1], batch_size=1)
    towers.build(
      [tf.data.make_initializable_iterator(data).get_next()],
      model_flags.build_model(values),
      losses.get_loss(values["label_loss"]),
      devices=["/cpu:0"],
      merging_device="/cpu:0",
      regularization_penalty=1.0,
      num_classes=reader.num_classes,
    )
    return sum(v.shape.num_elements() for v in tf.trainable_variables())


def describe_machine() -> str:
  """Processor, cores and GPUs."""
  cpu = platform.processor() or platform.machine()
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as stream:
    found = re.search(r"^model name\s*:\s*(.+)$", stream.read(), re.MULTILINE)
    cpu = found[1] if found else cpu
  cores = os.cpu_count()
  if hasattr(os, "sched_getaffinity"):
    cores = len(os.sched_getaffinity(0))
  names = [
    tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    for gpu in tf.config.list_physical_devices("GPU")
  ]
  return f"{cpu}, {cores} cores, GPUs: {', '.join(names) or 'none'}"


def _checkpoints(run):
  """[path prefix] of the checkpoints to evaluate, the last one last."""
  last = train_dir.latest_checkpoint(run.directory)
  prefix, _, last_step = last.rpartition("-")
  steps = [
    int(path.removesuffix(".index").rpartition("-")[2])
    for path in glob.glob(f"{glob.escape(prefix)}-*.index")
  ]
  period = run.plan.eval_steps
  steps = {
    step
    for step in steps
    if period and step % period == 0 and step < int(last_step)
  }
  return [f"{prefix}-{step}" for step in sorted(steps | {int(last_step)})]


def evaluate_run(run: Run, state: dict):
  """Evaluates a trained run's checkpoints, and writes its result.json."""
  plan = run.plan
  values = model_flags.load(run.directory)
  scope = "SegEval" if values["segment_labels"] else "Eval"

  def evaluate(checkpoint, pattern, name, holdout):
    step = int(checkpoint.rpartition("-")[2])
    known = _read_json(run.path(f"{name}/metrics-{step}.json"))
    if known:
      return known
    results = eval_program.evaluate(
      checkpoint,
      values,
      readers.expand_data_pattern(pattern),
      batch_size=plan.eval_batch_size,
      num_readers=8,
      holdout=holdout,
    )
    eval_program.write_results(results, run.path(name), scope)
    return results

  checkpoints = _checkpoints(run)
  held_out = [
    evaluate(each, plan.eval_data_pattern, "eval_held_out", plan.holdout)
    for each in checkpoints
  ]
  training = evaluate(
    checkpoints[-1], plan.train_eval_data_pattern, "eval_training", False
  )
  paths = readers.expand_data_pattern(plan.train_data_pattern)
  _write_json(
    run.path(_RESULT_FILE),
    {
      "label": run.row.label,
      "seed": run.seed,
      "settings": run.settings(),
      "held_out": held_out[-1],
      "training": training,
      "curve": [[each["step"], each["gap"]] for each in held_out],
      "parameters": count_parameters(values, paths),
      "examples_per_second": examples_per_second(run.directory),
      "peak_memory": state["peak_memory"],
      "seconds": state["seconds"],
      "machine": describe_machine(),
    },
  )


def _evaluate_logged(run, state):
  """`evaluate_run` as the whole of a process."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends it.
  flags.FLAGS.mark_as_parsed()
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  tf.logging.set_verbosity(tf.logging.ERROR)
  evaluate_run(run, state)


@contextlib.contextmanager
def _output_to(path):
  """What is started meanwhile appends its output to a file."""
  sys.stdout.flush()
  sys.stderr.flush()
  kept = {number: os.dup(number) for number in (1, 2)}
  try:
    with open(path, "ab") as log:
      for number in kept:
        os.dup2(log.fileno(), number)
    yield
  finally:
    for number, copy in kept.items():
      os.dup2(copy, number)
      os.close(copy)


def _evaluate_apart(run, state):
  """`evaluate_run` in a process: a GPU is free again when it has ended.

  Raises:
    RunFailed: it failed.
  """
  process = multiprocessing.get_context("spawn").Process(
    target=_evaluate_logged, args=(run, state), daemon=True
  )
  try:
    with _output_to(run.path(_EVAL_LOG)):
      process.start()
    process.join()
  finally:
    if process.pid:
      process.kill()
      process.join()
  if process.exitcode:
    raise _failed(
      f"Evaluation ended with status {process.exitcode}.", run.path(_EVAL_LOG)
    )


def summarize(results: list[dict]) -> dict[str, float | None]:
  """What the table says of a row, from its runs' results.

  Args:
    results: what result.json holds, of one run or more.

  Returns:
    dict of means over the runs, `gap_deviation` (of the sample; None for one
    run), and `peak_memory_gb`, the highest.
  """

  def mean(numbers):
    numbers = [number for number in numbers if number is not None]
    return statistics.fmean(numbers) if numbers else None

  def held_out(name):
    return [result["held_out"][name] for result in results]

  gap = held_out("gap")
  training_gap = mean(result["training"]["gap"] for result in results)
  return {
    "gap": mean(gap),
    "gap_deviation": statistics.stdev(gap) if len(gap) > 1 else None,
    "map": mean(held_out("map")),
    "hit_at_one": mean(held_out("avg_hit_at_one")),
    "perr": mean(held_out("avg_perr")),
    "training_gap": training_gap,
    "gap_difference": training_gap - mean(gap),
    "parameters": results[0]["parameters"],
    "examples_per_second": mean(r["examples_per_second"] for r in results),
    "peak_memory_gb": max(result["peak_memory"] for result in results) / 1e9,
    "steps": mean(held_out("step")),
  }


def average_curve(results: list[dict]) -> list[tuple[float, float, float]]:
  """[(step, mean GAP, deviation)] over a row's runs.

  Steps are those that all runs have, and the mean of their last ones, which
  differ when time is equal rather than steps. The deviation of one run is 0.
  """
  curves = [dict(map(tuple, result["curve"][:-1])) for result in results]
  common = sorted(set.intersection(*map(set, curves)))
  points = [(step, [curve[step] for curve in curves]) for step in common]
  last = [result["curve"][-1] for result in results]
  points.append(
    (statistics.fmean(step for step, _ in last), [gap for _, gap in last])
  )
  return [
    (
      step,
      statistics.fmean(gaps),
      statistics.stdev(gaps) if len(gaps) > 1 else 0.0,
    )
    for step, gaps in points
  ]


class Report:
  """The table and the plot of the runs so far."""

  def __init__(self, plan: Plan):
    self._plan = plan
    self._results = {row.label: [] for row in plan.rows}
    self._failures = {row.label: {} for row in plan.rows}

  def add(self, run: Run, result: dict):
    """Adds a finished run."""
    self._results[run.row.label].append(result)

  def add_failure(self, run: Run, message: str):
    """Adds a run that failed, with the end of its log."""
    self._failures[run.row.label][run.seed] = message

  @property
  def num_failed(self) -> int:
    return sum(map(len, self._failures.values()))

  def write(self):
    """Writes comparison.md, comparison.csv and comparison.png."""
    for name, text in [
      ("comparison.md", self.markdown()),
      ("comparison.csv", self.csv()),
    ]:
      files.write_text(os.path.join(self._plan.output_dir, name), text)
    path = os.path.join(self._plan.output_dir, "comparison.png")
    with files.ReplacedFile(path, binary=True) as stream:
      self._plot(stream)

  def table(self) -> str:
    """The table, in Markdown."""
    import tabulate

    titles = ["model", "GAP ± deviation", *(title for title, *_ in _COLUMNS)]
    return tabulate.tabulate(
      [self._cells(row.label) for row in self._plan.rows],
      titles,
      "pipe",
      colalign=["left", *["right"] * (len(titles) - 1)],
      disable_numparse=True,
    )

  def _cells(self, label):
    results, failures = self._results[label], self._failures[label]
    name = label.replace("|", "\\|")
    num_seeds = len(self._plan.seeds)
    if failures:
      name += f" ({len(failures)} of {num_seeds} failed)"
    elif len(results) < num_seeds:
      name += f" ({len(results)} of {num_seeds} done)"
    if not results:
      gap = "failed" if failures else "-"
      return [name, gap, *["-"] * len(_COLUMNS)]
    found = summarize(results)
    deviation = _format("{:.4f}", found["gap_deviation"])
    return [
      name,
      f"{found['gap']:.4f} ± {deviation}",
      *(_format(form, found[key]) for _, form, key in _COLUMNS),
    ]

  def csv(self) -> str:
    """The table's numbers with all their digits."""
    stream = io.StringIO()
    keys = ["gap", "gap_deviation", *(key for *_, key in _COLUMNS)]
    writer = csv.DictWriter(
      stream, ["label", "finished", "failed", *keys], lineterminator="\n"
    )
    writer.writeheader()
    for label, results in self._results.items():
      writer.writerow(
        {
          "label": label,
          "finished": len(results),
          "failed": len(self._failures[label]),
          **(summarize(results) if results else {}),
        }
      )
    return stream.getvalue()

  def markdown(self) -> str:
    """What was compared, the table, failures and the plot."""
    plan = self._plan
    results = [r for own in self._results.values() for r in own]
    extent = (
      f"{plan.max_steps:,} steps" if plan.max_steps else f"{plan.minutes:g} min"
    )
    which = ", those held out of training" if plan.holdout else ""
    lines = [
      "# Comparison of models",
      "",
      f"- Trained on `{plan.train_data_pattern}`, {extent} each, seeds "
      + ", ".join(map(str, plan.seeds)),
      f"- Evaluated on `{plan.eval_data_pattern}`{which}: "
      + _num_videos(results, "held_out"),
      f"- Training GAP of the same checkpoints on "
      f"`{plan.train_eval_data_pattern}`: {_num_videos(results, 'training')}",
      f"- Flags of all: `{shlex.join(_as_list(plan.common)) or 'none'}`",
    ]
    for row in plan.rows:
      own = {
        name: value
        for name, value in row.flags.items()
        if name not in plan.common or plan.common[name] != value
      }
      if own != {"model": row.label}:
        lines.append(f"- {row.label}: `{shlex.join(_as_list(own))}`")
    for machine in sorted({result["machine"] for result in results}):
      lines.append(f"- Machine: {machine}")
    lines += ["", self.table(), ""]
    for label, failures in self._failures.items():
      for seed, message in failures.items():
        cause = _cause(message).replace("`", "'")
        lines.append(f"- Failed: {label} seed {seed}: `{cause}`")
    lines += [
      "",
      "GAP ± sample deviation over the seeds; the other columns are means over "
      "the seeds, peak memory the highest. Metrics are those of the last "
      "checkpoint, training GAP too; examples/s is the median of train.py's "
      "lines after the first; memory is the training process's on the host.",
      "",
      "![GAP on held-out data against steps](comparison.png)",
    ]
    return "\n".join(lines) + "\n"

  def _plot(self, stream):
    # Loaded late, as evaluating processes do without it.
    from matplotlib import figure

    plot = figure.Figure(figsize=(8, 5), layout="constrained")
    axes = plot.add_subplot(
      xlabel="steps", ylabel="GAP on held-out data", title="mean ± deviation"
    )
    for i, (label, results) in enumerate(self._results.items()):
      if not results:
        continue
      steps, means, deviations = zip(*average_curve(results))
      color = f"C{i}"
      axes.errorbar(
        steps[-1:], means[-1:], deviations[-1:], color=color, capsize=3
      )
      # A leading underscore would hide the label.
      shown = label if not label.startswith("_") else f" {label}"
      axes.plot(steps, means, marker=".", color=color, label=shown)
      axes.fill_between(
        steps,
        [mean - deviation for mean, deviation in zip(means, deviations)],
        [mean + deviation for mean, deviation in zip(means, deviations)],
        color=color,
        alpha=0.2,
        linewidth=0,
      )
    axes.grid(alpha=0.3)
    if any(self._results.values()):
      axes.legend()
    plot.savefig(stream, format="png", dpi=150)


def _format(form, number):
  return "-" if number is None else form.format(number)


def _cause(message):
  """The last line that tells of an error; the last one, if none does."""
  lines = message.splitlines()
  errors = [line for line in lines if re.search("error", line, re.IGNORECASE)]
  return (errors or lines)[-1]


def _num_videos(results, kind):
  numbers = sorted({result[kind]["num_videos"] for result in results})
  return " or ".join(f"{n:,}" for n in numbers or [0]) + " videos"


def compare(plan: Plan) -> int:
  """Does all runs that are not done, and writes the report.

  Returns:
    The number of runs that failed.

  Raises:
    program.UserError: runs that were made with other flags.
  """
  runs = plan.runs()
  if not plan.overwrite:
    check_settings(runs)
  report = Report(plan)
  pending = [run for run in runs if not _result(run)]
  whole = plan.max_steps or 60 * plan.minutes
  left = {run.name: whole - _amount_done(run) for run in pending}
  with program.progress_bar(
    round(sum(left.values())),
    "steps" if plan.max_steps else "s",
  ) as bar:
    goal = 0.0  # What the bar says when a run has ended.
    for i, run in enumerate(runs, start=1):
      title = f"[{i}/{len(runs)}] {run.name}"
      start = time.monotonic()
      result = _result(run)
      if result:
        note = "done before"
      else:
        try:
          goal += left[run.name]
          _do(run, bar, title, goal)
        except RunFailed as error:
          report.add_failure(run, str(error))
          _say(
            f"{title}: FAILED: {error}\nThe whole log is in {run.directory}."
          )
          report.write()
          continue
        result = _result(run)
        note = f"{time.monotonic() - start:.0f} s"
      report.add(run, result)
      if run.name in left:
        report.write()
      _say(
        f"{title}: GAP {result['held_out']['gap']:.4f} at step "
        f"{result['held_out']['step']}, {note}"
      )
  report.write()
  print(f"\n{report.table()}\n")
  print(f"Wrote {os.path.join(plan.output_dir, 'comparison')}.md, .csv, .png.")
  return report.num_failed


def _result(run):
  """The result of a run that is finished with these settings, or None."""
  result = _read_json(run.path(_RESULT_FILE))
  if result and result["settings"] == json.loads(json.dumps(run.settings())):
    return result
  return None


def _amount_done(run):
  """Steps, or seconds, that a run has behind it."""
  state = _read_json(run.path(_STATE_FILE))
  if not state or settings_that_differ(run)["training"]:
    return 0
  if run.plan.minutes:
    return min(state["seconds"], 60 * run.plan.minutes)
  try:
    return _step_of(run)
  except ValueError:
    return 0  # Of a damaged checkpoint train.py will tell.


def _do(run, bar, title, goal):
  """Trains and evaluates one run; then the bar is at the goal."""
  state = prepare(run)
  whole = run.plan.max_steps or 60 * run.plan.minutes

  def tell(amount):
    bar.update(max(0, round(goal - max(0, whole - amount)) - bar.n))

  try:
    if not state["trained"]:
      bar.set_description(title)
      train_run(run, state, tell)
    tell(whole)
    bar.set_description(f"{title}, evaluating")
    _evaluate_apart(run, state)
  except RunFailed:
    tell(whole)  # So much less is left to do.
    raise


def _say(text):
  tqdm.tqdm.write(text, file=sys.stderr)


@contextlib.contextmanager
def _signals_as_interrupts():
  """SIGTERM, and the end of the terminal, do what Ctrl-C does."""

  def interrupt(unused_number, unused_frame):
    raise KeyboardInterrupt

  numbers = (signal.SIGTERM, signal.SIGHUP)
  old = {number: signal.signal(number, interrupt) for number in numbers}
  try:
    yield
  finally:
    for number in numbers:
      signal.signal(number, old[number])


def main(passed_on: list[str], flag_values: flags.FlagValues = FLAGS) -> int:
  """Compares: the exit status."""
  for name in ("matplotlib", "tabulate"):
    if importlib.util.find_spec(name) is None:
      raise program.UserError(
        f"Need the package {name}: pip install -e '{_ROOT}[plots]'."
      )
  plan = plan_from_flags(passed_on, flag_values)
  try:
    with _signals_as_interrupts():
      num_failed = compare(plan)
  except KeyboardInterrupt:
    _say("Stopped. The same command goes on from here.")
    return _INTERRUPTED
  return program.FAILED if num_failed else 0


if __name__ == "__main__":
  define_flags()
  sys.argv, _PASSED_ON = split_arguments(sys.argv)
  program.run(lambda: main(_PASSED_ON))
