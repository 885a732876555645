"""TFRecords to batches, as tf.data pipelines.

What leaves a reader is a dict of tensors:

- `video_ids`: string [B].
- `features`: uint8 [N, D] for frames, those of one video after those of the
  other, N = sum(num_frames); float32 [B, D] for video-level features.
- `num_frames`: int32 [B]; ones for video-level features.
- `labels`: bool [B, C].
- `label_weights`: float32 [B, C], of segments alone: 1 where a rater judged the
  class, else 0.

With segment labels a segment takes the place of a video; its id is `id:start`.

Nothing is padded or dequantised here: the model does it, where the device is.

A record that can't be used as it stands costs no other video anything. It is
skipped or cut as `read_report.KINDS` says, and counted in the reader's report.

    files -> chunks of records -> [holdout] -> shuffle -> batch -> parse, check

Records that fail to parse make TensorFlow fail the whole batch; such a batch is
then parsed once more, record by record (see `_try_else`).

Axes: B videos, N frames of the whole batch, D features of all kinds, C classes,
R records read for a batch.
"""

import functools
import os

import numpy as np
import tensorflow.compat.v1 as tf

import read_report
import record_salvage
import segments

# Records that leave a file at once; checks by chunk then cost next to nothing.
_CHUNK_RECORDS = 32
_READ_BUFFER_BYTES = 1 << 20
_HASH_BUCKETS = 1 << 31
# Batches that are parsed at the same time: each is held in memory.
_PARSED_AT_ONCE = min(4, os.cpu_count() or 1)
# As many as there are.
_ALL = np.iinfo(np.int64).max


def expand_data_pattern(pattern, flag_name="data_pattern"):
  """Lists the files that a data flag names.

  Args:
    pattern: comma-separated globs, files or directories, local or of any file
      system TensorFlow knows (gs://...); of a directory, its *.tfrecord files.
    flag_name: the flag, for the error.

  Returns:
    list of str, sorted, each file once.

  Raises:
    ValueError: nothing given, or one of the globs matches no file.
  """
  parts = [part.strip() for part in pattern.split(",") if part.strip()]
  if not parts:
    raise ValueError(
      f"--{flag_name} is empty: give the files to read, such as "
      f"--{flag_name}='/data/yt8m/train*.tfrecord'."
    )
  files = set()
  for part in parts:
    found = set()
    for path in tf.io.gfile.glob(part):
      if tf.io.gfile.isdir(path):
        found.update(tf.io.gfile.glob(os.path.join(path, "*.tfrecord")))
      else:
        found.add(path)
    if not found:
      raise ValueError(
        f"--{flag_name}: no file matches {part!r}. Is the path right, and is "
        "a glob quoted, so that the shell leaves it alone?"
      )
    files |= found
  return sorted(files)


def estimate_num_records(paths, sample=32):
  """About how many records the files hold, from their sizes and first records.

  Args:
    paths: list of str.
    sample: int, files to look into.

  Returns:
    int; 0 if nothing can be told.
  """
  sampled = paths[:: max(1, len(paths) // sample)]
  sizes, lengths = [], []
  for path in sampled:
    try:
      sizes.append(tf.io.gfile.stat(path).length)
      lengths += record_salvage.first_lengths(path)
    except tf.errors.OpError:
      continue  # Reading it will report it.
  if not lengths:
    return 0
  total = sum(sizes) * len(paths) / len(sizes)
  return round(total / (sum(lengths) / len(lengths)))


class BaseReader:
  """What the readers of frames and of video-level features share."""

  def __init__(self, *, feature_names, feature_sizes, num_classes):
    """Keeps the configuration.

    Args:
      feature_names: list of str, keys of the features in the records.
      feature_sizes: list of int >= 1, the length of each.
      num_classes: int >= 2, C; labels are 0 to C - 1.

    Raises:
      ValueError: no feature, a name twice, lists of unequal length, or a number
        that is too small.
    """
    if (
      not feature_names
      or len(feature_names) != len(feature_sizes)
      or len(set(feature_names)) != len(feature_names)
    ):
      raise ValueError(
        "Need one size for each feature name, and no name twice, got "
        f"--feature_names={','.join(feature_names)} "
        f"--feature_sizes={','.join(map(str, feature_sizes))}."
      )
    if min(feature_sizes) < 1 or num_classes < 2:
      raise ValueError(
        "Need --feature_sizes >= 1 and --num_classes >= 2, got "
        f"{feature_sizes} and {num_classes}."
      )
    self.feature_names = list(feature_names)
    self.feature_sizes = list(feature_sizes)
    self.num_classes = num_classes
    self.report = read_report.ReadReport()

  def batches(
    self,
    files,
    *,
    batch_size,
    num_readers=8,
    num_epochs=1,
    first_epoch=0,
    shuffle_buffer=0,
    seed=None,
    deterministic=True,
    holdout_fraction=0.0,
    holdout=False,
    require_labels=True,
    strict=False,
  ):
    """Builds the pipeline.

    Args:
      files: list of str.
      batch_size: int, B; the last batch, and one with skipped records, is
        smaller, never empty.
      num_readers: int, files read at the same time.
      num_epochs: int, passes over the data; None for no end.
      first_epoch: int, passes already done: numbers the epochs, and varies the
        shuffling.
      shuffle_buffer: int, records to draw from; 0 keeps the order of the files.
      seed: int or None, of the shuffling.
      deterministic: bool, the same order each time, at some cost in speed.
      holdout_fraction: float in [0, 1), share of the videos that is set aside,
        by a hash of their id.
      holdout: bool, read only what is set aside, or all but that.
      require_labels: bool, skip a video without labels; False keeps it, and one
        without frames too.
      strict: bool, raise at the first record that can't be used as it stands.

    Returns:
      `tf.data.Dataset` of the module's dict, plus `epoch`, an int64 scalar.

    Raises:
      ValueError: holdout_fraction outside [0, 1), or holdout without it.
    """
    if not 0.0 <= holdout_fraction < 1.0 or (holdout and not holdout_fraction):
      raise ValueError(
        "Need 0 <= --holdout_fraction < 1, and above 0 with --holdout, got "
        f"{holdout_fraction}."
      )
    self.report = read_report.ReadReport(strict=strict)
    paths = tf.constant(files)
    num_readers = max(1, min(num_readers, len(files)))

    def one_epoch(epoch):
      data = tf.data.Dataset.range(len(files))
      if shuffle_buffer:
        data = data.shuffle(
          len(files), seed=None if seed is None else epoch + seed
        )
      data = data.interleave(
        lambda index: self._chunks(paths[index], index, epoch),
        cycle_length=num_readers,
        num_parallel_calls=num_readers,
        deterministic=deterministic,
      )
      if holdout_fraction:
        data = data.flat_map(
          functools.partial(
            self._split_chunk, fraction=holdout_fraction, holdout=holdout
          )
        )
      if num_epochs is None:
        data = self._guard_epoch(data)
      data = data.unbatch()
      if shuffle_buffer:
        data = data.shuffle(
          shuffle_buffer, seed=None if seed is None else epoch + seed
        )
      return data

    last = _ALL if num_epochs is None else num_epochs
    data = tf.data.Dataset.range(first_epoch, max(first_epoch, last))
    data = data.flat_map(one_epoch).batch(batch_size)
    data = data.interleave(
      lambda records, indices, numbers, epochs: self._parse_or_salvage(
        records, tf.gather(paths, indices), numbers
      ).map(
        lambda parsed: self._check(
          parsed,
          tf.gather(paths, indices),
          numbers,
          tf.reduce_max(epochs),
          require_labels,
        )
      ),
      cycle_length=_PARSED_AT_ONCE,
      num_parallel_calls=_PARSED_AT_ONCE,
      deterministic=deterministic,
    )
    data = data.filter(lambda batch: tf.size(batch["video_ids"]) > 0)
    options = tf.data.Options()
    options.deterministic = deterministic
    return data.with_options(options).prefetch(2)

  def parse_serialized(self, records):
    """Parses records that are known to be good, inside any graph.

    Args:
      records: string [R].

    Returns:
      The module's dict, with B = R. A record of another format fails the
      operation.
    """
    parsed = self._parse(records)
    with tf.control_dependencies(
      [
        tf.debugging.assert_equal(
          tf.reduce_all(parsed["usable"]),
          True,
          message="A record lacks a feature or has one of another size.",
        )
      ]
    ):
      return self._select(parsed, parsed["usable"], labelled=False)

  # From files to records.

  def _guard_epoch(self, chunks):
    """Fails an epoch of no record, which else would be repeated for ever."""
    count = np.zeros([], np.int64)

    def add(number):
      nonlocal count
      count += number
      return number

    def end():
      nonlocal count
      if not count:
        self.report.fail("The files hold no record (that is not held out).")
      count = np.zeros([], np.int64)
      return np.int64(0)

    def add_chunk(records, *places):
      number = tf.numpy_function(
        add, [tf.size(records, out_type=tf.int64)], tf.int64
      )
      with tf.control_dependencies([number]):
        return tf.identity(records), *places

    def end_chunk(records, *places):
      done = tf.numpy_function(end, [], tf.int64)
      with tf.control_dependencies([done]):
        return tf.identity(records), *places

    places = [np.zeros([0], np.int64)] * 3
    empty = tf.data.Dataset.from_tensors((tf.zeros([0], tf.string), *places))
    return chunks.map(add_chunk).concatenate(empty.map(end_chunk))

  def _chunks(self, path, index, epoch):
    """All intact records of a file, in chunks.

    TensorFlow's reader stops at the first damage. How far it came shows in the
    number of bytes that it gave; behind that, `record_salvage` reads on.

    Returns:
      Dataset of (records string [R], file index int64 [R], number of each
      record in the file int64 [R], epoch int64 [R]).
    """
    # A file that does not open would keep `ignore_errors` trying for ever;
    # `_salvage` reports it.
    opens = tf.numpy_function(record_salvage.can_open, [path], tf.bool)
    there = tf.boolean_mask([path], tf.reshape(opens, [1]))
    intact = tf.data.TFRecordDataset(there, buffer_size=_READ_BUFFER_BYTES)
    intact = intact.ignore_errors().batch(_CHUNK_RECORDS)
    # An empty chunk marks the end of what TensorFlow could read.
    end = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string))

    def measure(state, records):
      number, offset = state
      count = tf.size(records, out_type=tf.int64)
      framing = record_salvage.FRAMING_BYTES
      size = tf.reduce_sum(tf.cast(tf.strings.length(records), tf.int64))
      numbers = number + tf.range(count)
      state_after = (number + count, offset + size + count * framing)
      return state_after, (records, numbers, state_after)

    chunks = intact.concatenate(end).scan((np.int64(0), np.int64(0)), measure)

    def emit(records, numbers, state):
      tail = tf.data.Dataset.from_tensors(state)
      tail = tail.filter(lambda *_: tf.equal(tf.size(records), 0))
      tail = tail.flat_map(
        lambda number, offset: tf.data.Dataset.from_generator(
          self._salvage,
          output_signature=(
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([None], tf.int64),
          ),
          args=(path, number, offset),
        )
      )
      chunk = tf.data.Dataset.from_tensors((records, numbers))
      return chunk.concatenate(tail)

    chunks = chunks.flat_map(emit)
    return chunks.map(
      lambda records, numbers: (
        records,
        tf.fill(tf.shape(records), index),
        numbers,
        tf.fill(tf.shape(records), epoch),
      )
    )

  def _salvage(self, path, number, offset):
    """Generates the records behind a damage; reports the damage."""
    path = path.decode()
    for found in record_salvage.salvage_records(path, int(offset)):
      if isinstance(found, record_salvage.Damage):
        self.report.add(found.kind, path, int(number), found.detail)
      else:
        yield [found], [number]
      number += 1

  def _split_chunk(self, *chunk, fraction, holdout):
    """Keeps the records of a chunk (see `_chunks`) on one side of the holdout.

    A record without an id, or one that does not parse, is not anybody's to hold
    out: it stays in training, which reports it.
    """
    limit = round(fraction * _HASH_BUCKETS)

    def split(records, *places):
      ids = self._parse_ids(records)
      held = tf.strings.to_hash_bucket_fast(ids, _HASH_BUCKETS) < limit
      side = tf.equal(held & tf.not_equal(ids, ""), holdout)
      return tuple(
        tf.boolean_mask(values, side) for values in (records, *places)
      )

    def split_one(*record):
      alone = tf.data.Dataset.from_tensors(record).batch(1)
      kept = alone.take(0) if holdout else alone
      return _try_else(alone.map(split), kept)

    whole = tf.data.Dataset.from_tensors(chunk)
    one_by_one = whole.unbatch().flat_map(split_one).unbatch()
    return _try_else(whole.map(split), one_by_one.batch(_ALL))

  # From records to batches.

  def _parse_or_salvage(self, records, paths, numbers):
    """Dataset of one element: `_parse` of all records that parse."""
    whole = tf.data.Dataset.from_tensors(records)

    def parses(record):
      alone = tf.data.Dataset.from_tensors(tf.expand_dims(record, 0))
      good = alone.map(self._parse).map(lambda _: True)
      return _try_else(good, tf.data.Dataset.from_tensors(False))

    def salvage(good):
      bad = tf.logical_not(good)
      report = self._report_op(
        tf.boolean_mask(records, bad),
        tf.boolean_mask(paths, bad),
        tf.boolean_mask(numbers, bad),
      )
      with tf.control_dependencies([report]):
        kept = tf.identity(good)
      parsed = self._parse(tf.boolean_mask(records, kept))
      return {**parsed, "source": tf.where_v2(kept)[:, 0]}

    def number_sources(parsed):
      count = tf.size(parsed["records"], out_type=tf.int64)
      return {**parsed, "source": tf.range(count)}

    one_by_one = tf.data.Dataset.from_tensor_slices(records).flat_map(parses)
    one_by_one = one_by_one.batch(_ALL).map(salvage)
    return _try_else(whole.map(self._parse).map(number_sources), one_by_one)

  def _check(self, parsed, paths, numbers, epoch, require_labels):
    """Reports what is not as it should be, and keeps what can be used."""
    usable = parsed["usable"]
    flawed = parsed["flawed"]
    if require_labels:
      usable &= parsed["has_frames"] & parsed["has_labels"]
    else:
      # Without labels to learn from or score against, their absence is no flaw.
      flawed = tf.logical_not(usable) | parsed["unequal"]
      flawed |= tf.logical_not(parsed["has_frames"])
    paths = tf.gather(paths, parsed["source"])
    numbers = tf.gather(numbers, parsed["source"])
    report = tf.cond(
      tf.reduce_any(flawed),
      lambda: self._report_op(
        tf.boolean_mask(parsed["records"], flawed),
        tf.boolean_mask(paths, flawed),
        tf.boolean_mask(numbers, flawed),
        require_labels,
      ),
      lambda: tf.constant(0, tf.int64),
    )
    kept = tf.reduce_sum(tf.cast(usable, tf.int64))
    dropped = tf.size(usable, out_type=tf.int64) - kept
    noted = tf.numpy_function(self.report.note, [kept, dropped], tf.int64)
    with tf.control_dependencies([report, noted]):
      usable = tf.identity(usable)
    batch = self._select(parsed, usable, labelled=require_labels)
    return {**batch, "epoch": epoch}

  def _report_op(self, records, paths, numbers, require_labels=True):
    """Diagnoses flawed records in Python; int64 number of them."""

    def report(records, paths, numbers):
      for record, path, number in zip(records, paths, numbers):
        found = list(self._diagnose(record, require_labels))
        if not found:
          # Say, an id of two values: a message like ours, but not one.
          found = [("unparsable_record", "a value of another type or length")]
        for kind, detail in found:
          self.report.add(kind, path.decode(), int(number), detail)
      return np.int64(len(records))

    count = tf.numpy_function(report, [records, paths, numbers], tf.int64)
    return tf.reshape(count, [])

  def _labels(self, labels, num_records):
    """Labels as sets.

    Args:
      labels: int64 SparseTensor [R, any].
      num_records: R.

    Returns:
      (bool [R, C], bool [R] True where a label is outside [0, C)).
    """
    rows, values = labels.indices[:, 0], labels.values
    valid = (values >= 0) & (values < self.num_classes)
    places = tf.boolean_mask(tf.stack([rows, values], axis=1), valid)
    shape = tf.stack([num_records, self.num_classes])
    dense = tf.tensor_scatter_nd_update(
      tf.zeros(shape, tf.bool), places, tf.fill([tf.shape(places)[0]], True)
    )
    strays = tf.boolean_mask(rows, tf.logical_not(valid))
    stray = tf.tensor_scatter_nd_update(
      tf.zeros([num_records], tf.bool),
      strays[:, tf.newaxis],
      tf.fill([tf.shape(strays)[0]], True),
    )
    return dense, stray

  def _diagnose_labels(self, labels, require_labels):
    """Yields what is wrong with the labels of a record."""
    if not require_labels:
      return
    strays = [label for label in labels if not 0 <= label < self.num_classes]
    for label in strays:
      yield (
        "label_out_of_range",
        f"label {label}, where --num_classes={self.num_classes}",
      )
    if len(strays) == len(labels):
      yield "no_labels", f"{len(labels)} labels, none within the classes"


class YT8MAggregatedFeatureReader(BaseReader):
  """Reads tf.Examples of one float vector a feature: mean_rgb, mean_audio."""

  def _parse_ids(self, records):
    return _first_id(tf.io.parse_example(records, _ID_FEATURES))

  def _parse(self, records):
    """Parses records [R]; fails where a feature is missing or of another size.

    Returns:
      dict for `_check`: records, video_ids, features, labels, and bool [R]
      usable, flawed, unequal, has_frames, has_labels.
    """
    values = tf.io.parse_example(
      records,
      {
        **_ID_FEATURES,
        "labels": tf.io.VarLenFeature(tf.int64),
        **{
          name: tf.io.FixedLenFeature([size], tf.float32)
          for name, size in zip(self.feature_names, self.feature_sizes)
        },
      },
    )
    ids = _first_id(values)
    labels, stray = self._labels(values["labels"], tf.shape(records)[0])
    has_labels = tf.reduce_any(labels, axis=1)
    usable = tf.not_equal(ids, "")
    ones = tf.ones_like(usable)
    return {
      "records": records,
      "video_ids": ids,
      "features": tf.concat(
        [values[name] for name in self.feature_names], axis=1
      ),
      "labels": labels,
      "usable": usable,
      "flawed": tf.logical_not(usable & has_labels) | stray,
      "unequal": tf.logical_not(ones),
      "has_frames": ones,
      "has_labels": has_labels,
    }

  def _select(self, parsed, keep, labelled):
    """The module's dict of the records to keep, bool [R]."""
    del labelled  # Unlabelled videos come with labels of all False.
    batch = {
      name: tf.boolean_mask(parsed[name], keep)
      for name in ("video_ids", "features", "labels")
    }
    batch["num_frames"] = tf.ones_like(batch["video_ids"], dtype=tf.int32)
    return batch

  def _diagnose(self, record, require_labels):
    """Yields (kind, detail) of each flaw of one serialized record."""
    example = tf.train.Example()
    try:
      example.ParseFromString(record)
    except Exception as error:  # Whatever the protobuf library in use raises.
      yield "unparsable_record", f"not a tf.Example: {error}"
      return
    features = example.features.feature
    if not _has_id(features):
      yield "missing_id", f"it has {sorted(features)}"
    for name, size in zip(self.feature_names, self.feature_sizes):
      if name not in features:
        hint = ""
        if tf.train.SequenceExample.FromString(record).feature_lists.ByteSize():
          hint = "; it is a frame-level record: add --frame_features=True"
        yield "missing_feature", f"no {name!r} in {sorted(features)}{hint}"
        continue
      values = features[name].float_list.value
      if len(values) != size:
        yield (
          "bad_feature_size",
          f"{name!r} has {len(values)} floats, where --feature_sizes says "
          f"{size}",
        )
    labels = _numbers(features, "labels")
    yield from self._diagnose_labels(labels, require_labels)


class YT8MFrameFeatureReader(BaseReader):
  """Reads tf.SequenceExamples of one uint8 string a frame and feature."""

  def __init__(
    self,
    *,
    feature_names,
    feature_sizes,
    num_classes,
    max_frames=300,
    segment_labels=False,
  ):
    """Keeps the configuration.

    Args:
      feature_names: see `BaseReader`.
      feature_sizes: see `BaseReader`.
      num_classes: see `BaseReader`.
      max_frames: int >= 1; what a video has beyond is left out.
      segment_labels: bool, give the rated five-second segments of videos in the
        place of videos; or all of their segments, where labels do not matter.

    Raises:
      ValueError: see `BaseReader`; or max_frames < 1.
    """
    super().__init__(
      feature_names=feature_names,
      feature_sizes=feature_sizes,
      num_classes=num_classes,
    )
    if max_frames < 1:
      raise ValueError(f"Need --max_frames >= 1, got {max_frames}.")
    self.max_frames = max_frames
    self.segment_labels = segment_labels
    self._labels_key = "segment_labels" if segment_labels else "labels"

  def _parse_ids(self, records):
    context, _, _ = tf.io.parse_sequence_example(
      records, context_features=_ID_FEATURES
    )
    return _first_id(context)

  def _parse(self, records):
    """Parses records [R]; fails where one is no SequenceExample of bytes.

    Returns:
      dict for `_check`: records, video_ids, labels, num_frames int32 [R],
      `frames` (for each feature, its strings and their int32 [R + 1] splits),
      `whole` (whether all strings of all features are to be kept), with
      segment labels `ratings` (see `_parse_ratings`), and bool [R] usable,
      flawed, unequal, has_frames, has_labels.
    """
    context, lists, _ = tf.io.parse_sequence_example(
      records,
      context_features={
        **_ID_FEATURES,
        self._labels_key: tf.io.VarLenFeature(tf.int64),
        **(_RATING_FEATURES if self.segment_labels else {}),
      },
      sequence_features={
        name: tf.io.RaggedFeature(tf.string) for name in self.feature_names
      },
    )
    ids = _first_id(context)
    labels, stray = self._labels(
      context[self._labels_key], tf.shape(records)[0]
    )
    has_labels = tf.reduce_any(labels, axis=1)
    frames, lengths, fits = {}, [], []
    for name, size in zip(self.feature_names, self.feature_sizes):
      steps = lists[name]  # Ragged [R, frames, strings of a frame: one].
      frames[name] = (steps.flat_values, steps.row_splits)
      lengths.append(steps.row_lengths())
      fits.append(_fits(steps, size))
    lengths = tf.stack(lengths)  # [features, R]
    shortest = tf.reduce_min(lengths, axis=0)
    longest = tf.reduce_max(lengths, axis=0)
    unequal = tf.not_equal(shortest, longest)
    # A feature that is missing leaves no frame; if all are, it is no frames.
    complete = tf.equal(longest, 0) | (shortest > 0)
    usable = tf.not_equal(ids, "") & tf.reduce_all(fits, axis=0) & complete
    has_frames = shortest > 0
    num_frames = tf.minimum(shortest, self.max_frames)
    flawed = unequal | stray
    more = {}
    if self.segment_labels:
      more["ratings"], aligned, beyond = _parse_ratings(context, num_frames)
      usable &= aligned
      flawed |= beyond
    return {
      **more,
      "records": records,
      "video_ids": ids,
      "labels": labels,
      "num_frames": num_frames,
      "frames": frames,
      "whole": tf.reduce_all(tf.equal(lengths, shortest))
      & tf.reduce_all(shortest <= self.max_frames),
      "usable": usable,
      "flawed": tf.logical_not(usable & has_frames & has_labels) | flawed,
      "unequal": unequal,
      "has_frames": has_frames,
      "has_labels": has_labels,
    }

  def _select(self, parsed, keep, labelled):
    """The module's dict of the records to keep, bool [R].

    Of segments it takes the labelled ones, or all if labels do not matter.
    """
    num_frames = parsed["num_frames"]
    whole = parsed["whole"] & tf.reduce_all(keep)

    def decode(strings, size):
      # No string at all decodes to [0, 0].
      return tf.reshape(tf.io.decode_raw(strings, tf.uint8), [-1, size])

    def cut(strings, splits):
      """The first num_frames strings of each record to keep."""
      lengths = splits[1:] - splits[:-1]
      rows = tf.repeat(tf.range(tf.size(lengths)), lengths)
      step = tf.range(tf.size(strings))
      step -= tf.gather(splits, rows)
      wanted = step < tf.gather(num_frames, rows)
      return tf.boolean_mask(strings, wanted & tf.gather(keep, rows))

    features = []
    for name, size in zip(self.feature_names, self.feature_sizes):
      strings, splits = parsed["frames"][name]
      strings = tf.cond(
        whole,
        lambda strings=strings: strings,
        lambda strings=strings, splits=splits: cut(strings, splits),
      )
      features.append(decode(strings, size))
    batch = {
      "video_ids": tf.boolean_mask(parsed["video_ids"], keep),
      "features": tf.concat(features, axis=1),
      "num_frames": tf.boolean_mask(num_frames, keep),
      "labels": tf.boolean_mask(parsed["labels"], keep),
    }
    if not self.segment_labels:
      return batch
    if labelled:
      return self._labelled_segments(batch, parsed, keep)
    videos, starts = segments.windows(batch["num_frames"])
    none = tf.zeros([tf.size(videos), self.num_classes], tf.bool)
    return {**self._segments(batch, videos, starts), "labels": none}

  def _labelled_segments(self, batch, parsed, keep):
    """Puts the rated segments in the place of their videos."""
    videos, starts, classes, scores = parsed["ratings"]
    counts = tf.cast(tf.gather(parsed["num_frames"], videos), tf.int64)
    inside = (starts >= 0) & (starts < counts) & tf.gather(keep, videos)
    inside &= (classes >= 0) & (classes < self.num_classes)
    # From rows of the records to rows of those that are kept.
    rows = tf.cumsum(tf.cast(keep, tf.int64), exclusive=True)
    videos, starts, classes, scores = (
      tf.boolean_mask(values, inside)
      for values in (tf.gather(rows, videos), starts, classes, scores)
    )
    videos, starts, index = segments.distinct(videos, starts)
    places = tf.stack([index, classes], axis=1)
    shape = [tf.size(videos), self.num_classes]
    return {
      **self._segments(batch, videos, starts),
      "labels": tf.tensor_scatter_nd_update(
        tf.zeros(shape, tf.bool), places, scores >= 0.5
      ),
      "label_weights": tf.tensor_scatter_nd_update(
        tf.zeros(shape), places, tf.ones_like(scores)
      ),
    }

  def _segments(self, batch, videos, starts):
    """The module's dict of segments, labels aside."""
    frames, lengths = segments.cut(
      batch["features"], batch["num_frames"], videos, starts
    )
    return {
      "video_ids": segments.names(batch["video_ids"], videos, starts),
      "features": frames,
      "num_frames": lengths,
    }

  def _diagnose(self, record, require_labels):
    """Yields (kind, detail) of each flaw of one serialized record."""
    example = tf.train.SequenceExample()
    try:
      example.ParseFromString(record)
    except Exception as error:  # Whatever the protobuf library in use raises.
      yield "unparsable_record", f"not a tf.SequenceExample: {error}"
      return
    context = example.context.feature
    lists = example.feature_lists.feature_list
    if not _has_id(context):
      yield "missing_id", f"its context has {sorted(context)}"
    present = [name for name in self.feature_names if name in lists]
    hint = ""
    if not lists:
      hint = "; a video-level record? Then leave --frame_features out"
    for name in self.feature_names:
      if name not in lists:
        yield "missing_feature", f"no {name!r} in {sorted(lists)}{hint}"
    lengths = {name: len(lists[name].feature) for name in present}
    filled = [length for length in lengths.values() if length]
    if len(present) == len(self.feature_names):
      if not filled:
        yield "no_frames", "0 frames"
      elif len(filled) < len(present):
        yield "missing_feature", f"a feature without frames: {lengths}"
      elif len(set(filled)) > 1:
        yield "unequal_lengths", f"frames of each feature: {lengths}"
    for name, size in zip(self.feature_names, self.feature_sizes):
      if name in present:
        yield from _diagnose_sizes(name, size, lists[name].feature)
    labels = _numbers(context, self._labels_key)
    yield from self._diagnose_labels(labels, require_labels)
    if self.segment_labels and require_labels and filled:
      yield from _diagnose_ratings(context, min(*filled, self.max_frames))


# Of each rated pair of a segment and a class, besides `segment_labels`.
_RATING_FEATURES = {
  "segment_start_times": tf.io.VarLenFeature(tf.int64),
  "segment_scores": tf.io.VarLenFeature(tf.float32),
}
_ID_FEATURES = {
  "id": tf.io.FixedLenFeature([], tf.string, default_value=""),
  # The name in the files of 2017.
  "video_id": tf.io.FixedLenFeature([], tf.string, default_value=""),
}


def _first_id(values):
  """The id under either name; "" where there is none: string [R]."""
  return tf.where_v2(
    tf.equal(values["id"], ""), values["video_id"], values["id"]
  )


def _has_id(features):
  return any(
    any(features[key].bytes_list.value)
    for key in _ID_FEATURES
    if key in features
  )


def _parse_ratings(context, num_frames):
  """The rated (segment, class) pairs of records.

  Args:
    context: dict of int64 or float32 SparseTensor [R, any].
    num_frames: int32 [R].

  Returns:
    ((int64 [L] record, int64 [L] start, int64 [L] class, float32 [L] score),
    bool [R] whether a record has as many of each, bool [R] whether one of its
    segments begins behind its frames). Pairs of records that do not are left
    out.
  """
  keys = ("segment_start_times", "segment_labels", "segment_scores")
  rows = [context[key].indices[:, 0] for key in keys]
  size = tf.size(num_frames)
  counts = [
    tf.math.bincount(
      tf.cast(row, tf.int32), minlength=size, maxlength=size, dtype=tf.int64
    )
    for row in rows
  ]
  aligned = tf.equal(counts[0], counts[1]) & tf.equal(counts[0], counts[2])
  starts, classes, scores = (
    tf.boolean_mask(context[key].values, tf.gather(aligned, row))
    for key, row in zip(keys, rows)
  )
  videos = tf.boolean_mask(rows[0], tf.gather(aligned, rows[0]))
  ends = tf.cast(tf.gather(num_frames, videos), tf.int64)
  behind = tf.cast((starts < 0) | (starts >= ends), tf.int32)
  beyond = tf.math.unsorted_segment_sum(behind, videos, size) > 0
  return (videos, starts, classes, scores), aligned, beyond


def _fits(steps, size):
  """Whether each frame of a record is one string of size bytes: bool [R].

  Args:
    steps: ragged string [R, frames, strings].
    size: int.
  """
  strings = steps.values  # Ragged [frames of all records, strings].
  lengths = tf.strings.length(strings.flat_values)
  ends = tf.gather(strings.row_splits, steps.row_splits)
  wrong = _count_by_row(tf.not_equal(lengths, size), ends)
  not_one = _count_by_row(
    tf.not_equal(strings.row_lengths(), 1), steps.row_splits
  )
  return tf.equal(wrong + not_one, 0)


def _count_by_row(flags, splits):
  """How many of the flags [N] between one split [R + 1] and the next."""
  counts = tf.concat([[0], tf.cumsum(tf.cast(flags, tf.int32))], axis=0)
  at_splits = tf.gather(counts, splits)
  return at_splits[1:] - at_splits[:-1]


def _numbers(features, key):
  """The integers or floats of a feature; none if it is not there."""
  if key not in features:
    return []
  feature = features[key]
  return [*feature.int64_list.value, *feature.float_list.value]


def _diagnose_ratings(context, num_frames):
  """Yields what is wrong with the rated segments of a record."""
  lengths = {
    key: len(_numbers(context, key))
    for key in ("segment_labels", *_RATING_FEATURES)
  }
  if len(set(lengths.values())) > 1:
    yield "bad_segments", f"values of each: {lengths}"
    return
  for start in sorted(set(_numbers(context, "segment_start_times"))):
    if not 0 <= start < num_frames:
      yield (
        "segment_out_of_range",
        f"a segment begins at {start} of {num_frames} frames",
      )


def _diagnose_sizes(name, size, steps):
  """Yields the first frame of a feature that is not one string of size."""
  for frame, step in enumerate(steps):
    values = step.bytes_list.value
    if len(values) != 1 or len(values[0]) != size:
      found = [len(value) for value in values]
      yield (
        "bad_feature_size",
        f"frame {frame} of {name!r} has {found} bytes, where --feature_sizes "
        f"says {size}",
      )
      return


def _try_else(dataset, fallback):
  """A dataset's one element; the fallback's if computing that fails.

  tf.data has no exceptions: an error that is ignored leaves the dataset empty,
  and what then comes first is the fallback's.

  Args:
    dataset: of one element.
    fallback: of one element at most.

  Returns:
    Dataset of one element at most.
  """
  return dataset.ignore_errors().concatenate(fallback).take(1)
