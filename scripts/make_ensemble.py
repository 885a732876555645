"""Makes one model of several trained ones: the mean of what they predict.

  python scripts/make_ensemble.py --train_dirs=runs/a,runs/b:0.7 \\
      --output_dir=runs/both

A weight follows its directory after a colon; without one it is 1. Weights are
divided by their sum. --output_dir is a train_dir with one checkpoint, for
eval.py, inference.py and export_model.py. It holds all weights of all members,
their moving averages where they have some: what it is made of may go.

Members may be any models, each with its own sampling of frames. They read the
same features of the same records and know the same classes. A member may be an
ensemble itself.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses

import tensorflow.compat.v1 as tf
from absl import logging

import blend
import data_flags
import losses
import model_flags
from checkpoints import assembled, restore, resume
from console import flag_fields
from models import ensemble, scopes
from predictions import predictor

# What the members of an ensemble have in common: how records are read.
_SHARED = (
  "frame_features",
  "num_classes",
  "max_frames",
)


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Ensemble"):
  """What make_ensemble.py is told."""

  train_dirs: str = flag_fields.paths(
    "",
    "Comma-separated directories that train.py wrote to, each with :WEIGHT "
    "after it or not; the newest checkpoint of each is taken.",
    required=True,
  )
  output_dir: str = flag_fields.path(
    "", "Directory to write; it must not hold anything yet.", required=True
  )


def common_flags(members):
  """The flags of an ensemble of models.

  Args:
    members: list of (train_dir, dict of its model flags).

  Returns:
    dict of those of the reader and of the loss: the first's, but where two
    that differ can agree: on the videos that all of them held out, and on
    segments if all were trained on these.

  Raises:
    ValueError: they read different things; names both directories.
  """
  (first, values), *others = members
  for directory, own in others:
    differing = [name for name in _SHARED if values[name] != own[name]]
    readings = (
      flag_fields.from_values(data_flags.Reading, each)
      for each in (values, own)
    )
    differing += [name for name, _, _ in data_flags.differing(*readings)]
    for name in differing:
      raise ValueError(
        f"Members of an ensemble read the same, but {first} has "
        f"--{name}={values[name]} and {directory} --{name}={own[name]}."
      )
  own_flags = {*flag_fields.specs(model_flags.Reading), *losses.specs()}
  return {
    **{name: values[name] for name in (*sorted(own_flags), "label_loss")},
    # Those of a smaller fraction are among those of a larger one.
    "holdout_fraction": min(own["holdout_fraction"] for _, own in members),
    "segment_labels": all(own["segment_labels"] for _, own in members),
  }


def _load(directory):
  """The model flags of a member."""
  try:
    return model_flags.load(directory)
  except ValueError as error:
    raise ValueError(f"--train_dirs: {error}") from None


def run(config):
  """Makes the ensemble.

  Raises:
    ValueError: no such directory, members that do not go together, or an
      output_dir that holds something.
  """
  assembled.check_output_dir(config.output_dir)
  sources = [
    blend.parse_source(text)
    for text in flag_fields.parse_names(config.train_dirs)
  ]
  directories, weights = zip(*sources)
  shares = blend.shares(directories, weights)
  flags = [_load(directory) for directory in directories]
  values = {
    **common_flags(list(zip(directories, flags))),
    "model": ensemble.EnsembleModel.__name__,
    "ensemble_members": ensemble.encode(list(zip(shares, flags))),
  }

  def fill(new):
    reader = model_flags.build_reader(values)
    with tf.Graph().as_default(), tf.Session() as session:
      batch = reader.parse_serialized(tf.placeholder(tf.string, [None]))
      steps = []
      for i, (directory, own) in enumerate(zip(directories, flags)):
        scope = f"{scopes.SCOPE}/{ensemble.member_scope(i)}"
        model = model_flags.build_model(own)
        predictor.predict(model, batch, reader.num_classes, scope)
        checkpoint = restore.restore_newest(
          session, directory, scope, "train_dirs"
        )
        logging.info("Member %d, weight %.4g: %s", i, shares[i], checkpoint)
        steps.append(resume.read_progress(checkpoint))
      return assembled.save(
        session,
        {variable.op.name: variable for variable in scopes.variables()},
        new,
        step=max(step for step, _ in steps),
        epoch=max(epoch for _, epoch in steps),
      )

  path = assembled.write(
    config.output_dir,
    values,
    f"an ensemble of {config.train_dirs}",
    fill,
    source=directories[0],
  )
  logging.info("Wrote the ensemble to %s.", path)


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(lambda: run(flag_fields.from_flags(Config)))
