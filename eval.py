"""Evaluates checkpoints: GAP, MAP, Hit@1, PERR and loss of a whole data set.

  python eval.py --train_dir=/models/netvlad --run_once \\
    --eval_data_pattern='/data/yt8m/frame/validate*.tfrecord'

The model is rebuilt from --train_dir alone. Without --run_once, waits for new
checkpoints and evaluates the newest, or each with --all_checkpoints, until
training is done. Writes train_dir/eval for TensorBoard, and there
metrics-STEP.json and best_checkpoint.json.
"""

import program  # isort: skip  (before TensorFlow)

import os
import signal

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags, logging

import eval_util
import files
import flag_types
import losses
import model_flags
import predictor
import readers
from checkpoints import evaluations, train_dir, watching

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags.

  Returns:
    Names of those that have no effect.
  """
  flag_types.path(
    "train_dir", "/tmp/yt8m_model/", "Directory that train.py writes to."
  )
  flag_types.paths(
    "eval_data_pattern",
    "",
    "Files to evaluate on: comma-separated globs or directories.",
  )
  flags.DEFINE_bool(
    "holdout",
    False,
    "Evaluate on the videos of --eval_data_pattern that training held out by "
    "its --holdout_fraction, and no others.",
  )
  flag_types.integer(
    "batch_size",
    256,
    "Videos of a batch; two batches are in work at a time.",
    lower_bound=1,
  )
  flag_types.integer(
    "num_readers", 8, "Files that are read at the same time.", lower_bound=1
  )
  flags.DEFINE_bool(
    "run_once",
    False,
    "Evaluate the newest checkpoint, or with --all_checkpoints each that is "
    "there, and leave.",
  )
  flags.DEFINE_bool(
    "all_checkpoints",
    False,
    "Evaluate every checkpoint, the oldest first, rather than the newest.",
  )
  flag_types.integer(
    "stop_at_step",
    None,
    "Leave after a checkpoint of this step or a later one. Without it: when "
    "train.py has come to its end and its last checkpoint is evaluated.",
    lower_bound=1,
  )
  flags.DEFINE_bool(
    "keep_best",
    False,
    "Keep a copy of the checkpoint of the best GAP in train_dir/best (or "
    "output_dir/best), which serves as a --train_dir itself.",
  )
  flag_types.path(
    "output_dir", "", "Directory to write; train_dir/eval if not given."
  )
  flag_types.integer(
    "eval_interval_secs",
    60,
    "Look for a new checkpoint every so many seconds.",
    lower_bound=1,
  )
  flag_types.integer(
    "top_k",
    predictor.TOP_K,
    "Predictions of each video that count in GAP.",
    lower_bound=1,
  )
  flag_types.path(
    "checkpoint", "", "Path prefix of a checkpoint; the newest if not given."
  )
  flags.DEFINE_bool(
    "skip_unlabelled",
    False,
    "Leave out videos without a label within --num_classes. Without it, as in "
    "Kaggle's score, the pairs predicted for them count in GAP, and they are "
    "misses in Hit@1. With --segment_labels a video gives its rated segments "
    "either way.",
  )
  flags.DEFINE_bool(
    "strict_records",
    False,
    "Stop at the first record that can't be used as it stands, instead of "
    "skipping or cutting it.",
  )
  model_flags.define()
  return model_flags.define_ignored()


def evaluate(
  source,
  values,
  paths,
  *,
  batch_size,
  num_readers,
  top_k=predictor.TOP_K,
  holdout=False,
  skip_unlabelled=False,
  strict=False,
):
  """Evaluates one checkpoint.

  Args:
    source: path prefix of the checkpoint, or a train_dir for the newest.
    values: dict of the model flags.
    paths: list of str, the files.
    batch_size: int >= 1.
    num_readers: int >= 1.
    top_k: int >= 1.
    holdout: bool, the held-out videos only.
    skip_unlabelled: bool, see `readers.BaseReader.batches`.
    strict: bool, see `readers.BaseReader.batches`.

  Returns:
    dict of `gap`, `map`, `avg_hit_at_one`, `avg_perr`, `avg_loss`, `step`,
    `checkpoint` and `path` (its name and path prefix), `num_videos`, of which
    `num_unlabelled`, `num_labels`, `flawed_records` (dict of kind to number),
    `num_files`, `holdout`, `segments`, `top_k` and `skip_unlabelled`.

  Raises:
    program.UserError: the files hold no usable video.
  """
  reader = model_flags.build_reader(values)
  model = model_flags.build_model(values)
  loss_fn = losses.get_loss(values["label_loss"])
  metrics = eval_util.EvaluationMetrics(reader.num_classes, top_k, None)
  config = program.session_config()
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    data = reader.batches(
      paths,
      batch_size=batch_size,
      num_readers=num_readers,
      holdout_fraction=values["holdout_fraction"] if holdout else 0.0,
      holdout=holdout,
      skip_unlabelled=skip_unlabelled,
      # The CSV has a row for each of these.
      skip_frameless=False,
      strict=strict,
    )
    iterator = tf.data.make_initializable_iterator(data.enumerate())
    number, batch = iterator.get_next()
    predictions = predictor.predict(model, batch, reader.num_classes)
    weights = batch.get("label_weights")
    fetches = predictor.batch_metrics(
      predictions, batch["labels"], top_k, weights
    )
    fetches["loss"] = loss_fn.per_example(predictions, batch["labels"], weights)
    checkpoint = predictor.restore_newest(session, source)
    logging.info("Evaluating %s.", checkpoint)
    session.run(iterator.initializer)
    total = readers.estimate_num_records(paths)
    if holdout:
      total = round(total * values["holdout_fraction"])
    num_videos = num_unlabelled = num_labels = 0
    with program.progress_bar(total, "videos") as bar:
      for found in predictor.run_batches(
        session, number, fetches, reader.report
      ):
        metrics.accumulate_top_k(**found)
        num_videos += len(found["loss"])
        num_unlabelled += int(np.sum(found["num_labels"] == 0))
        num_labels += int(np.sum(found["num_labels"]))
        bar.update(len(found["loss"]))
  if not num_videos:
    raise program.UserError(
      f"No usable video in the {len(paths)} files of --eval_data_pattern"
      f"{' (--holdout)' if holdout else ''}: {reader.report.summary()}. "
      + " ".join(reader.report.problems()[:1])
    )
  reader.report.log_warnings()
  results = metrics.get()
  return {
    "step": predictor.step_of(checkpoint),
    "checkpoint": os.path.basename(checkpoint),
    "path": checkpoint,
    "num_files": len(paths),
    "holdout": holdout,
    "segments": values["segment_labels"],
    "top_k": top_k,
    "skip_unlabelled": skip_unlabelled,
    "num_videos": num_videos,
    "num_unlabelled": num_unlabelled,
    "num_labels": num_labels,
    "flawed_records": reader.report.counts(),
    "gap": results["gap"],
    "map": float(np.mean(results["aps"])) if results["aps"] else 0.0,
    "avg_hit_at_one": results["avg_hit_at_one"],
    "avg_perr": results["avg_perr"],
    "avg_loss": results["avg_loss"],
  }


class _Evaluator:
  """Evaluates checkpoints as the flags say, and writes what it finds."""

  def __init__(self, ignored):
    """Keeps the names of the flags that have no effect, to warn of once."""
    self._ignored = ignored
    self._directory = FLAGS.output_dir or os.path.join(FLAGS.train_dir, "eval")
    self._best_dir = os.path.join(FLAGS.output_dir or FLAGS.train_dir, "best")

  def __call__(self, source):
    """Evaluates one checkpoint.

    Args:
      source: its path prefix, or the train_dir for the newest.

    Returns:
      Its path prefix.

    Raises:
      train_dir.DamagedCheckpointError: it can't be read.
    """
    values = model_flags.load_for_data(FLAGS.train_dir)
    model_flags.warn_ignored(values, self._ignored)
    self._ignored = ()
    for directory in [self._directory] + [self._best_dir] * FLAGS.keep_best:
      files.require_writable(directory, "Give another --output_dir.")
    if FLAGS.keep_best:
      return train_dir.with_newest(
        source, lambda checkpoint: self._evaluate_copy(checkpoint, values)
      )
    results = self._evaluate(source, values)
    self._write(results, values)
    return results["path"]

  def _evaluate_copy(self, checkpoint, values):
    # Training may delete the checkpoint before its GAP is known.
    with files.temporary_directory(self._best_dir) as directory:
      copy = train_dir.copy_checkpoint(checkpoint, directory)
      results = self._evaluate(copy, values)
      self._write({**results, "path": checkpoint}, values, copy)
    return checkpoint

  def _evaluate(self, source, values):
    results = evaluate(
      source,
      values,
      readers.expand_data_pattern(FLAGS.eval_data_pattern, "eval_data_pattern"),
      batch_size=FLAGS.batch_size,
      num_readers=FLAGS.num_readers,
      top_k=FLAGS.top_k,
      holdout=FLAGS.holdout,
      skip_unlabelled=FLAGS.skip_unlabelled,
      strict=FLAGS.strict_records,
    )
    return {**results, "data_pattern": FLAGS.eval_data_pattern}

  def _write(self, results, values, copy=None):
    """Writes results; the copy of the checkpoint stays if it is the best."""
    evaluations.log(results)
    kind = evaluations.kind_of(results, self._directory)
    evaluations.write(results, self._directory, kind)
    best = evaluations.find_best(self._directory, kind)
    best_dir = f"{self._best_dir}{kind}"
    if copy and best["step"] == results["step"]:
      train_dir.move_checkpoint(copy, best_dir, values)
    for kept in train_dir.checkpoints(best_dir):
      if predictor.step_of(kept) == best["step"]:
        best["path"] = kept
    evaluations.write_best(best, self._directory, kind)


def main(ignored):
  """Evaluates once, or checkpoints as they come."""
  readers.expand_data_pattern(FLAGS.eval_data_pattern, "eval_data_pattern")
  evaluator = _Evaluator(ignored)
  if FLAGS.checkpoint:
    evaluator(FLAGS.checkpoint)
    return
  watch = watching.Watch(FLAGS.train_dir, evaluator, FLAGS.all_checkpoints)
  watch.run(FLAGS.run_once, FLAGS.stop_at_step, FLAGS.eval_interval_secs)
  if not watch.last:
    raise program.UserError(f"No checkpoint in --train_dir={FLAGS.train_dir}.")


if __name__ == "__main__":
  _IGNORED = define_flags()
  program.run(lambda: main(_IGNORED), (signal.SIGINT, signal.SIGTERM))
