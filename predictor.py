"""A checkpoint as one predict graph: evaluation, inference and export share it.

The graph is built anew from `model_flags.json` with is_training=False; no
meta-graph is imported, so that nothing of the training remains in it.

Axes: B videos, C classes, K predictions kept for each video.
"""

import contextlib
import itertools
import os
import re
from concurrent import futures

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

import messages
import model_flags
import towers
import weight_averages

# Predictions for each video in metrics and submissions: Kaggle's GAP@20.
TOP_K = 20

# Batches that are predicted at the same time.
_AT_ONCE = 2

# Errors of restoring that say nothing about what is on the disk.
_NOT_THE_CHECKPOINT = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.ResourceExhaustedError,
  tf.errors.UnavailableError,
)


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
  with telling_damage(checkpoint):
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
  with telling_damage(checkpoint):
    tf.train.Saver(sources).restore(session, checkpoint)
  return step_of(checkpoint)


@contextlib.contextmanager
def telling_damage(checkpoint):
  """Turns the errors of reading a damaged checkpoint into a ValueError."""
  if not tf.io.gfile.exists(f"{checkpoint}.index"):
    raise ValueError(f"There is no checkpoint {checkpoint}.")
  try:
    yield
  except (IndexError, RuntimeError, tf.errors.OpError) as error:
    # The checkpoint reader raises whatever Python type is nearest.
    if isinstance(error, _NOT_THE_CHECKPOINT):
      raise
    raise ValueError(
      f"{checkpoint} is damaged: {messages.cause(str(error))} To use an "
      'older one, name it first in the file "checkpoint" beside it.'
    ) from None


def step_of(checkpoint):
  """The global step in a checkpoint's name, or in it if it was renamed.

  Args:
    checkpoint: path prefix, such as .../model.ckpt-N.

  Raises:
    ValueError: there is no such checkpoint, or it is damaged.
  """
  step = re.fullmatch(r".*-(\d+)", os.path.basename(checkpoint), re.ASCII)
  if step:
    return int(step[1])
  with telling_damage(checkpoint):
    return int(tf.train.load_checkpoint(checkpoint).get_tensor("global_step"))


def export(checkpoint, values, output_dir, k=TOP_K):
  """Writes a SavedModel, replacing what is at output_dir as a whole.

  Its signature `serving_default` takes `example_bytes`, string [B], serialised
  records of the model's kind, and returns `video_id`, string [B], and
  `class_indexes`, int32 [B, K], with `predictions`, float32 [B, K], best first.

  Args:
    checkpoint: path prefix.
    values: dict of the model flags.
    output_dir: str.
    k: int >= 1; at most as many as there are classes.

  Raises:
    ValueError: the checkpoint is not of that model, or output_dir holds
      something else than a SavedModel.
  """
  output_dir = output_dir.rstrip("/")
  if tf.io.gfile.exists(output_dir) and not (
    tf.io.gfile.exists(os.path.join(output_dir, "saved_model.pb"))
    or not tf.io.gfile.listdir(output_dir)
  ):
    raise ValueError(f"{output_dir} holds something else than a SavedModel.")
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
    restore(session, checkpoint)
    signature = tf.saved_model.predict_signature_def(
      inputs={"example_bytes": records},
      outputs={
        "video_id": batch["video_ids"],
        "class_indexes": classes,
        "predictions": scores,
      },
    )
    temporary = f"{output_dir}.tmp"
    for leftover in (temporary, f"{output_dir}.old"):
      if tf.io.gfile.exists(leftover):
        tf.io.gfile.rmtree(leftover)
    builder = tf.saved_model.Builder(temporary)
    builder.add_meta_graph_and_variables(
      session,
      [tf.saved_model.SERVING],
      signature_def_map={"serving_default": signature},
      clear_devices=True,
    )
    builder.save()
  if tf.io.gfile.exists(output_dir):
    tf.io.gfile.rename(output_dir, f"{output_dir}.old")
  tf.io.gfile.rename(temporary, output_dir)
  if tf.io.gfile.exists(f"{output_dir}.old"):
    tf.io.gfile.rmtree(f"{output_dir}.old")
  logging.info("Exported %s to %s.", checkpoint, output_dir)
