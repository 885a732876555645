"""Values of the flags that define a reader and a model.

train.py saves them in `train_dir/model_flags.json`; evaluation, inference and
export rebuild from that file, so that nobody retypes an architecture. The flags
are the fields of `Reading`, `Choice` and `mixture.Config`, and of every
registered model's `Config`.
"""

import dataclasses
import inspect
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow.compat.v1 as tf
from absl import flags, logging

import files
import losses
import models
import readers
from console import flag_fields
from data_flags import Reading
from models import mixture, registry

FILE_NAME = "model_flags.json"

Values = Mapping[str, Any]

# What the command line may say otherwise than the model's own: of the data, and
# of the machine.
_OF_THE_RUN = ("segment_labels", "attention_memory_mb")


def _describe(model):
  """What --help=MODEL shows."""
  values = with_model_defaults({**_defaults(), "model": model}, ())
  text = inspect.getdoc(registry.get(model)) or ""
  if is_frame_level(model):
    text += "\n\nNeeds --frame_features=True."
  used = used_flags(values)
  return flag_fields.Description(
    text, {name: values[name] for name in values if name in used}
  )


@dataclasses.dataclass(frozen=True)
class Choice(flag_fields.Config, group="Model"):
  """What is built and trained for."""

  model: str = flag_fields.choice(
    "LogisticModel",
    registry.choices,
    "The model to train.",
    describes=_describe,
  )
  label_loss: str = flag_fields.choice(
    "CrossEntropyLoss",
    sorted(losses.LOSSES),
    "The loss on predictions and labels.",
    may_change=True,
  )


# What every model has.
_SHARED: tuple[type[flag_fields.Config], ...] = (
  Reading,
  Choice,
  mixture.Config,
)


def _specs() -> dict[str, flag_fields.Spec]:
  own: dict[str, flag_fields.Spec] = {}
  for config_class in _SHARED:
    own.update(flag_fields.specs(config_class))
  return {**own, **losses.specs(), **registry.specs()}


def _defaults() -> dict[str, Any]:
  """The flags' own defaults, whatever a model's."""
  return {name: spec.default for name, spec in _specs().items()}


def define(
  flag_values: flags.FlagValues = flags.FLAGS, hidden: bool = False
) -> None:
  """Defines the flags.

  Args:
    flag_values: absl's flags.
    hidden: bool, for programs that rebuild a model from its train_dir: accept
      the flags, but leave out of --help those that are of no use there.
  """
  notes = _notes()
  for name, spec in _specs().items():
    note, is_hidden = notes.get(name, ""), hidden and name not in _OF_THE_RUN
    spec.define(spec.default, flag_values, note, is_hidden)


def _notes():
  """{flag: the defaults that depend on the model, in words}."""
  texts: dict[str, dict[str, list[str]]] = {}
  for model in registry.names():
    config_class = registry.get(model).Config
    for name, default in _own_defaults(config_class).items():
      text = getattr(default, "text", str(default))
      texts.setdefault(name, {}).setdefault(text, []).append(model)
  return {
    name: "".join(
      f" Not given, {text} in {', '.join(those)}."
      for text, those in found.items()
    )
    for name, found in texts.items()
  }


def _own_defaults(config_class):
  """{flag: default} where a model's differs from the flag's."""
  specs = flag_fields.specs(config_class)
  return {
    name: default
    for name, default in flag_fields.defaults(config_class).items()
    if default != specs[name].default
  }


# Flags of training that published evaluation and inference commands repeat.
_TRAINING_FLAGS: dict[Any, tuple[str, ...]] = {
  flags.DEFINE_bool: ("start_new_model",),
  flags.DEFINE_float: (
    "base_learning_rate",
    "clip_gradient_norm",
    "learning_rate_decay",
    "learning_rate_decay_examples",
    "regularization_penalty",
  ),
  flags.DEFINE_integer: (
    "export_model_steps",
    "max_step",
    "max_steps",
    "num_epochs",
    "num_gpu",
  ),
  flags.DEFINE_string: ("optimizer", "train_data_pattern"),
}


def define_ignored(*also_bool: str) -> list[str]:
  """Defines training's flags so that they parse; see `warn_ignored`.

  Args:
    *also_bool: names of further truth-valued flags to accept.

  Returns:
    The names.
  """
  names = []
  for define_flag, group in _TRAINING_FLAGS.items():
    more = also_bool if define_flag is flags.DEFINE_bool else ()
    for name in (*group, *more):
      define_flag(name, None, "Accepted and ignored.")
      names.append(name)
  return names


def model_names() -> list[str]:
  """Every model that can be trained."""
  return registry.names()


def is_frame_level(model_name: str) -> bool | None:
  """Whether a model takes frames, rather than one vector a video.

  None for one that takes either.
  """
  return registry.get(model_name).is_frame_level


def build_model(values: Values) -> models.BaseModel:
  """Builds the model that the flags describe.

  Args:
    values: value of each flag of `define`.

  Returns:
    A `models.BaseModel`.

  Raises:
    ValueError: --model and --frame_features do not go together, or a value that
      the model refuses.
  """
  name = values["model"]
  if is_frame_level(name) not in (None, values["frame_features"]):
    kind = "frame-level" if is_frame_level(name) else "video-level"
    raise ValueError(
      f"--model={name} is a {kind} model, but "
      f"--frame_features={values['frame_features']}: give "
      f"--frame_features={is_frame_level(name)} with {kind} files and their "
      "--feature_names and --feature_sizes."
    )
  features = flag_fields.from_values(Reading, values).features
  return mixture.build(name, values, features)


def build_reader(values: Values) -> readers.BaseReader:
  """Builds the reader that the flags describe.

  Raises:
    ValueError: names and sizes that the reader refuses.
  """
  config = flag_fields.from_values(Reading, values)
  kwargs = {
    "feature_names": flag_fields.parse_names(config.feature_names),
    "feature_sizes": flag_fields.parse_ints(config.feature_sizes),
    "num_classes": config.num_classes,
  }
  if config.frame_features:
    return readers.YT8MFrameFeatureReader(
      **kwargs,
      max_frames=config.max_frames,
      segment_labels=config.segment_labels,
      feature_dtype=config.feature_dtype,
    )
  if config.segment_labels:
    raise ValueError("--segment_labels needs --frame_features=True.")
  return readers.YT8MAggregatedFeatureReader(**kwargs)


def _config_classes(values: Values) -> list[type[flag_fields.Config]]:
  """Those that all have, and those of the model, its classifier, the loss."""
  loss = losses.LOSSES[values["label_loss"]]
  of_model = registry.config_classes(values["model"], values)
  return [*_SHARED, *of_model, loss.Config]


def used_flags(values: Values) -> set[str]:
  """The flags that matter to the model which the values describe."""
  return {
    name
    for config_class in _config_classes(values)
    for name in flag_fields.specs(config_class)
  }


def effective_flags(values: Values) -> set[str]:
  """`used_flags`, less those that the others' values put out of use."""
  used = set()
  for config_class in _config_classes(values):
    config = flag_fields.from_values(config_class, values)
    specs = flag_fields.specs(config_class)
    used.update(name for name, spec in specs.items() if spec.used_if(config))
  return used


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
  """The flags' values, free of aliases, with the model's own defaults."""
  values = {name: flag_values[name].value for name in sorted(_specs())}
  return with_model_defaults(values, flag_fields.given(values, flag_values))


def with_model_defaults(values: Values, given: Iterable[str]) -> dict[str, Any]:
  """Values in which flags that were not given have their model's default.

  Args:
    values: value of each flag of `define`; the model may be an alias.
    given: names of the flags that stay as they are.

  Returns:
    dict, what `save` takes.
  """
  values = {**values, "model": registry.resolve(values["model"])}
  config_class = registry.get(values["model"]).Config
  specs = flag_fields.specs(config_class)
  given = set(given)
  # Who gives one of two such flags has chosen the other too.
  missing = {
    name
    for name in _own_defaults(config_class)
    if name not in given and specs[name].given_with not in given
  }
  config = config_class(
    **{name: values[name] for name in specs if name not in missing}
  )
  return {**values, **{name: getattr(config, name) for name in missing}}


def warn_unused(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Names the model flags of the command line that have no effect.

  Those that the model does not use, or not with its other flags as they are.
  """
  used = effective_flags(from_flags(flag_values))
  unused = flag_fields.given(set(_specs()) - used, flag_values)
  if unused:
    logging.warning(
      "%s does not use %s.",
      flag_values["model"].value,
      ", ".join(f"--{name}" for name in sorted(unused)),
    )


def load_for_data(
  train_dir: str, flag_values: flags.FlagValues = flags.FLAGS
) -> dict[str, Any]:
  """`load`, with what the command line says of the data rather than the model.

  A model trained on videos can be asked for segments, and the other way round.
  """
  values = load(train_dir)
  for name in flag_fields.given(_OF_THE_RUN, flag_values):
    values[name] = flag_values[name].value
  return values


def warn_ignored(
  saved: Values,
  extra: Iterable[str] = (),
  flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Names the flags of the command line that give way to the saved ones.

  Published command lines repeat the architecture at evaluation and inference.

  Args:
    saved: what `load` returned.
    extra: further flags that are accepted and have no effect.
    flag_values: the parsed flags.
  """
  names = set(_specs()) - {*_OF_THE_RUN}
  given = sorted(flag_fields.given(names, flag_values))
  current = from_flags(flag_values)
  differing = [
    f"--{name}={current[name]} (trained with {saved[name]})"
    for name in given
    if current[name] != saved[name]
  ]
  ignored = given + [name for name in extra if flag_values[name].present]
  if ignored:
    logging.warning(
      "Ignored, as the model is rebuilt from its %s: %s.",
      FILE_NAME,
      ", ".join(f"--{name}" for name in ignored),
    )
  if differing:
    logging.warning("Of these differ: %s.", ", ".join(differing))


def save(train_dir: str, values: Values) -> None:
  """Writes `train_dir/model_flags.json`."""
  text = json.dumps(dict(values), indent=2, sort_keys=True) + "\n"
  files.write_text(os.path.join(train_dir, FILE_NAME), text)


def load(train_dir: str) -> dict[str, Any]:
  """Reads `train_dir/model_flags.json`.

  A flag that the file does not name, being younger, has its default.

  Raises:
    ValueError: no such file, or not of this format, or a value that its flag
      does not accept.
  """
  path = os.path.join(train_dir, FILE_NAME)
  if not tf.io.gfile.exists(path):
    raise ValueError(
      f"{path} does not exist: is --train_dir={train_dir} the directory that "
      "train.py wrote to?"
    )
  with tf.io.gfile.GFile(path) as stream:
    try:
      saved = json.load(stream)
    except (RecursionError, ValueError) as error:
      raise ValueError(f"{path} is not JSON: {error}.") from None
  specs, values = _specs(), _defaults()
  unknown = sorted(set(saved) - set(values)) if isinstance(saved, dict) else []
  if not isinstance(saved, dict) or saved.get("model") not in [
    *registry.choices()
  ]:
    raise ValueError(
      f"{path} names no model of {', '.join(model_names())}: was it written "
      "by another codebase?"
    )
  if unknown:
    logging.warning("%s has flags unknown here: %s.", path, ", ".join(unknown))
  for name in set(saved) & set(values):
    try:
      values[name] = specs[name].parse(saved[name])
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from None
  return values


def differences(
  saved: Values, current: Values
) -> tuple[list[tuple[str, Any, Any]], list[tuple[str, Any, Any]]]:
  """Compares a train_dir's flags with those of a run that would go on in it.

  Args:
    saved: what `load` returned.
    current: what `from_flags` returned.

  Returns:
    (what forbids going on, what may change), each a list of
    (flag, saved value, current value). Flags without effect in both are left
    out.
  """
  used = effective_flags(saved) | effective_flags(current)
  specs = _specs()
  forbidden, allowed = [], []
  for name in sorted(used):
    if saved[name] != current[name]:
      pair = saved[name], current[name]
      changes = allowed if specs[name].allows(*pair) else forbidden
      changes.append((name, *pair))
  return forbidden, allowed
