"""Batches of records that a tf.data service reads on other machines.

What is sent to its workers is made of TensorFlow's own operations alone. So
they read files as TensorFlow's reader does, which fails at the first damage:
there is no salvage.

    files of all epochs -> chunks -> [holdout] -> shuffle | -> batch

What stands before the bar is done by the service. Each file of each epoch is
given to one of its workers, and each record to one of the readers that name the
same job.
"""

import warnings

import tensorflow.compat.v1 as tf

from records import framing, pipeline, tensors

# Records that are sent at once.
_RECORDS = 32


def record_batches(files, options, report, *, parse_ids):
  """As `pipeline.record_batches`, for options with a service."""
  del report  # Workers have none.
  paths = tf.constant(files)
  first, last = options.first_epoch, options.num_epochs
  last = tensors.ALL // len(files) if last is None else max(first, last)
  num_readers = max(1, min(options.num_readers, len(files)))
  opened = framing.look(files[0])
  compression = opened.compression if opened else ""

  def chunks_of_file(place):
    """Chunks of a file of an epoch, see `pipeline`; places count on."""
    epoch, index = place // len(files), place % len(files)
    if options.shuffle_buffer:
      index = tf.random.experimental.index_shuffle(
        index, seed=[options.seed or 0, epoch], max_index=len(files) - 1
      )
    data = tf.data.TFRecordDataset(
      [paths[index]], compression_type=compression, buffer_size=1 << 20
    )
    return (
      data.batch(_RECORDS)
      .enumerate()
      .map(
        lambda chunk, records: (
          records,
          tf.fill(tf.shape(records), index),
          chunk * _RECORDS + tf.range(tf.size(records, out_type=tf.int64)),
          tf.fill(tf.shape(records), epoch),
          tf.fill(tf.shape(records), True),
        )
      )
    )

  data = tf.data.Dataset.range(first * len(files), last * len(files))
  data = data.interleave(
    chunks_of_file,
    cycle_length=num_readers,
    num_parallel_calls=num_readers,
    deterministic=False,
  )
  data = pipeline.sided(data, options, parse_ids)
  data = pipeline.mixed(data, options, options.seed)
  service = tf.data.experimental.service
  with warnings.catch_warnings():
    # Of how a graph keeps options.
    warnings.simplefilter("ignore", UserWarning)
    data = data.batch(_RECORDS).apply(
      service.distribute(
        processing_mode=service.ShardingPolicy.DYNAMIC,
        service=options.service,
        job_name=options.job,
        compression=None,  # Frames are noise to it.
      )
    )
  return pipeline.batched(data.unbatch(), paths, options)
