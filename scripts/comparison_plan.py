"""What `compare_models.py` compares: its flags, rows and runs."""

import dataclasses
import os
import re
import shlex
from typing import Any

from absl import flags

import flag_fields
import model_flags
import program
import readers
import train


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Comparison"):
  """What to compare, and how."""

  output_dir: str = flag_fields.path(
    None, "Directory for the runs, the table and the plot.", required=True
  )
  train_data_pattern: str = flag_fields.paths(
    None,
    "Files to train on: comma-separated globs or directories.",
    required=True,
  )
  eval_data_pattern: str = flag_fields.paths(
    None, "Files to evaluate on, which training must not see.", required=True
  )
  train_eval_data_pattern: str = flag_fields.paths(
    None,
    "Files for the training GAP; --train_data_pattern if not given. A few "
    "shards will do where there are many.",
  )
  holdout: bool = flag_fields.boolean(
    False,
    "Evaluate on those videos of --eval_data_pattern that training held out by "
    "-- --holdout_fraction, and no others. The training GAP is of all videos "
    "of its files, held out or not.",
  )
  models: str = flag_fields.text(
    # Table 1 of the paper.
    "NetVLADModelLF,SecondOrderModel,AttentionEnhancedNetVLADModel,"
    "AttentionNetVLADModel",
    "Comma-separated models, a row each; '' for those of --variant alone.",
  )
  seeds: str = flag_fields.integers(
    "0,1,2", "Comma-separated train.py --seed of each row's runs."
  )
  max_steps: int | None = flag_fields.integer(
    None, "Equal steps: every run ends at this one.", low=1
  )
  minutes: float | None = flag_fields.real(
    None, "Equal time: every run trains so long, evaluation aside.", low=0.1
  )
  eval_steps: int = flag_fields.integer(
    0,
    "Evaluate every so many steps, for the plot; 0 for only the end. Keeps a "
    "checkpoint for each.",
    low=0,
  )
  eval_batch_size: int = flag_fields.integer(
    256, "Videos to evaluate at a time; changes no result.", low=1
  )

  def __post_init__(self):
    super().__post_init__()
    if (self.max_steps is None) == (self.minutes is None):
      raise ValueError("Give --max_steps or --minutes, and not both.")
    seeds = flag_fields.parse_ints(self.seeds)
    if not seeds or len(set(seeds)) < len(seeds):
      raise ValueError(f"--seeds: need different numbers, got {seeds}.")
    for name, pattern in self.patterns.items():
      readers.expand_data_pattern(pattern, name)

  @property
  def patterns(self) -> dict[str, str]:
    """The files to train and to evaluate on, by the flag."""
    return {
      "train_data_pattern": self.train_data_pattern,
      "eval_data_pattern": self.eval_data_pattern,
      "train_eval_data_pattern": self.train_eval_data_pattern
      or self.train_data_pattern,
    }

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


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One row of the table with one seed.

  Attributes:
    config: the flags.
    label: the row's.
    common: flags of train.py that every row has.
    own: those of this one, which prevail; "model" among them.
    seed: train.py's.
  """

  config: Config
  label: str
  common: dict[str, Any]
  own: dict[str, Any]
  seed: int

  @property
  def directory(self) -> str:
    """Its train_dir."""
    return f"{self.config.output_dir}/{self.label}/seed-{self.seed}"

  def path(self, name: str) -> str:
    """A file in its directory."""
    return os.path.join(self.directory, name)

  def train_flags(self) -> dict[str, Any]:
    """Flags of train.py, --train_dir aside."""
    given = {**self.common, **self.own, **self.config.train_flags()}
    return {**given, "seed": self.seed}

  def settings(self) -> dict[str, Any]:
    """What its results depend on: flags of train.py, and of the evaluation."""
    own = {name: getattr(self.config, name) for name in ("minutes", "holdout")}
    return {**self.train_flags(), **own, **self.config.patterns}


def as_flags(given: dict[str, Any]) -> list[str]:
  """["--name=value"]."""
  return [f"--{name}={value}" for name, value in given.items()]


def parse_train_flags(
  arguments: list[str], source: str, reserved: Any = (), build: bool = False
) -> dict[str, Any]:
  """The flags of train.py that some arguments give: name to value.

  Args:
    arguments: list of str.
    source: where they were given, for errors.
    reserved: names of flags that may not be given.
    build: bool, check the model that they describe, too.

  Raises:
    program.UserError: train.py refuses them, or that model.
  """
  known = flags.FlagValues()
  train.define_flags(known)
  try:
    if rest := known(["train.py", *arguments])[1:]:
      raise ValueError(
        f"{rest} are not flags; those of train.py start with --."
      )
    values = model_flags.from_flags(known)
    names = {*values, *flag_fields.specs(train.Config)}
    names = flag_fields.given(names, known)
    if refused := sorted(names & {*reserved}):
      raise ValueError(
        f"leave out --{', --'.join(refused)}: compare_models.py says that."
      )
    if build:
      model_flags.build_model(values)
      model_flags.build_reader(values)
  except (flags.Error, ValueError) as error:
    raise program.UserError(f"{source}: {error}") from None
  order = sorted(names, key=lambda name: (name != "model", name))
  return {name: known[name].value for name in order}


def make_runs(
  config: Config, variants: list[str], passed_on: list[str]
) -> list[Run]:
  """All runs. Each row has its first seed before one has its second.

  Args:
    config: the flags.
    variants: list of 'LABEL: --model=X --flag=value ...'.
    passed_on: what the command line has after --.

  Raises:
    program.UserError: no row, a label that cannot be used, an unknown model,
      flags that are reserved, or that a model refuses.
  """
  # --max_steps would end a run of --minutes too.
  reserved = {"train_dir", "seed", "max_steps", *config.train_flags()}
  common = parse_train_flags(passed_on, "after --", {*reserved, "model"})
  models = flag_fields.parse_names(config.models)
  rows = {}
  for text in [f"{name}: --model={name}" for name in models] + variants:
    label, colon, rest = text.partition(":")
    label = label.strip()
    # It is the name of a directory.
    if not (colon and label.isprintable()) or label in rows:
      raise program.UserError(
        f"{text!r}: need 'LABEL: --model=X --flag=value ...', with a LABEL for "
        "each row."
      )
    if not re.match(r"[^./\\][^/\\]*$", label):
      raise program.UserError(
        f"Label {label!r} cannot be the name of a directory: it needs at least "
        "one character, no / or \\, and no dot at its start."
      )
    try:
      arguments = shlex.split(rest)
    except ValueError as error:
      raise program.UserError(f"{text!r}: {error}.") from None
    own = rows[label] = parse_train_flags(arguments, label, reserved)
    if "model" not in own:
      raise program.UserError(f"Variant {label!r} has no --model.")
    both = {**common, **own}
    parse_train_flags(as_flags(both), label, build=True)
    if config.holdout and not both.get("holdout_fraction"):
      raise program.UserError(
        f"{label}: --holdout needs -- --holdout_fraction above 0."
      )
  if not rows:
    raise program.UserError("Neither --models nor --variant has a model.")
  return [
    Run(config, label, common, own, seed)
    for seed in flag_fields.parse_ints(config.seeds)
    for label, own in rows.items()
  ]
