"""What is installed, and at which versions."""

import ast
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from unittest import mock

import pytest
import setuptools
from packaging import requirements

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def _setup_arguments():
  """What setup.py tells setuptools."""
  with mock.patch.object(setuptools, "setup") as setup:
    exec((_ROOT / "setup.py").read_text(), {"__name__": "setup"})
  return setup.call_args.kwargs


def _pins():
  """The versions of constraints.txt, by package."""
  lines = (_ROOT / "constraints.txt").read_text().splitlines()
  return dict(line.split("==") for line in lines if not line.startswith("#"))


def _imports(path):
  """Top-level names that a module imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module.split(".")[0]


def test_installs_models_and_pooling_and_what_they_import():
  arguments = _setup_arguments()
  needed, new = set(), {"models", "pooling"}
  while new:
    needed |= new
    found = set()
    for name in new:
      files = [_ROOT / f"{name}.py"]
      if (_ROOT / name).is_dir():
        files = (_ROOT / name).rglob("*.py")
      found |= {imported for file in files for imported in _imports(file)}
    new = {
      name
      for name in found - needed
      if (_ROOT / name).is_dir() or (_ROOT / f"{name}.py").exists()
    }
  packages = set(arguments["packages"])
  assert packages == {name for name in needed if (_ROOT / name).is_dir()}
  assert needed == packages  # No module of the root.


def test_every_requirement_is_pinned_within_its_bounds():
  arguments = _setup_arguments()
  lists = [arguments["install_requires"], *arguments["extras_require"].values()]
  names = set()
  for text in itertools.chain(*lists):
    requirement = requirements.Requirement(text)
    names.add(requirement.name)
    assert requirement.specifier.contains(_pins()[requirement.name]), text
    assert "==" not in text
  assert names == set(_pins())


def test_commit_hooks_have_the_pinned_versions():
  text = (_ROOT / ".pre-commit-config.yaml").read_text()
  found = re.findall(r"([\w-]+)==([\w.]+)", text)
  assert {name for name, _ in found} >= {"mypy", "ruff"}
  for name, version in found:
    assert _pins()[name] == version


@pytest.mark.slow
def test_a_wheel_has_models_and_pooling_alone(tmp_path):
  arguments = _setup_arguments()
  source, target = tmp_path / "source", tmp_path / "installed"
  source.mkdir()
  for name in arguments["packages"]:
    shutil.copytree(_ROOT / name, source / name)
  for name in ("setup.py", "pyproject.toml", "LICENSE"):
    shutil.copy(_ROOT / name, source)
  pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
  subprocess.run(
    [*pip_wheel, "--no-build-isolation", "--wheel-dir", tmp_path, source],
    check=True,
  )
  (wheel,) = tmp_path.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(target)
  tops = {p.name for p in target.iterdir() if p.suffix != ".dist-info"}
  assert tops == {*arguments["packages"]}
  program = (
    "import models, pooling.netvlad; print(models.BaseModel);"
    "print(models.__file__); print(pooling.__file__)"
  )
  said = subprocess.run(
    [sys.executable, "-c", program],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(target)},
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert said.count(str(target)) == 2
