"""A checkpoint as one predict graph: evaluation, inference and export share it.

The graph is built anew from `model_flags.json` with is_training=False; no
meta-graph is imported, so that nothing of the training remains in it.

Axes: B videos, C classes, K predictions kept for each video.
"""

import itertools
import os
from concurrent import futures

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

import files
import model_flags
from checkpoints import train_dir, weight_averages
from training import towers

# Predictions for each video in metrics and submissions: Kaggle's GAP@20.
TOP_K = 20

# Batches that are predicted at the same time.
_AT_ONCE = 2

# The global step in a checkpoint's name.
step_of = train_dir.step_of


def predict(model, batch, num_classes):
  """Probabilities of every class.

  Args:
    model: `models.BaseModel`.
    batch: dict as `readers.py` makes it.
    num_classes: int, C.

  Returns:
    float32 [B, C].
  """
  with tf.variable_scope(towers.SCOPE, reuse=tf.AUTO_REUSE):
    model_input, num_frames = model.prepare_input(
      batch["features"], batch["num_frames"], is_training=False
    )
    result = model.create_model(
      model_input, num_classes, num_frames=num_frames, is_training=False
    )
  return tf.cast(result["predictions"], tf.float32)


def top_k(predictions, k):
  """The best classes of each video, best first, lower class among equals.

  Args:
    predictions: float32 [B, C], C static.
    k: int >= 1; at most C are kept.

  Returns:
    (int32 [B, K] classes, float32 [B, K] scores).
  """
  scores, classes = tf.nn.top_k(
    predictions, min(k, predictions.shape.as_list()[1])
  )
  return classes, scores


def batch_metrics(predictions, labels, k, label_weights=None):
  """What metrics need of a batch: K pairs a video instead of C.

  Args:
    predictions: float32 [B, C], C static.
    labels: bool [B, C].
    k: int >= 1.
    label_weights: float32 [B, C], above 0 where the class is rated, or None if
      all are. A class that is not rated has no label and the score minus
      infinity: below any prediction, 0 too.

  Returns:
    dict of the array arguments of `EvaluationMetrics.accumulate_top_k`, loss
    aside: `classes`, `scores`, `hits`, `num_labels`, `perr`, `num_positives`.
  """
  num_classes = predictions.shape.as_list()[1]
  least = 0.0
  if label_weights is not None:
    least = -np.inf
    is_rated = label_weights > 0
    labels = labels & is_rated
    predictions = tf.where_v2(is_rated, predictions, least)
  kept = min(k, num_classes)
  num_labels = tf.reduce_sum(tf.cast(labels, tf.int32), axis=1)
  # PERR looks as deep as a video has labels, which may be deeper than K.
  depth = tf.reduce_max(tf.concat([[kept], num_labels], axis=0))
  scores, classes = tf.nn.top_k(predictions, depth)
  hits = tf.gather(labels, classes, batch_dims=1)
  counted = (tf.range(depth)[tf.newaxis] < num_labels[:, tf.newaxis]) & hits
  # The starter code's PERR takes a video's prediction of 0 for none. A rated
  # class has one, whatever it is.
  counted &= scores > least
  found = tf.reduce_sum(tf.cast(counted, tf.float64), axis=1)
  perr = found / tf.cast(tf.maximum(num_labels, 1), tf.float64)
  return {
    "classes": classes[:, :kept],
    "scores": scores[:, :kept],
    "hits": hits[:, :kept],
    "num_labels": num_labels,
    "perr": perr,
    "num_positives": tf.reduce_sum(tf.cast(labels, tf.int32), axis=0),
  }


def run_batches(session, number, fetches, report):
  """Runs a session on all batches of its data, two at a time.

  One batch at a time leaves a processor idle wherever its operations can't be
  split, and while the caller works on its results.

  Args:
    session: `tf.Session`, its iterator initialised.
    number: int64 scalar, of the batch that the fetches are of, counted from 0
      as `tf.data.Dataset.enumerate` does.
    fetches: what `session.run` takes.
    report: `read_report.ReadReport` of the reader.

  Yields:
    The values of the fetches, batch by batch in the order of the numbers.

  Raises:
    StrictRecordError: the reader gave up.
    tf.errors.OpError: anything else that fails a run, of the batch that would
      be next or of the one behind it.
  """
  with futures.ThreadPoolExecutor(_AT_ONCE) as threads:

    def start():
      return threads.submit(session.run, (number, fetches))

    running = {start() for _ in range(_AT_ONCE)}
    found = {}
    for wanted in itertools.count():
      while wanted not in found:
        if not running:
          return
        ended, running = futures.wait(
          running, return_when=futures.FIRST_COMPLETED
        )
        for run in ended:
          try:
            place, values = run.result()
          except tf.errors.OutOfRangeError:  # The data have ended.
            continue
          except tf.errors.OpError as error:
            raise report.error or error from None
          found[place] = values
      # Before the caller works on the values; no more than two batches are
      # running or found at any time.
      running.add(start())
      yield found.pop(wanted)


def restore(session, checkpoint):
  """Restores the model's variables, leaving the optimiser's aside.

  A checkpoint of a training with --ema_decay has a moving average of each
  weight: the weights get these. Batch normalisation's statistics are no
  weights; they are restored as they are.

  Args:
    session: a session on a graph that `predict` was called in.
    checkpoint: path prefix, as `tf.train.latest_checkpoint` returns it.

  Returns:
    int, the checkpoint's global step.

  Raises:
    ValueError: the checkpoint is of another model, or damaged, or has the
      averages of some weights only.
  """
  with train_dir.telling_damage(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    stored = reader.get_variable_to_shape_map()
  variables = tf.global_variables(towers.SCOPE)
  wrong = [
    f"{v.op.name} {v.shape.as_list()} (stored: {stored.get(v.op.name)})"
    for v in variables
    if stored.get(v.op.name) != v.shape.as_list()
  ]
  if wrong:
    raise ValueError(
      f"{checkpoint} does not hold the model of its model_flags.json: "
      f"{', '.join(wrong[:5])}."
    )
  sources = {variable.op.name: variable for variable in variables}
  averages = weight_averages.stored(
    tf.trainable_variables(towers.SCOPE), stored, checkpoint
  )
  if averages:
    logging.info("%s: using the moving averages of the weights.", checkpoint)
    for name, variable in averages.items():
      del sources[variable.op.name]
      sources[name] = variable
  with train_dir.telling_damage(checkpoint):
    tf.train.Saver(sources).restore(session, checkpoint)
  return step_of(checkpoint)


def restore_newest(session, source):
  """Restores a checkpoint, or the newest of a train_dir that can be read.

  It is chosen at this moment: training may delete it soon.

  Args:
    session: as of `restore`.
    source: str, path prefix or train_dir.

  Returns:
    Path prefix of the checkpoint restored.

  Raises:
    ValueError: as of `restore` and `train_dir.with_newest`.
  """

  def use(checkpoint):
    restore(session, checkpoint)
    return checkpoint

  return train_dir.with_newest(source, use)


def export(source, values, output_dir=None, k=TOP_K):
  """Writes a SavedModel, replacing one at output_dir as a whole.

  Its signature `serving_default` takes `example_bytes`, string [B], serialised
  records of the model's kind, and returns `video_id`, string [B], and
  `class_indexes`, int32 [B, K], with `predictions`, float32 [B, K], best first.

  Args:
    source: path prefix of the checkpoint, or a train_dir for the newest.
    values: dict of the model flags.
    output_dir: str; `export/step_N` beside the checkpoint if not given.
    k: int >= 1; at most as many as there are classes.

  Raises:
    ValueError: the checkpoint is not of that model, or output_dir holds
      something else than a SavedModel.
  """
  if output_dir:
    _check_replaceable(output_dir)
  reader = model_flags.build_reader(values)
  model = model_flags.build_model(values)
  with (
    tf.Graph().as_default(),
    tf.Session(
      # A training that exports has its GPUs in use.
      config=tf.ConfigProto(allow_soft_placement=True, device_count={"GPU": 0})
    ) as session,
  ):
    # No initial value is used, but deterministic runs want their seed.
    tf.set_random_seed(0)
    records = tf.placeholder(tf.string, [None], name="example_bytes")
    batch = reader.parse_serialized(records)
    predictions = predict(model, batch, reader.num_classes)
    classes, scores = top_k(predictions, k)
    checkpoint = restore_newest(session, source)
    signature = tf.saved_model.predict_signature_def(
      inputs={"example_bytes": records},
      outputs={
        "video_id": batch["video_ids"],
        "class_indexes": classes,
        "predictions": scores,
      },
    )
    if not output_dir:
      output_dir = export_dir(checkpoint)
      _check_replaceable(output_dir)
    with files.temporary_directory(output_dir) as temporary:
      new = os.path.join(temporary, "new")
      builder = tf.saved_model.Builder(new)
      builder.add_meta_graph_and_variables(
        session,
        [tf.saved_model.SERVING],
        signature_def_map={"serving_default": signature},
        clear_devices=True,
      )
      builder.save()
      files.replace_directory(
        new, output_dir.rstrip("/"), os.path.join(temporary, "old")
      )
  logging.info("Exported %s to %s.", checkpoint, output_dir)


def export_dir(checkpoint):
  """Where a checkpoint is exported to if nothing else is said."""
  return os.path.join(
    os.path.dirname(checkpoint), "export", f"step_{step_of(checkpoint)}"
  )


def _check_replaceable(output_dir):
  """Raises ValueError if there is something that no export wrote."""
  if not tf.io.gfile.exists(output_dir):
    return
  # Of a file, this raises.
  found = tf.io.gfile.listdir(output_dir)
  foreign = train_dir.foreign_to_export(output_dir)
  if foreign or (found and "saved_model.pb" not in found):
    raise ValueError(
      f"{output_dir} holds something else than a SavedModel: "
      f"{', '.join(foreign or sorted(found))}. Export to another directory."
    )
