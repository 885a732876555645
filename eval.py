"""Evaluates checkpoints: GAP, MAP, Hit@1, PERR and loss of a whole data set.

  python eval.py --train_dir=/models/netvlad --run_once \\
    --eval_data_pattern='/data/yt8m/frame/validate*.tfrecord'

The model is rebuilt from --train_dir alone. Without --run_once, waits for new
checkpoints and evaluates the newest, or each with --all_checkpoints, until
training is done. Writes train_dir/eval for TensorBoard, and there
metrics-STEP.json, best_checkpoint.json, and tables of the classes
(classes-STEP.csv), of confused pairs of them (confusions-STEP.csv), and of the
best and the worst videos (videos-STEP.csv).
"""

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import os
import signal

from absl import logging

import data_flags
import files
import model_flags
import readers
from checkpoints import (
  description,
  evaluations,
  restore,
  train_dir,
  watching,
)
from console import flag_fields
from evaluation import eval_curves, eval_tables, measure, pictures
from predictions import predictor
from records import vocabulary as vocabulary_lib


@dataclasses.dataclass(frozen=True)
class _Data(flag_fields.Config, group="Data"):
  """What is read, and how."""

  eval_data_pattern: str = flag_fields.paths(
    "",
    "Files to evaluate on: comma-separated globs or directories.",
    required=True,
  )
  holdout: bool = flag_fields.boolean(
    False,
    "Evaluate on the videos of --eval_data_pattern that training held out by "
    "its --holdout_fraction, and no others.",
  )
  batch_size: int = flag_fields.integer(
    256, "Videos of a batch; two batches are in work at a time.", low=1
  )
  num_readers: int = flag_fields.integer(
    8, "Files that are read at the same time.", low=1
  )
  top_k: int = flag_fields.integer(
    predictor.TOP_K, "Predictions of each video that count in GAP.", low=1
  )
  skip_unlabelled: bool = flag_fields.boolean(
    False,
    "Leave out videos without a label within --num_classes. Without it, as in "
    "Kaggle's score, the pairs predicted for them count in GAP, and they are "
    "misses in Hit@1. With --segment_labels a video gives its rated segments "
    "either way.",
  )
  num_pictures: int = flag_fields.integer(
    4,
    "First videos of the data, of which TensorBoard and report.py show the "
    "predictions, assignments of frames to centres and attention; 0 for none.",
    low=0,
    high=64,
  )
  strict_records: bool = flag_fields.boolean(
    False,
    "Stop at the first record that can't be used as it stands, instead of "
    "skipping or cutting it.",
  )


@dataclasses.dataclass(frozen=True)
class Config(_Data, group="Checkpoints and logs"):
  """What eval.py's own flags say."""

  train_dir: str = flag_fields.path(
    "/tmp/yt8m_model/", "Directory that train.py writes to."
  )
  checkpoint: str = flag_fields.path(
    "", "Path prefix of a checkpoint; the newest if not given."
  )
  run_once: bool = flag_fields.boolean(
    False,
    "Evaluate the newest checkpoint, or with --all_checkpoints each that is "
    "there, and leave.",
  )
  all_checkpoints: bool = flag_fields.boolean(
    False,
    "Evaluate every checkpoint, the oldest first, rather than the newest.",
  )
  stop_at_step: int | None = flag_fields.integer(
    None,
    "Leave after a checkpoint of this step or a later one. Without it: when "
    "train.py has come to its end and its last checkpoint is evaluated.",
    low=1,
  )
  eval_interval_secs: int = flag_fields.integer(
    60, "Look for a new checkpoint every so many seconds.", low=1
  )
  keep_best: bool = flag_fields.boolean(
    False,
    "Keep a copy of the checkpoint of the best GAP in train_dir/best (or "
    "output_dir/best), which serves as a --train_dir itself.",
  )
  output_dir: str = flag_fields.path(
    "", "Directory to write; train_dir/eval if not given."
  )
  vocabulary: str = vocabulary_lib.flag(", in the tables")
  num_listed: int = flag_fields.integer(
    50,
    "Rows of confusions-STEP.csv, and best and worst videos of "
    "videos-STEP.csv; 0 writes neither.",
    low=0,
  )


class _Evaluator:
  """Evaluates checkpoints as the flags say, and writes what it finds."""

  def __init__(self, config, ignored):
    """Keeps the names of the flags that have no effect, to warn of once."""
    self._config = config
    self._ignored = ignored
    self._vocabulary = vocabulary_lib.of_model(
      config.vocabulary, config.train_dir
    )
    self._directory = config.output_dir or os.path.join(
      config.train_dir, evaluations.DIRECTORY
    )
    self._best_dir = os.path.join(
      config.output_dir or config.train_dir, evaluations.BEST
    )

  def __call__(self, source):
    """Evaluates one checkpoint.

    Args:
      source: its path prefix, or the train_dir for the newest.

    Returns:
      Its path prefix.

    Raises:
      restore.DamagedCheckpointError: it can't be read.
    """
    keeps = self._config.keep_best
    values = model_flags.load_for_data(self._config.train_dir)
    model_flags.warn_ignored(values, self._ignored)
    self._ignored = ()
    for directory in [self._directory] + [self._best_dir] * keeps:
      files.require_writable(directory, "Give another --output_dir.")
    if keeps:
      return restore.with_newest(
        source, lambda checkpoint: self._evaluate_copy(checkpoint, values)
      )
    results, seen = self._evaluate(source, values)
    self._write(results, seen, values)
    return results["path"]

  def _evaluate_copy(self, checkpoint, values):
    # Training may delete the checkpoint before its GAP is known.
    with files.temporary_directory(self._best_dir) as directory:
      copy = train_dir.copy_checkpoint(checkpoint, directory)
      results, seen = self._evaluate(copy, values)
      self._write({**results, "path": checkpoint}, seen, values, copy)
    return checkpoint

  def _evaluate(self, source, values):
    config, num_classes = self._config, values["num_classes"]
    tables = eval_tables.Tables(num_classes, config.num_listed)
    curves = eval_curves.Curves(num_classes)
    paths = readers.expand_data_pattern(
      config.eval_data_pattern, "eval_data_pattern"
    )
    data_flags.check(values, paths, "eval_data_pattern", config.train_dir)
    results = measure.evaluate(
      source,
      values,
      paths,
      batch_size=config.batch_size,
      num_readers=config.num_readers,
      top_k=config.top_k,
      holdout=config.holdout,
      skip_unlabelled=config.skip_unlabelled,
      strict=config.strict_records,
      tables=tables,
      curves=curves,
    )
    look = self._look(results["path"], values, paths)
    results["data_pattern"] = config.eval_data_pattern
    return results, (tables, curves, look)

  def _look(self, checkpoint, values, paths):
    """What is shown of the first videos, or None."""
    if not self._config.num_pictures:
      return None
    try:
      return pictures.look(
        checkpoint,
        values,
        paths,
        self._vocabulary.name,
        self._config.num_pictures,
        holdout=self._config.holdout,
      )
    except restore.DamagedCheckpointError:
      logging.warning("No pictures: %s is gone already.", checkpoint)
      return None

  def _write(self, results, seen, values, copy=None):
    """Writes results; the copy of the checkpoint stays if it is the best."""
    tables, curves, look = seen
    evaluations.log(results)
    kind = evaluations.kind_of(results, self._directory)
    ending, name = f"-{results['step']}{kind}", self._vocabulary.name
    shown = curves.summary(
      tables.average_precision, tables.positives, name, kind
    )
    if look:
      shown.MergeFrom(pictures.summary(look, kind))
      path = os.path.join(self._directory, f"examples{ending}.json")
      pictures.write(path, look)
    evaluations.write(results, self._directory, kind, shown)
    tables.write(self._directory, f"{ending}.csv", name)
    best = evaluations.find_best(self._directory, kind)
    best_dir = f"{self._best_dir}{kind}"
    if copy and best["step"] == results["step"]:
      description.copy(self._config.train_dir, best_dir)
      train_dir.move_checkpoint(copy, best_dir, values)
    for kept in restore.known_checkpoints(best_dir):
      if restore.step_of(kept) == best["step"]:
        best["path"] = kept
    evaluations.write_best(best, self._directory, kind)


def define_flags():
  """Defines the flags; returns the names of those that have no effect."""
  model_flags.define(hidden=True)
  flag_fields.define(Config)
  return model_flags.define_ignored()


def main(ignored):
  """Evaluates once, or checkpoints as they come."""
  config = flag_fields.from_flags(Config)
  readers.expand_data_pattern(config.eval_data_pattern, "eval_data_pattern")
  evaluator = _Evaluator(config, ignored)
  if config.checkpoint:
    evaluator(config.checkpoint)
    return
  watch = watching.Watch(config.train_dir, evaluator, config.all_checkpoints)
  watch.run(config.run_once, config.stop_at_step, config.eval_interval_secs)
  if not watch.last:
    raise program.UserError(f"No checkpoint in --train_dir={config.train_dir}.")


if __name__ == "__main__":
  _IGNORED = define_flags()
  program.run(lambda: main(_IGNORED), (signal.SIGINT, signal.SIGTERM))
