"""Evaluates checkpoints: GAP, MAP, Hit@1, PERR and loss of a whole data set.

  python eval.py --train_dir=/models/netvlad --run_once \\
    --eval_data_pattern='/data/yt8m/frame/validate*.tfrecord'

The model is rebuilt from --train_dir alone. Without --run_once, waits for new
checkpoints and evaluates each. Writes train_dir/eval for TensorBoard, and
train_dir/eval/metrics-STEP.json.
"""

import program  # isort: skip  (before TensorFlow)

import json
import os
import time

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags, logging

import eval_util
import files
import losses
import model_flags
import predictor
import readers
import train_dir
import train_log

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags.

  Returns:
    Names of those that have no effect.
  """
  flags.DEFINE_string(
    "train_dir", "/tmp/yt8m_model/", "Directory that train.py writes to."
  )
  flags.DEFINE_string(
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
  flags.DEFINE_integer(
    "batch_size",
    256,
    "Videos of a batch; two batches are in work at a time.",
    lower_bound=1,
  )
  flags.DEFINE_integer(
    "num_readers", 8, "Files that are read at the same time.", lower_bound=1
  )
  flags.DEFINE_bool(
    "run_once", False, "Evaluate the newest checkpoint, and leave."
  )
  flags.DEFINE_integer(
    "eval_interval_secs",
    60,
    "Look for a new checkpoint every so many seconds.",
    lower_bound=1,
  )
  flags.DEFINE_integer(
    "top_k",
    predictor.TOP_K,
    "Predictions of each video that count in GAP.",
    lower_bound=1,
  )
  flags.DEFINE_string(
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
  checkpoint,
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
    checkpoint: path prefix.
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
    `checkpoint`, `num_videos`, of which `num_unlabelled`, `num_labels` and
    `flawed_records` (dict of kind to number).

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
    step = predictor.restore(session, checkpoint)
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
    "step": step,
    "checkpoint": os.path.basename(checkpoint),
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


def write_results(results, directory, scope="Eval"):
  """Writes metrics-STEP.json and TensorBoard's file, and logs a line.

  Args:
    results: what `evaluate` returned.
    directory: str, made if need be.
    scope: "Eval", or "SegEval" for segments: begins the tags' names.
  """
  text = json.dumps(results, indent=2, sort_keys=True) + "\n"
  path = os.path.join(directory, f"metrics-{results['step']}.json")
  files.write_text(path, text)
  scalars = {
    f"Epoch/{scope}_Avg_Hit@1": results["avg_hit_at_one"],
    f"Epoch/{scope}_Avg_Perr": results["avg_perr"],
    f"Epoch/{scope}_Avg_Loss": results["avg_loss"],
    f"Epoch/{scope}_MAP": results["map"],
    f"Epoch/{scope}_GAP": results["gap"],
  }
  scalars |= {
    f"input/{kind}": number
    for kind, number in results["flawed_records"].items()
  }
  with tf.Graph().as_default(), tf.summary.FileWriter(directory) as writer:
    writer.add_summary(train_log.scalar_summary(scalars), results["step"])
  logging.info(
    "epoch/eval number %d | Avg_Hit@1: %.4f | Avg_PERR: %.4f | MAP: %.4f | "
    "GAP: %.4f | Avg_Loss: %.6g | %d videos (%d without labels), flawed "
    "records: %s",
    results["step"],
    results["avg_hit_at_one"],
    results["avg_perr"],
    results["map"],
    results["gap"],
    results["avg_loss"],
    results["num_videos"],
    results["num_unlabelled"],
    results["flawed_records"] or "none",
  )
  logging.info("Wrote %s.", path)


def _evaluate_newest(last, ignored):
  """Evaluates the newest checkpoint unless it is the last one seen.

  Returns:
    Path prefix of the newest checkpoint, or None if there is none.
  """
  checkpoint = FLAGS.checkpoint or train_dir.latest_checkpoint(FLAGS.train_dir)
  if not checkpoint or checkpoint == last:
    return checkpoint
  values = model_flags.load_for_data(FLAGS.train_dir)
  if last is None:
    model_flags.warn_ignored(values, ignored)
  logging.info("Evaluating %s.", checkpoint)
  results = evaluate(
    checkpoint,
    values,
    readers.expand_data_pattern(FLAGS.eval_data_pattern, "eval_data_pattern"),
    batch_size=FLAGS.batch_size,
    num_readers=FLAGS.num_readers,
    top_k=FLAGS.top_k,
    holdout=FLAGS.holdout,
    skip_unlabelled=FLAGS.skip_unlabelled,
    strict=FLAGS.strict_records,
  )
  scope = "SegEval" if values["segment_labels"] else "Eval"
  write_results(results, os.path.join(FLAGS.train_dir, "eval"), scope)
  return checkpoint


def main(ignored):
  """Evaluates once, or each checkpoint as it comes."""
  readers.expand_data_pattern(FLAGS.eval_data_pattern, "eval_data_pattern")
  last = None
  while True:
    newest = _evaluate_newest(last, ignored)
    if FLAGS.run_once or FLAGS.checkpoint:
      if not newest:
        raise program.UserError(
          f"No checkpoint in --train_dir={FLAGS.train_dir}."
        )
      return
    if newest == last:
      logging.info(
        "No new checkpoint in %s; looking again in %d s.",
        FLAGS.train_dir,
        FLAGS.eval_interval_secs,
      )
      time.sleep(FLAGS.eval_interval_secs)
    last = newest


if __name__ == "__main__":
  _IGNORED = define_flags()
  program.run(lambda: main(_IGNORED))
