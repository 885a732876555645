"""A checkpoint as one predict graph: evaluation, inference and export share it.

The graph is built anew from `model_flags.json` with is_training=False; no
meta-graph is imported, so that nothing of the training remains in it.

Axes: B videos, C classes, K predictions kept for each video.
"""

import contextlib
import functools
import itertools
import os
from concurrent import futures

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

import model_flags
import readers
from checkpoints import compression, description, restore, saved_model
from console import program
from models import scopes
from records import vocabulary as vocabulary_lib

# Predictions for each video in metrics and submissions: Kaggle's GAP@20.
TOP_K = 20

NO_DESCRIPTOR = (
  "The model makes no descriptor: a video-level model classifies the features "
  "themselves."
)

# Batches that are predicted at the same time.
_AT_ONCE = 2


def predict(model, batch, num_classes, scope=scopes.SCOPE):
  """Probabilities of every class, float32 [B, C]; see `outputs`."""
  return outputs(model, batch, num_classes, scope)["predictions"]


def outputs(model, batch, num_classes, scope=scopes.SCOPE):
  """What a model makes of videos.

  Args:
    model: `models.BaseModel`.
    batch: dict as `readers.py` makes it.
    num_classes: int, C.
    scope: str, where the model's variables are: another for each model of a
      graph. See `checkpoints.restore.restore`.

  Returns:
    dict of `predictions`, float32 [B, C]; and of `descriptor`, float32 [B,
    any], of models that make one.
  """
  with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
    model_input, num_frames = model.prepare_input(
      batch["features"], batch["num_frames"], is_training=False
    )
    result = model.create_model(
      model_input, num_classes, num_frames=num_frames, is_training=False
    )
  return {
    name: tf.cast(result[name], tf.float32)
    for name in ("predictions", "descriptor")
    if name in result
  }


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
    report: `records.report.ReadReport` of the reader.

  Yields:
    The values of the fetches, batch by batch in the order of the numbers.

  Raises:
    StrictRecordError: the reader gave up.
    tf.errors.OpError: anything else that fails a run, of the batch that would
      be next or of the one after it.
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


class Predictor:
  """Predicts for all videos of some files, batch by batch.

    with Predictor(values, paths, fetch, batch_size=256) as videos:
      checkpoint = videos.restore(train_dir)
      for found in videos:
        ...

  Batches come in their order; two are in work at a time.

  Attributes:
    reader: `readers.BaseReader`, whose report says what could not be read.
  """

  def __init__(self, values, paths, fetch, describes=False, **data):
    """Keeps the configuration.

    Args:
      values: dict of the model flags.
      paths: list of str, the files.
      fetch: function of a batch, as `readers.py` makes it, and of its
        predictions, float32 [B, C]; it returns what is wanted of each batch:
        tensors, in what `session.run` takes.
      describes: bool, whether the function takes the videos' descriptors as
        well, float32 [B, any].
      **data: see `readers.BaseReader.batches`.
    """
    self.reader = model_flags.build_reader(values)
    self._model = model_flags.build_model(values)
    self._paths = paths
    self._fetch = fetch
    self._describes = describes
    self._data = data
    self._stack = contextlib.ExitStack()

  def __enter__(self):
    with contextlib.ExitStack() as stack:
      stack.enter_context(tf.Graph().as_default())
      data = self.reader.batches(
        self._paths,
        # Every video is predicted for, and has a row in a submission.
        skip_frameless=False,
        **self._data,
      )
      self._iterator = tf.data.make_initializable_iterator(data.enumerate())
      self._number, batch = self._iterator.get_next()
      self._fetches = tf.size(batch["num_frames"]), self._outputs(batch)
      self._session = stack.enter_context(
        tf.Session(config=program.session_config())
      )
      self._stack = stack.pop_all()
    return self

  def _outputs(self, batch):
    """What the function that is to choose them makes of a batch."""
    num_classes = self.reader.num_classes
    if not self._describes:
      return self._fetch(batch, predict(self._model, batch, num_classes))
    found = outputs(self._model, batch, num_classes)
    if "descriptor" not in found:
      raise ValueError(NO_DESCRIPTOR)
    return self._fetch(batch, found["predictions"], found["descriptor"])

  def __exit__(self, *exc_info):
    return self._stack.__exit__(*exc_info)

  def restore(self, source):
    """Restores the model: the path prefix of its checkpoint.

    Args:
      source: path prefix of a checkpoint, or a train_dir for the newest.

    Raises:
      ValueError: see `checkpoints.restore.restore_newest`.
    """
    return restore.restore_newest(self._session, source)

  def first(self):
    """What is fetched of the first batch; None if there is no video."""
    self._session.run(self._iterator.initializer)
    try:
      return self._session.run(self._fetches)[1]
    except tf.errors.OutOfRangeError:
      return None

  def __iter__(self):
    """Yields what was fetched of each batch, and shows how far it is."""
    self._session.run(self._iterator.initializer)
    total = readers.estimate_num_records(self._paths)
    if self._data.get("holdout"):
      total = round(total * self._data["holdout_fraction"])
    bar = self._stack.enter_context(program.progress_bar(total, "videos"))
    batches = run_batches(
      self._session, self._number, self._fetches, self.reader.report
    )
    # Whoever leaves early waits for what is running before the session closes.
    self._stack.callback(batches.close)
    for count, found in batches:
      yield found
      bar.update(count)


def export(
  source,
  values,
  output_dir=None,
  k=TOP_K,
  dtype="float32",
  train_dir="",
  vocabulary="",
):
  """Writes a SavedModel, replacing one at output_dir as a whole.

  Its signature `serving_default` takes `example_bytes`, string [B], serialised
  records of the model's kind, and returns `video_id`, string [B], and
  `class_indexes`, int32 [B, K], with `predictions`, float32 [B, K], best first;
  and `class_names`, string [B, K], if the classes have names.

  Args:
    source: path prefix of the checkpoint, or a train_dir for the newest.
    values: dict of the model flags.
    output_dir: str; `export/step_N` beside the checkpoint if not given.
    k: int >= 1; at most as many as there are classes.
    dtype: one of `compression.DTYPES`, what large weights are stored as.
    train_dir: str, where the vocabulary and features.json are; where the
      checkpoint is if not given.
    vocabulary: str, path of the classes' names; the train_dir's if not given.

  Raises:
    ValueError: the checkpoint is not of that model, or output_dir holds
      something else than a SavedModel, or a weight does not fit the dtype.
  """
  if output_dir:
    saved_model.check_replaceable(output_dir)
  if not train_dir:
    is_dir = tf.io.gfile.isdir(source)
    train_dir = source if is_dir else os.path.dirname(source)
  vocabulary = vocabulary or vocabulary_lib.find(train_dir)
  names = vocabulary_lib.of_model(vocabulary, train_dir)

  add_facts = functools.partial(_add_facts, values, train_dir, vocabulary)

  def exporting(storage):
    return _exporting(values, k, storage, names)

  with exporting(compression.Compression("float32")) as (session, signature):
    signature["add_facts"] = add_facts
    checkpoint = restore.restore_newest(session, source)
    output_dir = output_dir or saved_model.default_dir(checkpoint)
    if dtype == "float32":
      saved_model.write(session, output_dir, **signature)
    else:
      weights = session.run({v.op.name: v for v in scopes.variables()})
  if dtype != "float32":
    small = compression.Compression(dtype)
    with exporting(small) as (session, signature):
      signature["add_facts"] = add_facts
      small.load(weights, session)
      saved_model.write(session, output_dir, **signature)
    _tell_smaller(small, dtype, weights)
  logging.info("Exported %s to %s.", checkpoint, output_dir)


def _add_facts(values, train_dir, vocabulary, directory):
  """Puts what is known of a model into a directory, of its SavedModel."""
  model_flags.save(directory, values)
  description.copy(train_dir, directory)
  if vocabulary:
    path = os.path.join(directory, vocabulary_lib.FILE_NAME)
    tf.io.gfile.copy(vocabulary, path, overwrite=True)


def _tell_smaller(small, dtype, weights):
  """Logs what a `compression.Compression` saved."""
  before = sum(value.nbytes for value in weights.values())
  logging.info(
    "--export_dtype=%s: %d large weights are smaller; variables take %.2f MB "
    "in place of %.2f MB.",
    dtype,
    small.count,
    small.num_bytes / 1e6,
    before / 1e6,
  )


@contextlib.contextmanager
def _exporting(values, k, storage, names):
  """Builds the graph of an export.

  Args:
    values: dict of the model flags.
    k: int, predictions of a video.
    storage: `compression.Compression`.
    names: `vocabulary.Vocabulary`.

  Yields:
    (session, its variables without values; dict of `inputs` and `outputs`).
  """
  reader = model_flags.build_reader(values)
  model = model_flags.build_model(values)
  # A training that exports has its GPUs in use.
  config = tf.ConfigProto(allow_soft_placement=True, device_count={"GPU": 0})
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    # No initial value is used, but deterministic runs want their seed.
    tf.set_random_seed(0)
    records = tf.placeholder(tf.string, [None], name="example_bytes")
    batch = reader.parse_serialized(records)
    with tf.variable_scope("", custom_getter=storage.getter):
      predictions = predict(model, batch, reader.num_classes)
    classes, scores = top_k(predictions, k)
    found = {
      "video_id": batch["video_ids"],
      "class_indexes": classes,
      "predictions": scores,
    }
    if len(names):
      texts = [names.name(i) for i in range(reader.num_classes)]
      found["class_names"] = tf.gather(tf.constant(texts), classes)
    yield session, {"inputs": {"example_bytes": records}, "outputs": found}
