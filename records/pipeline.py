"""From files to batches of serialized records: order, epochs, holdout.

    files -> chunks of records -> [holdout] -> shuffle -> batch

Axes: R records.
"""

import dataclasses
import functools

import tensorflow.compat.v1 as tf

from records import chunks, tensors

_HASH_BUCKETS = 1 << 31


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How to read.

  Attributes:
    batch_size: B; the last batch, and one with skipped records, is smaller,
      never empty.
    num_readers: files read at the same time.
    num_epochs: passes over the data; None for no end.
    first_epoch: passes already done: numbers the epochs, and varies the
      shuffling.
    shuffle_buffer: records to draw from; 0 keeps the order of the files.
    seed: of the shuffling, or None.
    deterministic: the same order each time, at some cost in speed.
    holdout_fraction: in [0, 1), share of the videos that is set aside, by a
      hash of their id.
    holdout: read only what is set aside, or all but that.
    use_labels: report labels out of range, and with segment labels give the
      rated segments; False passes over them, and gives all segments.
    skip_unlabelled: with use_labels: skip videos without labels, and report
      them.
    skip_frameless: skip videos without frames; reported they are anyway.
    strict: raise at the first record that can't be used as it stands.
    shard: (number of the reader, from 0, number of readers): each reads a part,
      all of them each record once an epoch. A part is every so many-th file,
      others in the next epoch; of fewer files than readers, every so many-th
      record.
    service: address of a tf.data service that reads instead, see `remote.py`;
      "" for none. It deals out records by itself: it needs no shard.
    job: name that readers share who are to share out its records.

  Raises:
    ValueError: holdout_fraction outside [0, 1), or holdout without it.
  """

  batch_size: int
  num_readers: int = 8
  num_epochs: int | None = 1
  first_epoch: int = 0
  shuffle_buffer: int = 0
  seed: int | None = None
  deterministic: bool = True
  holdout_fraction: float = 0.0
  holdout: bool = False
  use_labels: bool = True
  skip_unlabelled: bool = False
  skip_frameless: bool = True
  strict: bool = False
  shard: tuple[int, int] = (0, 1)
  service: str = ""
  job: str | None = None

  def __post_init__(self):
    fraction = self.holdout_fraction
    if not 0.0 <= fraction < 1.0 or (self.holdout and not fraction):
      raise ValueError(
        "Need 0 <= --holdout_fraction < 1, and above 0 with --holdout, got "
        f"{fraction}."
      )


def record_batches(files, options, report, *, parse_ids):
  """Batches of the records of files.

  Args:
    files: list of str.
    options: `Options`.
    report: `report.ReadReport`, told what can't be read.
    parse_ids: function of records [R] to their ids, string [R]; it may fail.

  Returns:
    Dataset of (string [R] records, string [R] file of each, int64 [R] its
    number there, int64 [R] epoch of each), R = batch_size but in the end.
  """
  paths = tf.constant(files)
  num_readers = max(1, min(options.num_readers, len(files)))
  record_chunks = chunks.RecordChunks(report)
  shard, num_shards = options.shard
  by_record = len(files) < num_shards

  def chunks_of_file(index, epoch):
    """Adds to each record: file, number in it, epoch, is it to be used?"""

    def placed(records, numbers):
      used = tf.fill(tf.shape(numbers), True)
      if by_record:
        used = tf.equal((numbers + epoch) % num_shards, shard)
      return (
        records,
        tf.fill(tf.shape(numbers), index),
        numbers,
        tf.fill(tf.shape(numbers), epoch),
        used,
      )

    return record_chunks.of_file(paths[index]).map(placed)

  def one_epoch(epoch):
    seed = None if options.seed is None else epoch + options.seed
    data = tf.data.Dataset.range(len(files))
    if not by_record:
      data = data.shard(num_shards, (shard + epoch) % num_shards)
    if options.shuffle_buffer:
      data = data.shuffle(len(files), seed=seed)
    data = data.interleave(
      functools.partial(chunks_of_file, epoch=epoch),
      cycle_length=num_readers,
      num_parallel_calls=num_readers,
      deterministic=options.deterministic,
    )
    data = sided(data, options, parse_ids)
    if options.num_epochs is None:
      data = _fail_without_records(data, report, num_shards)
    return mixed(data, options, seed)

  first, last = options.first_epoch, options.num_epochs
  last = tensors.ALL if last is None else max(first, last)
  return batched(
    tf.data.Dataset.range(first, last).flat_map(one_epoch), paths, options
  )


def sided(data, options, parse_ids):
  """Chunks whose records are marked, if on the wanted side of the holdout."""
  if not options.holdout_fraction:
    return data
  return data.map(functools.partial(_choose_side, parse_ids, options))


def mixed(data, options, seed):
  """Records of chunks that are to be used, shuffled."""
  data = data.unbatch()
  if options.holdout_fraction or options.shard[1] > 1:
    data = data.filter(lambda *record: record[-1])
  if options.shuffle_buffer:
    data = data.shuffle(options.shuffle_buffer, seed=seed)
  return data


def batched(data, paths, options):
  """Batches of records, as `record_batches` gives them."""
  return data.batch(options.batch_size).map(
    lambda records, indices, numbers, epochs, _: (
      records,
      tf.gather(paths, indices),
      numbers,
      epochs,
    )
  )


def _choose_side(parse_ids, options, records, *places):
  """Marks the records of a chunk that are on the wanted side of the holdout.

  They are marked and not picked: picking would copy them.

  A record without an id, or one that does not parse, is not anybody's to hold
  out: it stays in training, which reports it.
  """
  limit = round(options.holdout_fraction * _HASH_BUCKETS)

  def side(records):
    ids = parse_ids(records)
    held = tf.strings.to_hash_bucket_fast(ids, _HASH_BUCKETS) < limit
    return tf.equal(held & tf.not_equal(ids, ""), options.holdout)

  def side_of_one(record):
    alone = tf.data.Dataset.from_tensors(tf.expand_dims(record, 0))
    neither = tf.data.Dataset.from_tensors([not options.holdout])
    return tensors.try_else(alone.map(side), neither)

  whole = tf.data.Dataset.from_tensors(records).map(side)
  one_by_one = tf.data.Dataset.from_tensor_slices(records)
  one_by_one = one_by_one.flat_map(side_of_one).unbatch().batch(tensors.ALL)
  kept = tensors.try_else(whole, one_by_one).get_single_element()
  return records, *places[:-1], kept & places[-1]


def _fail_without_records(data, report, num_shards):
  """Fails epochs of no record, which else would be repeated for ever.

  As many as there are shards: each epoch reads another one.
  """
  count = num_empty = 0

  def add(number):
    nonlocal count
    count += int(number)
    return number

  def end(number):
    nonlocal count, num_empty
    num_empty = 0 if count else num_empty + 1
    if num_empty == num_shards:
      report.fail("The files hold no record (that is not held out).")
    count = 0
    return number

  def calling(function, *chunk):
    wanted = tf.math.count_nonzero(chunk[-1])
    number = tf.numpy_function(function, [wanted], tf.int64)
    with tf.control_dependencies([number]):
      return tf.nest.map_structure(tf.identity, chunk)

  empty = tf.data.Dataset.from_tensors(
    tuple(tf.zeros([0], spec.dtype) for spec in data.element_spec)
  )
  return data.map(functools.partial(calling, add)).concatenate(
    empty.map(functools.partial(calling, end))
  )
