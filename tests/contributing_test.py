"""Adds the model of CONTRIBUTING.md, as a newcomer would, and tests it."""

import pathlib
import re
import shutil

import pytest

from tests import programs

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# Runs a module in the checkout, in a process that has TensorFlow already.
_START = """
import os, runpy, sys
os.chdir(sys.path[0])
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
_IGNORED = (".*", "__pycache__", "*.egg-info", "build", "dist", "runs")


def _blocks():
  """(path, dictionary in it or "", code) of each block that names a file."""
  text = (_ROOT / "CONTRIBUTING.md").read_text()
  return re.findall(
    r"^```python\n# ([\w/.]+)(?:, (\w+))?\n(.*?)^```", text, re.M | re.S
  )


def _apply(path, dictionary, code):
  """Writes a new file, or adds lines to one, to a dictionary in it if named."""
  if not dictionary:
    with open(path, "a") as stream:
      stream.write(code)
    return
  text = path.read_text()
  start = f"\n{dictionary} = {{\n"
  assert text.count(start) == 1
  path.write_text(text.replace(start, start + code))


@pytest.mark.slow
def test_a_model_is_added_by_the_list(tmp_path):
  checkout = tmp_path / "checkout"
  shutil.copytree(_ROOT, checkout, ignore=shutil.ignore_patterns(*_IGNORED))
  blocks = _blocks()
  assert len(blocks) == 5
  for name, dictionary, code in blocks:
    _apply(checkout / name, dictionary, code)

  start = checkout / "start.py"
  start.write_text(_START)

  def run(*arguments):
    status, said, errors = programs.run_program(start, *arguments)
    assert status == 0, said[-3000:] + errors[-3000:]
    return said

  names = [name for name, _, _ in blocks]
  run("ruff", "check", *names)
  run("ruff", "format", "--check", *names)
  run("tests.goldens.make")
  said = run(
    "pytest",
    *("-n", "0", "-p", "no:cacheprovider"),
    *("tests/pooling/statistics_test.py", "tests/models"),
    "tests/goldens_test.py",
    *("-k", "statistics or StatisticsModel or every_model"),
  )
  # The layer, its golden, and what walks the registry.
  assert int(re.search(r"(\d+) passed", said)[1]) >= 7
