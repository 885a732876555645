"""Flags that are said once: a field of a configuration is the flag.

  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config, group="Optimisation"):
    \"\"\"What the program is told.\"\"\"

    batch_size: int = flag_fields.integer(1024, "Videos a step.", low=1)

  flag_fields.define(Config)             # before the command line is parsed
  config = flag_fields.from_flags(Config)   # after it
  config = Config(batch_size=8)          # without a command line

The field's name, default, bounds and help are the flag's. A value is checked
however it gets there: on the command line, from a file, or as an argument.
A subclass declares a field anew with a plain value to give it another default.
"""

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from absl import flags

from console import messages

# The largest float32: what is beyond is infinite to TensorFlow.
_MAX_FLOAT = (2.0 - 2.0**-23) * 2.0**127
# Sizes and counts that are larger overflow somewhere: in shapes, in arguments
# of operations, in a step's arithmetic.
MAX_INTEGER = 2**31 - 1
# A run adds its step and its task's number to the seed, which is an int64.
_MAX_SEED = 2**62

# What makes absl's parser of a flag.
Parser = Callable[[], flags.ArgumentParser]

# absl's --helpshort shows a flag with the module that asked for it.
flags.disclaim_key_flags()


class _FiniteParser(flags.FloatParser):
  """Parses numbers that a float32 holds: neither NaN nor infinite."""

  number_name = "finite number"
  syntactic_help = "a finite number"

  def is_outside_bounds(self, val):
    """See the base class; NaN is outside of everything."""
    return not abs(val) <= _MAX_FLOAT or super().is_outside_bounds(val)


class _TextParser(flags.ArgumentParser):
  """Parses what the function of a field takes, and gives what it returns."""

  def __init__(self, function, wanted):
    self._function = function
    self.syntactic_help = wanted

  def parse(self, argument):
    """See the base class."""
    return self._function(super().parse(argument))


class _RepeatedFlag(flags.Flag):
  """A flag whose values are joined by commas, each time it is given."""

  def parse(self, argument):
    """See the base class."""
    super().parse(f"{self.value},{argument}" if self.present else argument)


@dataclasses.dataclass(eq=False)
class Spec:
  """What a field says of its flag, besides its name's value.

  Attributes:
    name: str, the field's and the flag's.
    default: the flag's, None for no value.
    help: str.
    parser: function without arguments; returns absl's parser.
    placeholder: str, what stands for a value in the help.
    group: str, the part of --help that shows it.
    alias: str, a second name of the flag, or "".
    required: bool, refuse no value and an empty one.
    hidden: bool, leave it out of --help: programs give it, not people.
    repeated: bool, given again it adds to the value, after a comma.
    may_change: bool, for a model's flags: no variable and no equation depends
      on it, so it may change between runs on one train_dir. Or a function of
      the saved value and the new one.
    used_if: function of a `Config`: whether the flag has an effect in it.
    given_with: str, a flag who gives which has chosen this one too.
    describes: function of a value: `Description` for --help=VALUE, or None.
  """

  default: Any
  help: str
  parser: Parser
  placeholder: str
  group: str = ""
  alias: str = ""
  required: bool = False
  hidden: bool = False
  repeated: bool = False
  may_change: bool | Callable[[Any, Any], bool] = False
  used_if: Callable[[Any], bool] = lambda config: True
  given_with: str = ""
  describes: Callable[[str], Any] | None = None
  name: str = ""

  def parse(self, value):
    """What the flag makes of a value of Python's or of a JSON file.

    Raises:
      ValueError: the flag could not have it.
    """
    if value is None and self.default is None:
      return None
    parser: Any = self.parser()
    is_bool = isinstance(parser, flags.BooleanParser)
    scalar = bool if is_bool else (int, float, str)
    try:
      if isinstance(value, scalar) and isinstance(value, bool) == is_bool:
        return parser.parse(value if is_bool else str(value))
    except ValueError:
      pass
    raise ValueError(
      f"--{self.name} needs {self._wanted(parser)}, got "
      f"{messages.short(value)}."
    )

  def _wanted(self, parser):
    """What values the flag accepts, in words."""
    if isinstance(parser, flags.EnumParser):
      return f"one of {', '.join(parser.enum_values)}"
    if isinstance(parser, flags.BooleanParser):
      return "true or false"
    return parser.syntactic_help

  def allows(self, saved, current):
    """Whether a run may go on with another value than the saved one."""
    if callable(self.may_change):
      return self.may_change(saved, current)
    return self.may_change

  def define(self, default, flag_values, note="", hidden=False):
    """Defines the flag, and its alias; see `define`."""
    # Typed as absl has none of our two attributes.
    flag: Any
    parser, text = self.parser(), self.help + note
    if isinstance(parser, flags.EnumParser):
      flag = flags.EnumFlag(self.name, default, text, parser.enum_values)
    elif isinstance(parser, flags.BooleanParser):
      flag = flags.BooleanFlag(self.name, default, text)
    else:
      serializer = flags.ArgumentSerializer()
      make = _RepeatedFlag if self.repeated else flags.Flag
      flag = make(parser, serializer, self.name, default, text)
    # For --help.
    flag.spec = None if hidden or self.hidden else self
    flag.note = note
    flags.DEFINE_flag(flag, flag_values)
    if self.alias:
      flags.DEFINE_alias(self.alias, self.name, flag_values)
      flag_values[self.alias].spec = None


class Derived(NamedTuple):
  """A default that is computed from the other fields: `compute(config)`."""

  compute: Callable[[Any], Any]
  text: str


class Description(NamedTuple):
  """What --help=VALUE shows: a text, and some flags with their defaults."""

  text: str
  defaults: Mapping[str, Any]


def _field(
  default: Any, help: str, parser: Parser, placeholder: str, **more: Any
) -> Any:
  spec = Spec(default, help, parser, placeholder, **more)
  return dataclasses.field(default=default, metadata={"flag": spec})


def integer(
  default: int | None,
  help: str,
  *,
  low: int,
  high: int = MAX_INTEGER,
  **more: Any,
) -> Any:
  """A flag of an integer from low to high; `Spec` explains `more`."""
  return _field(
    default, help, lambda: flags.IntegerParser(low, high), "N", **more
  )


def seed(default: int | None, help: str, **more: Any) -> Any:
  """A flag of a generator's seed."""
  return integer(default, help, low=-_MAX_SEED, high=_MAX_SEED, **more)


def real(
  default: float | None,
  help: str,
  *,
  low: float | None = None,
  high: float | None = None,
  **more: Any,
) -> Any:
  """A flag of a finite number, within bounds if given."""
  return _field(default, help, lambda: _FiniteParser(low, high), "X", **more)


def boolean(default: bool | None, help: str, **more: Any) -> Any:
  """A flag of a truth value: --x, --x=True, --nox."""
  return _field(default, help, flags.BooleanParser, "", **more)


def choice(
  default: str | None,
  choices: Iterable[str] | Callable[[], Iterable[str]],
  help: str,
  **more: Any,
) -> Any:
  """A flag of one of some strings.

  Args:
    default: str, or None.
    choices: sequence of str, or a function that returns it.
    help: str.
    **more: see `Spec`.
  """

  def parser():
    return flags.EnumParser(list(choices() if callable(choices) else choices))

  return _field(default, help, parser, "NAME", **more)


def text(default: str | None, help: str, **more: Any) -> Any:
  """A flag of any string."""
  return _text(default, help, str, "a string", "TEXT", **more)


def path(default: str | None, help: str, **more: Any) -> Any:
  """A flag of a path; `~` and `~user` in it are expanded."""
  return _text(default, help, os.path.expanduser, "a path", "PATH", **more)


def paths(default: str | None, help: str, **more: Any) -> Any:
  """A flag of comma-separated paths or globs, each expanded likewise."""

  def expand(argument):
    parts = argument.split(",")
    return ",".join(os.path.expanduser(part.strip()) for part in parts)

  return _text(default, help, expand, "comma-separated paths", "PATHS", **more)


def integers(default: str | None, help: str, **more: Any) -> Any:
  """A flag of a comma list of integers; the value is what was given.

  `parse_ints` makes a list of it.
  """

  return _text(
    default, help, _checked(parse_ints),
    f"integers up to {MAX_INTEGER}, as '1024,128'", "N,N", **more,
  )  # fmt: skip


def ranges(default: str | None, help: str, **more: Any) -> Any:
  """A flag of a comma list of LOW:HIGH; the value is what was given.

  `parse_ranges` makes a list of it.
  """

  return _text(
    default, help, _checked(parse_ranges), "ranges LOW:HIGH, as '-2:2'",
    "LOW:HIGH,LOW:HIGH", **more,
  )  # fmt: skip


def _checked(parse):
  """A function that returns a text as it is, if it can be parsed."""

  def check(argument):
    parse(argument)
    return argument

  return check


def _text(default, help, function, wanted, placeholder, **more):
  return _field(
    default, help, lambda: _TextParser(function, wanted), placeholder, **more
  )


def parse_names(text: str) -> list[str]:
  """The parts of a comma list, stripped."""
  return [part.strip() for part in text.split(",") if part.strip()]


def parse_ints(text: str) -> list[int]:
  """The numbers of a comma list.

  Raises:
    ValueError: a part is no integer, or too large for a size.
  """
  try:
    numbers = [int(part) for part in parse_names(str(text))]
  except ValueError:
    numbers = None
  if numbers is None or max(numbers, default=0) > MAX_INTEGER:
    raise ValueError(
      f"Need comma-separated integers up to {MAX_INTEGER}, such as "
      f"'1024,128', got {messages.short(text)}."
    )
  return numbers


def parse_ranges(text: str) -> list[tuple[float, float]]:
  """The (low, high) of a comma list of LOW:HIGH.

  Raises:
    ValueError: a part is none, or not from low to high.
  """
  found = []
  for part in parse_names(text):
    low, _, high = part.partition(":")
    try:
      found.append((float(low), float(high)))
    except ValueError:
      found.append((0.0, 0.0))
    if not -_MAX_FLOAT <= found[-1][0] < found[-1][1] <= _MAX_FLOAT:
      raise ValueError(
        "Need comma-separated ranges LOW:HIGH, such as '-2:2', got "
        f"{messages.short(text)}."
      )
  return found


@dataclasses.dataclass(frozen=True)
class Config:
  """Inherit from this class, frozen, to make a configuration.

  `class X(Config, group="Model")` says where --help shows the fields that are
  made in X. Checks of several fields go into `__post_init__`, after this one's.

  Raises:
    TypeError: a field that is no flag, when the class is made.
    ValueError: a value that its flag does not accept, or a required one that
      is missing; it names the flag.
  """

  def __init_subclass__(cls, group="", **kwargs):
    super().__init_subclass__(**kwargs)
    _check_fields(cls)
    for name, field in list(vars(cls).items()):
      if isinstance(field, dataclasses.Field) and "flag" in field.metadata:
        spec = field.metadata["flag"]
        spec.name = name
        spec.group = spec.group or group

  def __post_init__(self):
    derived = {}
    for name, spec in specs(type(self)).items():
      value = getattr(self, name)
      if isinstance(value, Derived):
        derived[name] = value
      elif spec.required and value in (None, ""):
        raise ValueError(f"--{name} is missing: {spec.help}")
      else:
        object.__setattr__(self, name, spec.parse(value))
    for name, value in derived.items():
      object.__setattr__(self, name, value.compute(self))


_C = TypeVar("_C", bound=Config)


def specs(config_class: type[Config]) -> dict[str, Spec]:
  """{name: `Spec`} of a configuration's flags, the inherited ones first."""
  if "__dataclass_fields__" not in vars(config_class):
    raise TypeError(f"{config_class} is no dataclass: decorate it.")
  found = {}
  for field in dataclasses.fields(config_class):
    for base in config_class.__mro__:
      if spec := _own_spec(base, field.name):
        found[field.name] = spec
        break
  return found


def _check_fields(cls):
  """Refuses what a dataclass would take and no flag would reach."""
  annotations = inspect.get_annotations(cls)
  inherited = {
    name
    for base in cls.__mro__[1:]
    for name in vars(base)
    if _own_spec(base, name)
  }
  for name in inherited & set(vars(cls)) - set(annotations):
    raise TypeError(
      f"{cls.__qualname__}.{name} would not be the flag's default: give it "
      f"its type, as in {name}: {type(vars(cls)[name]).__name__} = ..."
    )
  for name in set(annotations) - inherited:
    if not isinstance(vars(cls).get(name), dataclasses.Field):
      raise TypeError(
        f"{cls.__qualname__}.{name} is no flag, nor is one inherited that is "
        f"called so: correct its name, or make it a flag, as in {name}: float "
        '= flag_fields.real(0.5, "Its help.")'
      )


def _own_spec(cls, name):
  field = vars(cls).get("__dataclass_fields__", {}).get(name)
  return field and field.metadata.get("flag")


def defaults(config_class: type[Config]) -> dict[str, Any]:
  """{name: default} of a configuration's flags; some may be `Derived`."""
  known = specs(config_class)
  return {
    field.name: field.default
    for field in dataclasses.fields(config_class)
    if field.name in known
  }


def define(
  config_class: type[Config],
  flag_values: flags.FlagValues = flags.FLAGS,
  hidden: bool = False,
) -> None:
  """Defines a configuration's flags.

  Args:
    config_class: subclass of `Config`.
    flag_values: absl's flags.
    hidden: bool, leave them out of --help.
  """
  own_defaults = defaults(config_class)
  for name, spec in specs(config_class).items():
    default, note = own_defaults[name], ""
    if isinstance(default, Derived):
      default, note = spec.default, f" Not given, {default.text}."
    spec.define(default, flag_values, note, hidden)


def given(
  names: Iterable[str], flag_values: flags.FlagValues = flags.FLAGS
) -> set[str]:
  """Those of the flags that the command line gives."""
  return {name for name in names if flag_values[name].present}


def from_values(config_class: type[_C], values: Mapping[str, Any]) -> _C:
  """The configuration that the values of more flags than its own describe.

  Raises:
    ValueError: values that the configuration refuses.
  """
  return config_class(**{name: values[name] for name in specs(config_class)})


def from_flags(
  config_class: type[_C], flag_values: flags.FlagValues = flags.FLAGS
) -> _C:
  """The configuration that the parsed flags describe.

  Raises:
    ValueError: flags that the configuration refuses.
  """
  own_defaults = defaults(config_class)
  present = given(own_defaults, flag_values)
  return config_class(
    **{
      name: flag_values[name].value
      for name, default in own_defaults.items()
      if name in present or not isinstance(default, Derived)
    }
  )
