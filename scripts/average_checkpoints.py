"""Averages the weights of a run's checkpoints: often better than the last one.

  python scripts/average_checkpoints.py --train_dir=runs/netvlad \\
      --output_dir=runs/netvlad-average --last=5

The steps of a constant learning rate wander about an optimum, and their mean
lies nearer to it (Polyak & Juditsky 1992; Izmailov et al. 2018,
arXiv:1803.05407, who average along one run as well). Batch norm's averages are
averaged like the weights: between checkpoints of one run they differ little.
Where checkpoints have moving averages of the weights (--ema_decay), these are
what is averaged, as they are what evaluation uses.

--output_dir is a train_dir of one checkpoint, named by the newest's step, for
eval.py, inference.py, export_model.py and --init_checkpoint. The optimiser's
state is left out: train.py goes on in it as after a change of --optimizer.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

import model_flags
from checkpoints import assembled, parts, restore, resume, weight_averages
from console import flag_fields
from models import scopes
from predictions import predictor


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Checkpoints"):
  """What average_checkpoints.py is told."""

  train_dir: str = flag_fields.path(
    "", "Directory that train.py wrote to.", required=True
  )
  output_dir: str = flag_fields.path(
    "", "Directory to write; it must not hold anything yet.", required=True
  )
  last: int = flag_fields.integer(
    5, "Average so many checkpoints, the newest.", low=1
  )
  checkpoints: str = flag_fields.paths(
    "",
    "Average these instead: comma-separated steps of --train_dir, or path "
    "prefixes, which may be of other directories with the same model.",
  )


def choose(config):
  """The checkpoints to average, the newest last: list of path prefixes.

  Raises:
    ValueError: there are fewer than --last.
  """
  if config.checkpoints:
    chosen = [
      parts.prefix(config.train_dir, int(name)) if name.isdecimal() else name
      for name in flag_fields.parse_names(config.checkpoints)
    ]
    return sorted(dict.fromkeys(chosen), key=restore.step_of)
  found = restore.known_checkpoints(config.train_dir)
  if len(found) < config.last:
    raise ValueError(
      f"--last={config.last}: --train_dir={config.train_dir} has "
      f"{len(found)} whole checkpoints."
    )
  return found[-config.last :]


def check_same_model(values, sources):
  """Refuses what is no mean of one model.

  Args:
    values: dict of the model flags.
    sources: list of path prefixes.

  Raises:
    ValueError: a checkpoint lies in a train_dir of another model, or some have
      moving averages of the weights and others not.
  """
  has_averages = {}
  for source in sources:
    directory = os.path.dirname(source) or "."
    if tf.io.gfile.exists(os.path.join(directory, model_flags.FILE_NAME)):
      others = model_flags.load(directory)
      forbidden, _ = model_flags.differences(values, others)
      if forbidden:
        told = [f"--{name}={now} (not {own})" for name, own, now in forbidden]
        raise ValueError(f"{source} is of another model: {', '.join(told)}.")
    with restore.telling_damage(source):
      names = tf.train.load_checkpoint(source).get_variable_to_shape_map()
    has_averages[any(map(weight_averages.is_average, names))] = source
  if len(has_averages) > 1:
    raise ValueError(
      f"{has_averages[True]} has moving averages of the weights and "
      f"{has_averages[False]} has none: average those of one kind."
    )


def average(values, sources, directory):
  """Writes the mean of checkpoints.

  Args:
    values: dict of the model flags.
    sources: list of path prefixes, the newest last.
    directory: str, it is there.

  Returns:
    Path prefix of the mean.

  Raises:
    ValueError: a checkpoint is damaged, or not of that model.
  """
  reader = model_flags.build_reader(values)
  step, epoch = resume.read_progress(sources[-1])
  with tf.Graph().as_default(), tf.Session() as session:
    batch = reader.parse_serialized(tf.placeholder(tf.string, [None]))
    predictor.predict(
      model_flags.build_model(values), batch, reader.num_classes
    )
    variables = {scopes.stored_name(v): v for v in scopes.variables()}
    sums = {name: np.float64(0.0) for name in variables}
    for source in sources:
      restore.restore(session, source)
      for name, value in session.run(variables).items():
        sums[name] = sums[name] + value
    for name, variable in variables.items():
      variable.load(sums[name] / len(sources), session)
    return assembled.save(session, variables, directory, step=step, epoch=epoch)


def run(config):
  """Averages, and renames what was written.

  Raises:
    ValueError: see `choose`, `check_same_model` and `average`, or output_dir
      holds something.
  """
  values = model_flags.load(config.train_dir)
  assembled.check_output_dir(config.output_dir)
  sources = choose(config)
  check_same_model(values, sources)
  path = assembled.write(
    config.output_dir,
    values,
    f"the mean of {', '.join(sources)}",
    lambda new: average(values, sources, new),
    source=config.train_dir,
  )
  logging.info(
    "Wrote the mean of %d checkpoints to %s: %s.",
    len(sources),
    path,
    ", ".join(sources),
  )


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(lambda: run(flag_fields.from_flags(Config)))
