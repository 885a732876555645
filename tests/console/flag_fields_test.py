"""Tests of console/flag_fields.py and flag_help.py."""

import dataclasses

import pytest
from absl import flags

from console import flag_fields, flag_help


@dataclasses.dataclass(frozen=True)
class _Shared(flag_fields.Config, group="Data"):
  pattern: str = flag_fields.paths("", "Files to read.", required=True)
  size: int = flag_fields.integer(3, "Its size.", low=1)


@dataclasses.dataclass(frozen=True)
class _Config(_Shared, group="Model"):
  size: int = 5
  rate: float = flag_fields.real(0.5, "A rate.", low=0.0, high=1.0)
  steps: int | None = flag_fields.integer(
    None, "Stop here.", low=1, alias="step", group="Devices"
  )
  fast: bool = flag_fields.boolean(False, "Be fast.")
  kind: str = flag_fields.choice("auto", ["auto", "plain"], "The kind.")
  log: str = flag_fields.path("", "Where to log.")
  sizes: str = flag_fields.integers("64", "Sizes.")
  name: str = flag_fields.text("x", "A name.")
  seed: int | None = flag_fields.seed(None, "A seed.")
  slow: bool = flag_fields.boolean(True, "Be slow.")

  def __post_init__(self):
    super().__post_init__()
    if self.rate == 1.0 and self.fast:
      raise ValueError("--fast needs --rate below 1.")


@dataclasses.dataclass(frozen=True)
class _Derived(_Config):
  slow: bool = flag_fields.Derived(lambda config: not config.fast, "not --fast")


def _flags(*args, of=_Config):
  own = flags.FlagValues()
  flag_fields.define(of, own)
  own(["prog", *args])
  return own


def _parse(*args, of=_Config):
  given = ["--pattern=a", *args]
  return flag_fields.from_flags(of, _flags(*given, of=of))


def _one(field):
  """A configuration of one field, x."""

  class One(flag_fields.Config):
    x: str | None = field

  return dataclasses.dataclass(frozen=True)(One)


def test_defaults_are_the_fields():
  assert _parse() == _Config(pattern="a")
  assert (_parse().size, _parse(of=_Shared).size) == (5, 3)


def test_given_flags_are_the_values():
  config = _parse(
    "--size=7", "--rate=0.25", "--step=9", "--fast", "--kind=plain",
    "--log=/l", "--sizes=1, 2", "--name=y", "--seed=-4", "--noslow",
  )  # fmt: skip
  assert dataclasses.asdict(config) == {
    "pattern": "a", "size": 7, "rate": 0.25, "steps": 9, "fast": True,
    "kind": "plain", "log": "/l", "sizes": "1, 2", "name": "y", "seed": -4,
    "slow": False,
  }  # fmt: skip


def test_what_was_given_is_known():
  own = _flags("--pattern=a", "--step=9", "--size=5")
  names = flag_fields.specs(_Config)
  assert flag_fields.given(names, own) == {"pattern", "steps", "size"}


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("size", "0"),
    ("size", "2147483648"),
    ("size", "9" * 5000),
    ("size", "1.5"),
    ("size", ""),
    ("rate", "nan"),
    ("rate", "inf"),
    ("rate", "-1e300"),
    ("rate", "1.01"),
    ("rate", "1,5"),
    ("fast", "maybe"),
    ("kind", "plian"),
    ("sizes", "64;32"),
    ("sizes", "5,2147483648"),
    ("seed", "9" * 20),
  ],
)
def test_a_bad_value_is_refused_wherever_it_comes_from(name, text):
  with pytest.raises(flags.IllegalFlagValueError, match=f"--{name}="):
    _parse(f"--{name}={text}")
  with pytest.raises(ValueError, match=f"--{name} needs ") as caught:
    _Config(pattern="a", **{name: text})
  assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("size", None),
    ("size", True),
    ("size", [3]),
    ("rate", False),
    ("rate", float("nan")),
    ("rate", 1e39),
    ("fast", None),
    ("fast", 1),
    ("fast", "true"),
    ("kind", None),
    ("kind", 3),
    ("name", {"a": 8}),
  ],
)
def test_a_value_of_another_type_is_refused(name, value):
  with pytest.raises(ValueError, match=f"--{name} needs "):
    flag_fields.specs(_Config)[name].parse(value)


def test_a_value_is_what_its_flag_makes_of_it():
  config = _Config(pattern="a", rate=1, sizes=64, steps=None)
  assert repr(config.rate) == "1.0"
  assert config.sizes == "64"
  assert config.steps is None


def test_numbers_that_a_float32_holds_are_taken():
  of = _one(flag_fields.real(None, "Help."))
  for text in ("0", "-3.4e38", "1e-300", "3.4028234663852886e38"):
    assert _flags(f"--x={text}", of=of).x == float(text)
  with pytest.raises(flags.IllegalFlagValueError):
    _flags("--x=1e39", of=of)


def test_seeds_may_be_of_nineteen_digits():
  seed = 1_700_000_000_000_000_000  # Nanoseconds of a clock.
  assert _parse(f"--seed={-seed}").seed == -seed


@pytest.mark.parametrize("kind", [flag_fields.path, flag_fields.paths])
@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("~/x", "/home/me/x"),
    ("~", "/home/me"),
    ("/a/~/x", "/a/~/x"),
    ("a~", "a~"),
    ("gs://b/~", "gs://b/~"),
    ("", ""),
  ],
)
def test_the_home_directory_is_expanded(monkeypatch, kind, text, expected):
  monkeypatch.setenv("HOME", "/home/me")
  of = _one(kind("", "Help."))
  assert _flags(f"--x={text}", of=of).x == expected
  assert of(x=text).x == expected


def test_the_home_directory_is_expanded_in_each_part(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  config = _parse("--pattern=~/a*.tfrecord, ~/b,/c", "--log=/a, ~/b")
  assert config.pattern == "/home/me/a*.tfrecord,/home/me/b,/c"
  assert config.log == "/a, ~/b"  # One path may have a comma in its name.


def test_a_required_flag_is_asked_for():
  for args in ((), ("--pattern=",)):
    with pytest.raises(ValueError, match="--pattern is missing: Files to read"):
      flag_fields.from_flags(_Config, _flags(*args))


def test_flags_are_checked_together():
  with pytest.raises(ValueError, match="--fast needs --rate"):
    _parse("--fast", "--rate=1")


def test_a_default_may_follow_other_flags():
  assert _parse("--fast", of=_Derived).slow is False
  assert _parse(of=_Derived).slow is True
  assert _parse("--fast", "--slow", of=_Derived).slow is True
  assert _Derived(pattern="a", fast=True).slow is False


def test_a_class_without_its_decorator_is_named():
  class Forgotten(_Config):
    pass

  with pytest.raises(TypeError, match="Forgotten"):
    flag_fields.specs(Forgotten)


@pytest.mark.parametrize(
  ("members", "annotations", "message"),
  [
    ({"size": 7}, {}, "New.size would not be .* size: int = "),
    ({"sise": 7}, {"sise": int}, "New.sise is no flag, .* correct its name"),
    ({}, {"power": float}, "New.power is no flag, .*: float = flag_fields"),
  ],
)
def test_a_field_that_no_flag_reaches_is_refused(members, annotations, message):
  members = {**members, "__annotations__": annotations, "__qualname__": "New"}
  with pytest.raises(TypeError, match=message):
    type("New", (_Config,), members)


@pytest.mark.parametrize(
  ("text", "names"),
  [("rgb", ["rgb"]), (" rgb , audio,", ["rgb", "audio"]), ("", [])],
)
def test_names_are_parsed(text, names):
  assert flag_fields.parse_names(text) == names


@pytest.mark.parametrize(
  ("text", "numbers"),
  [("64", [64]), ("1024,128", [1024, 128]), (" 1, -2 ", [1, -2]), (64, [64])],
)
def test_numbers_are_parsed(text, numbers):
  assert flag_fields.parse_ints(text) == numbers


@pytest.mark.parametrize("text", ["64.0", "1024 128", "x", 6.5, "9" * 50])
def test_what_is_no_list_of_numbers_is_refused(text):
  with pytest.raises(ValueError, match="comma-separated integers") as caught:
    flag_fields.parse_ints(text)
  assert repr(text) in str(caught.value)


def test_help_is_by_group_and_required_flags_come_first():
  own = _flags(of=_Derived)
  flags.DEFINE_string("unrelated", "", "Of a library.", flag_values=own)
  text = flag_help.of_program("What it does.\n", own)
  assert text.startswith("What it does.\n\nRequired:\n  --pattern=PATHS  (req")
  order = [text.index(f"\n{g}:\n") for g in ("Data", "Devices", "Model")]
  assert order[0] < min(order[1:])
  for part in (
    "  --size=N  (default: 5)\n      Its size.\n",
    "  --[no]fast  (default: false)\n",
    "  --steps=N, --step\n",
    "The kind. One of: auto, plain.",
    "Be slow. Not given, not --fast.",
  ):
    assert part in text
  assert text.count("--pattern") == 1
  assert "unrelated" not in text
  assert max(map(len, text.splitlines())) <= 80


def test_help_of_a_group_and_of_a_value():
  def describe(value):
    return flag_fields.Description(f"All of {value}.", {"size": 8})

  @dataclasses.dataclass(frozen=True)
  class Config(_Config, group="Model"):
    model: str = flag_fields.choice("a", ["a"], "Model.", describes=describe)

  own = _flags(of=Config)
  text = flag_help.of_topic("a", own)
  assert text.startswith("--model=a\n\nAll of a.\n\nData:\n  --size=N  (defaul")
  assert "(default: 8)" in text
  assert "--rate" not in text
  assert "--steps" in flag_help.of_topic("devices", own)
  with pytest.raises(flags.IllegalFlagValueError, match="Data, .*, a"):
    flag_help.of_topic("b", own)


def test_hidden_flags_parse_and_are_not_shown():
  own = flags.FlagValues()
  flag_fields.define(_Config, own, hidden=True)
  own(["prog", "--size=2"])
  assert own.size == 2
  assert "--size" not in flag_help.of_program("", own)

  alone = _one(flag_fields.text("", "For programs.", hidden=True))
  own = _flags("--x=a", of=alone)
  assert flag_fields.from_flags(alone, own).x == "a"
  assert "--x" not in flag_help.of_program("", own)


def test_a_repeated_flag_joins_what_it_is_given():
  @dataclasses.dataclass(frozen=True)
  class Repeated(flag_fields.Config):
    part: str = flag_fields.text("a", "Parts.", repeated=True)

  for words, value in (
    ([], "a"), (["--part=b"], "b"), (["--part=b", "--part=c,d"], "b,c,d"),
  ):  # fmt: skip
    values = flags.FlagValues()
    flag_fields.define(Repeated, values)
    values(["program", *words])
    assert flag_fields.from_flags(Repeated, values).part == value
