"""Makes one HTML page of runs: curves, classes, examples, pictures of why.

  python report.py --train_dir=runs/gated-netvlad

Several train_dirs, separated by commas or as a glob, share the curves. The page
holds everything that it shows and asks no server for anything.
"""

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import glob
import os

from absl import logging

import files
from console import flag_fields
from reporting import run_data


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Report"):
  """The flags."""

  train_dir: str = flag_fields.paths(
    "",
    "Directories that train.py wrote to, and eval.py after it: comma-separated "
    "paths or globs.",
    required=True,
  )
  output_file: str = flag_fields.path(
    "", "The page to write; report.html in the train_dir if that is one."
  )


def find(pattern: str) -> list[str]:
  """The train_dirs that comma-separated paths or globs name.

  Raises:
    ValueError: one names none.
  """
  found: list[str] = []
  for part in flag_fields.parse_names(pattern):
    directories = [
      path for path in sorted(glob.glob(part)) if run_data.is_run(path)
    ]
    if not directories:
      raise ValueError(
        f"--train_dir={part}: no train_dir, which has model_flags.json or "
        "TensorBoard's files."
      )
    found += [path for path in directories if path not in found]
  return found


def write(train_dirs: list[str], path: str) -> None:
  """Writes the page of some runs.

  Raises:
    program.UserError: a package is missing.
  """
  try:
    from reporting import page
  except ImportError as error:
    raise program.UserError(
      f"report.py needs {error.name}: pip install -c constraints.txt -e "
      "'.[report]'."
    ) from None
  names = run_data.names(train_dirs)
  runs = [
    run_data.read(directory, name) for directory, name in zip(train_dirs, names)
  ]
  files.write_text(path, page.render(runs))


def main():
  """Writes the page that the flags ask for."""
  config = flag_fields.from_flags(Config)
  train_dirs = find(config.train_dir)
  path = config.output_file
  if not path:
    if len(train_dirs) > 1:
      raise ValueError(
        f"--output_file is empty: give the page to write of {len(train_dirs)} "
        "runs."
      )
    path = os.path.join(train_dirs[0], "report.html")
  write(train_dirs, path)
  logging.info("Wrote %s.", path)


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
