"""The reader of `benchmark.py` against those of `baseline_readers`."""

import contextlib
import functools
import time

import numpy as np
import tensorflow.compat.v1 as tf

import program
import readers
from scripts import baseline_readers
from scripts import benchmark_tools as tools
from scripts.benchmark_units import FEATURES, GIGA, Rows, Settings, run_forked

_INPUT_BATCH = 64
# Batches that are read in one go.
_READ_BATCHES = 64
# As train.py's defaults have it.
_READING = {"batch_size": _INPUT_BATCH, "num_readers": 8, "num_epochs": None}


def _records(settings):
  return baseline_readers.Records(
    readers.expand_data_pattern(settings.pattern("frame")),
    list(FEATURES),
    list(settings.feature_sizes),
    settings.num_classes,
    settings.max_frames,
  )


def _our_data(settings):
  own = _records(settings)._asdict()
  paths = own.pop("paths")
  # Shorter than the shuffle buffer, an epoch would be drained to its end.
  count = max(1, readers.estimate_num_records(paths))
  paths *= -(-_READ_BATCHES * _INPUT_BATCH // count)
  return readers.YT8MFrameFeatureReader(**own).batches(
    paths,
    deterministic=False,
    shuffle_buffer=settings.shuffle_buffer,
    **_READING,
  )


def _plain_data(settings):
  return baseline_readers.plain_batches(
    _records(settings), shuffle_buffer=settings.shuffle_buffer, **_READING
  )


@contextlib.contextmanager
def _dataset_reading(data_of, settings):
  """Function that reads on, and returns how many videos it has read."""
  with tf.Graph().as_default():
    iterator = tf.data.make_initializable_iterator(data_of(settings))
    # Nothing but the number leaves the session, though all of a batch is made.
    size = tf.size(iterator.get_next()["num_frames"])
    with tf.Session(config=program.session_config()) as session:
      session.run(iterator.initializer)
      yield lambda: _read_on(session, size)


@contextlib.contextmanager
def _starter_reading(settings):
  """Like `_dataset_reading`, by the starter code's queues."""
  with tf.Graph().as_default():
    batch = baseline_readers.starter_batches(_records(settings), **_READING)
    size = tf.size(batch["num_frames"])
    with (
      tf.Session(config=program.session_config()) as session,
      baseline_readers.running_queues(session),
    ):
      yield lambda: _read_on(session, size)


def _read_on(session, size):
  return sum(int(session.run(size)) for _ in range(_READ_BATCHES))


_READERS = {
  "ours": functools.partial(_dataset_reading, _our_data),
  "plain tf.data": functools.partial(_dataset_reading, _plain_data),
  "starter code's": _starter_reading,
}


def reading(settings: Settings) -> Rows:
  """The readers, their buffers full: speed, processor time, memory."""
  peaks = {way: run_forked(_memory, settings, way=way) for way in _READERS}
  processor = {way: [] for way in _READERS}
  videos = {}

  def timed(way, read):
    before = time.process_time()
    videos[way] = read()
    processor[way].append(time.process_time() - before)

  with contextlib.ExitStack() as stack:
    reads = {
      way: stack.enter_context(reading_of(settings))
      for way, reading_of in _READERS.items()
    }
    for read in reads.values():
      read()
    rounds = tools.measure(
      {way: functools.partial(timed, way, read) for way, read in reads.items()},
      **settings.budget,
      warm_ups=0,
    )
  used = tools.Rounds(processor)
  buffered = 4 * settings.max_frames * sum(settings.feature_sizes)
  return {
    way: {
      "videos_per_second": videos[way] / rounds.median(way),
      "videos_per_cpu_second": videos[way] / used.median(way),
      "thousand_videos_cpu_seconds": 1000 * used.median(way) / videos[way],
      "speedup": rounds.ratio("starter code's", way),
      "cpu_time_speedup": used.ratio("starter code's", way),
      "buffered_record_bytes": (
        _mean_record_bytes(settings) if way == "ours" else buffered
      ),
      **peaks[way],
      "repeats": rounds.repeats,
    }
    for way in _READERS
  }


def _mean_record_bytes(settings):
  paths = readers.expand_data_pattern(settings.pattern("frame"))
  sizes = [
    len(record)
    for path in paths[:1]
    for record in tf.python_io.tf_record_iterator(path)
  ]
  return float(np.mean(sizes))


def _memory(settings, way):
  """Peak memory of a process that reads."""
  with _READERS[way](settings) as read:
    before = tools.current_bytes()
    read()
  peak = tools.peak_bytes()
  return {"peak_gb": peak / GIGA, "reading_gb": (peak - before) / GIGA}
