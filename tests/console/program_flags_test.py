"""Tests of the programs' flags: that they are fields of configurations."""

import pathlib
import re

import pytest

import blend
import eval as eval_program
import export_model
import inference
from console import flag_fields
from scripts import (
  benchmark,
  compare_models,
  demo_summary,
  make_dataset,
  make_ensemble,
  make_media,
)
from training import config as training_config

_ROOT = pathlib.Path(flag_fields.__file__).parent.parent
_PATH = re.compile(
  "checkpoint|compare|output|submission|.*_(dirs?|file|pattern|tgz)"
)


def test_every_flag_is_a_field():
  """So that every number is finite and bounded."""
  plain = {
    str(path.relative_to(_ROOT))
    for folder in (_ROOT, *(p.parent for p in _ROOT.glob("*/__init__.py")))
    for path in folder.glob("*.py")
    if folder.name != "tests" and "flags.DEFINE_" in path.read_text()
  }
  assert plain == {
    "console/flag_fields.py",
    "console/flag_help.py",
    "model_flags.py",  # Flags that are accepted and ignored.
    "scripts/compare_models.py",  # A flag that is given several times.
  }


@pytest.mark.parametrize(
  "config_class",
  [
    blend.Config,
    eval_program.Config,
    inference.Config,
    export_model.Config,
    training_config.Config,
    benchmark.Config,
    compare_models.Config,
    demo_summary.Config,
    make_dataset.DatasetConfig,
    make_ensemble.Config,
    make_media.Config,
  ],
  ids=lambda cls: cls.__module__,
)
def test_every_path_of_a_program_is_one(config_class):
  specs = flag_fields.specs(config_class)
  paths = [spec for spec in specs.values() if _PATH.fullmatch(spec.name)]
  assert paths
  for spec in paths:
    assert spec.placeholder in ("PATH", "PATHS"), spec.name
