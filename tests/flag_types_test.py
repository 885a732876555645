"""Tests of flag_types.py."""

import json
import re
import subprocess
import sys

import pytest
from absl import flags

import flag_types
from tests import runs


def _parse(define, *args):
  own = flags.FlagValues()
  define("x", None, "Help.", flag_values=own)
  own(["prog", *args])
  return own.x


@pytest.mark.parametrize(
  "value", ["nan", "inf", "-inf", "1e39", "-1e300", "", "much", "1,5"]
)
def test_a_number_that_no_float32_holds_is_refused(value):
  with pytest.raises(flags.IllegalFlagValueError, match="--x="):
    _parse(flag_types.real, f"--x={value}")


def test_finite_numbers_are_taken():
  for text in ("0", "-3.4e38", "1e-300", "3.4028234663852886e38"):
    assert _parse(flag_types.real, f"--x={text}") == float(text)


@pytest.mark.parametrize(
  "value", ["2147483648", "9" * 20, "9" * 5000, "-2147483649", "1.5", "nan", ""]
)
def test_an_integer_that_no_size_can_be_is_refused(value):
  def define(*args, **kwargs):
    flag_types.integer(*args, lower_bound=-(2**31), **kwargs)

  with pytest.raises(flags.IllegalFlagValueError, match="--x="):
    _parse(define, f"--x={value}")


def test_seeds_may_be_of_nineteen_digits_and_no_more():
  seed = 1_700_000_000_000_000_000  # Nanoseconds of a clock.
  assert _parse(flag_types.seed, f"--x={seed}") == seed
  assert _parse(flag_types.seed, f"--x={-seed}") == -seed
  with pytest.raises(flags.IllegalFlagValueError, match="--x="):
    _parse(flag_types.seed, f"--x={10 * seed}")


@pytest.mark.parametrize("define", [flag_types.path, flag_types.paths])
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
def test_the_home_directory_is_expanded(monkeypatch, define, text, expected):
  monkeypatch.setenv("HOME", "/home/me")
  assert _parse(define, f"--x={text}") == expected


def test_the_home_directory_is_expanded_in_each_part(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  given = "--x=~/a*.tfrecord, ~/b,/c"
  found = "/home/me/a*.tfrecord,/home/me/b,/c"
  assert _parse(flag_types.paths, given) == found
  # One path may have a comma in its name.
  assert _parse(flag_types.path, "--x=/a, ~/b") == "/a, ~/b"


# Each program's flags, in a process of its own: they have the same names.
_DRIVER = """
import program

import importlib
import json
import os
import sys

from absl import flags

os.environ["HOME"] = "/home/me"
found = {}
for name in sys.argv[1:]:
  reading, writing = os.pipe()
  child = os.fork()
  if not child:
    module = importlib.import_module(name)
    module.define_flags()
    told = {}
    for flag in flags.FLAGS.get_key_flags_for_module(module.__name__):
      taken = []
      for text in ("~/x", "nan", "9" * 20, "-" + "9" * 20):
        try:
          flag.parse(text)
          taken.append(flag.value)
        except flags.IllegalFlagValueError:
          taken.append(None)
      told[flag.name] = flag.flag_type(), taken
    os.write(writing, json.dumps(told).encode())
    os._exit(0)
  os.waitpid(child, 0)
  found[name] = json.loads(os.read(reading, 1 << 20))
print(json.dumps(found))
"""
_PROGRAMS = [
  "train",
  "eval",
  "inference",
  "export_model",
  "scripts.benchmark",
  "scripts.compare_models",
  "scripts.demo_summary",
  "scripts.make_dataset",
]
_PATH = re.compile(
  "checkpoint|compare|new|output|submission|.*_(dir|file|pattern|tgz)"
)


@pytest.fixture(scope="module")
def flags_of():
  """{program: {flag: (type, what it makes of "~/x" and of bad numbers)}}."""
  result = subprocess.run(
    [sys.executable, "-c", _DRIVER, *_PROGRAMS],
    env={"PYTHONPATH": str(runs.ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
    stdout=subprocess.PIPE,
    timeout=runs.TIMEOUT,
    check=True,
  )
  return json.loads(result.stdout)


@pytest.mark.parametrize("name", _PROGRAMS)
def test_every_path_of_a_program_is_expanded(flags_of, name):
  paths = 0
  for flag, (kind, (path, *_)) in flags_of[name].items():
    if kind == "string" and _PATH.fullmatch(flag):
      paths += 1
      assert path == "/home/me/x", flag
  assert paths >= 1


@pytest.mark.parametrize("name", _PROGRAMS)
def test_every_number_of_a_program_is_checked(flags_of, name):
  for flag, (kind, (_, nan, *huge)) in flags_of[name].items():
    if kind == "float":
      assert nan is None, flag
    if kind == "int":
      assert huge == [None, None], flag
