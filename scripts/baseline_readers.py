"""Readers of one record at a time: baselines of `benchmark.py`.

Both parse each record alone, dequantise it to float32 and pad it to
`max_frames`; such records wait in a shuffle buffer, and are stacked. Each
yields the numbers of our reader (`tests/benchmark_test.py`).

Axes: B videos, T frames, D features, C classes.
"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf


class Records(NamedTuple):
  """What is read.

  Attributes:
    paths: files of frame-level records.
    feature_names: the features that are read.
    feature_sizes: their sizes, which sum to D.
    num_classes: C.
    max_frames: T; frames behind them are dropped.
  """

  paths: Sequence[str]
  feature_names: Sequence[str]
  feature_sizes: Sequence[int]
  num_classes: int
  max_frames: int


def _parse(records, serialized):
  """One record: dict of tensors without the axis B."""
  context, lists = tf.io.parse_single_sequence_example(
    serialized,
    context_features={
      "id": tf.io.FixedLenFeature([], tf.string),
      "labels": tf.io.VarLenFeature(tf.int64),
    },
    sequence_features={
      name: tf.io.FixedLenSequenceFeature([], tf.string)
      for name in records.feature_names
    },
  )
  features = []
  for name, size in zip(records.feature_names, records.feature_sizes):
    stored = tf.reshape(tf.io.decode_raw(lists[name], tf.uint8), [-1, size])
    floats = tf.cast(stored, tf.float32) * (4.0 / 255.0)
    frames = (floats + (4.0 / 512.0 - 2.0))[: records.max_frames]
    num_frames = tf.shape(frames)[0]
    padding = tf.zeros([records.max_frames - num_frames, size])
    features.append(tf.concat([frames, padding], axis=0))
  labels = context["labels"].values[:, tf.newaxis]
  indicator = tf.scatter_nd(
    labels, tf.ones_like(labels[:, 0], tf.int32), [records.num_classes]
  )
  return {
    "video_ids": context["id"],
    "features": tf.ensure_shape(
      tf.concat(features, axis=1),
      [records.max_frames, sum(records.feature_sizes)],
    ),
    "num_frames": num_frames,
    "labels": indicator > 0,
  }


def starter_batches(
  records: Records,
  *,
  batch_size: int,
  num_readers: int,
  num_epochs: int | None = 1,
):
  """Batches as the YouTube-8M starter code makes them.

  Queues that threads of Python fill record by record: one of file names, and
  one that shuffles, of the starter code's size, five batches.

  Args:
    records: what is read.
    batch_size: int, B.
    num_readers: int, threads that read and parse.
    num_epochs: int, passes over the files; None for no end.

  Returns:
    Dict of the next batch's tensors, like `plain_batches`', for a session with
    `running_queues`; the files having ended, they raise
    `tf.errors.OutOfRangeError`.
  """
  files = tf.train.string_input_producer(list(records.paths), num_epochs)
  parsed = []
  for _ in range(num_readers):
    _, serialized = tf.TFRecordReader().read(files)
    one = _parse(records, serialized)
    parsed.append({name: tf.expand_dims(one[name], 0) for name in one})
  return tf.train.shuffle_batch_join(
    parsed,
    batch_size=batch_size,
    capacity=5 * batch_size,
    min_after_dequeue=batch_size,
    enqueue_many=True,
    allow_smaller_final_batch=True,
  )


@contextlib.contextmanager
def running_queues(session):
  """Starts what `starter_batches` needs in a session, and stops it."""
  session.run(tf.local_variables_initializer())
  coordinator = tf.train.Coordinator()
  threads = tf.train.start_queue_runners(session, coordinator)
  try:
    yield
  finally:
    coordinator.request_stop()
    coordinator.join(threads)


def plain_batches(
  records: Records,
  *,
  batch_size: int,
  num_readers: int,
  num_epochs: int | None = 1,
  shuffle_buffer: int = 1024,
):
  """Batches by `tf.data`.

  Args:
    records: what is read.
    batch_size: int, B.
    num_readers: int, records parsed, and files read, at the same time.
    num_epochs: int, passes over the files; None for no end.
    shuffle_buffer: int.

  Returns:
    `tf.data.Dataset` of a dict: `video_ids` string [B], `features` float32
    [B, T, D] with zeros behind a video's frames, `num_frames` int32 [B],
    `labels` bool [B, C].
  """
  data = tf.data.Dataset.from_tensor_slices(list(records.paths))
  data = data.repeat(num_epochs)
  data = data.interleave(
    tf.data.TFRecordDataset,
    cycle_length=num_readers,
    num_parallel_calls=num_readers,
    deterministic=False,
  )
  data = data.map(
    lambda serialized: _parse(records, serialized),
    num_parallel_calls=num_readers,
    deterministic=False,
  )
  data = data.shuffle(shuffle_buffer)
  return data.batch(batch_size).prefetch(2)
