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
import record_chunks
import record_diagnosis
import record_salvage
import segments

_HASH_BUCKETS = 1 << 31
# Batches that are parsed at the same time: each is held in memory.
_PARSED_AT_ONCE = min(4, os.cpu_count() or 1)
# Read from a file at once.
_BUFFER_BYTES = 1 << 20
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

  _buffer_bytes = _BUFFER_BYTES

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
    chunks = record_chunks.RecordChunks(self.report)
    # Of a remote file, a read is a request.
    remote = any("://" in path for path in files)
    buffer_bytes = _BUFFER_BYTES if remote else self._buffer_bytes

    def chunks_of_file(index, epoch):
      """Adds to each record: file, number in it, epoch, is it to be used?"""
      return chunks.of_file(paths[index], buffer_bytes).map(
        lambda records, numbers: (
          records,
          tf.fill(tf.shape(numbers), index),
          numbers,
          tf.fill(tf.shape(numbers), epoch),
          tf.fill(tf.shape(numbers), True),
        )
      )

    def one_epoch(epoch):
      data = tf.data.Dataset.range(len(files))
      if shuffle_buffer:
        data = data.shuffle(
          len(files), seed=None if seed is None else epoch + seed
        )
      data = data.interleave(
        functools.partial(chunks_of_file, epoch=epoch),
        cycle_length=num_readers,
        num_parallel_calls=num_readers,
        deterministic=deterministic,
      )
      if holdout_fraction:
        data = data.map(
          functools.partial(
            self._choose_side, fraction=holdout_fraction, holdout=holdout
          )
        )
      if num_epochs is None:
        data = self._guard_epoch(data)
      data = data.unbatch()
      if holdout_fraction:
        data = data.filter(lambda *record: record[-1])
      if shuffle_buffer:
        data = data.shuffle(
          shuffle_buffer, seed=None if seed is None else epoch + seed
        )
      return data

    last = _ALL if num_epochs is None else num_epochs
    data = tf.data.Dataset.range(first_epoch, max(first_epoch, last))
    data = data.flat_map(one_epoch).batch(batch_size)
    data = data.map(
      lambda records, indices, numbers, epochs, _: {
        **self._to_batch(
          records, tf.gather(paths, indices), numbers, require_labels
        ),
        "epoch": tf.reduce_max(epochs),
      },
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
    parsed = self._interpret(self._read_fields(records))
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

    def add_chunk(*chunk):
      wanted = tf.math.count_nonzero(chunk[-1])
      number = tf.numpy_function(add, [wanted], tf.int64)
      with tf.control_dependencies([number]):
        return tf.nest.map_structure(tf.identity, chunk)

    def end_chunk(*chunk):
      done = tf.numpy_function(end, [], tf.int64)
      with tf.control_dependencies([done]):
        return tf.nest.map_structure(tf.identity, chunk)

    empty = tf.data.Dataset.from_tensors(
      tuple(
        tf.zeros([0], spec.dtype)
        for spec in tf.nest.flatten(chunks.element_spec)
      )
    )
    return chunks.map(add_chunk).concatenate(empty.map(end_chunk))

  def _choose_side(self, records, *places, fraction, holdout):
    """Marks the records of a chunk that are on one side of the holdout.

    They are marked and not picked: picking would copy them.

    A record without an id, or one that does not parse, is not anybody's to hold
    out: it stays in training, which reports it.
    """
    limit = round(fraction * _HASH_BUCKETS)

    def side(records):
      ids = self._parse_ids(records)
      held = tf.strings.to_hash_bucket_fast(ids, _HASH_BUCKETS) < limit
      return tf.equal(held & tf.not_equal(ids, ""), holdout)

    def side_of_one(record):
      alone = tf.data.Dataset.from_tensors(tf.expand_dims(record, 0))
      neither = tf.data.Dataset.from_tensors([not holdout])
      return _try_else(alone.map(side), neither)

    whole = tf.data.Dataset.from_tensors(records).map(side)
    one_by_one = tf.data.Dataset.from_tensor_slices(records)
    one_by_one = one_by_one.flat_map(side_of_one).unbatch().batch(_ALL)
    kept = _try_else(whole, one_by_one).get_single_element()
    return records, *places[:-1], kept

  # From records to batches.

  def _to_batch(self, records, paths, numbers, require_labels):
    """The module's dict of the records that can be used; reports the others.

    Args:
      records: string [R].
      paths: string [R], the file of each.
      numbers: int64 [R], the number of each in its file.
      require_labels: bool, see `batches`.
    """
    fields, parses = self._read_or_pass_over(records)
    # Almost always all of them parse.
    records, paths, numbers = tf.cond(
      tf.reduce_all(parses),
      lambda: (records, paths, numbers),
      lambda: self._report_unparsable(
        records, paths, numbers, parses, require_labels
      ),
    )
    parsed = self._interpret(fields)
    usable = parsed["usable"]
    flawed = parsed["flawed"]
    if require_labels:
      usable &= parsed["has_frames"] & parsed["has_labels"]
    else:
      # Without labels to learn from or score against, their absence is no flaw.
      flawed = tf.logical_not(usable) | parsed["unequal"]
      flawed |= tf.logical_not(parsed["has_frames"])
    report = tf.cond(
      tf.reduce_any(flawed),
      lambda: self._report_op(
        tf.boolean_mask(records, flawed),
        tf.boolean_mask(paths, flawed),
        tf.boolean_mask(numbers, flawed),
        require_labels,
      ),
      lambda: tf.constant(0, tf.int64),
    )
    kept = tf.reduce_sum(tf.cast(usable, tf.int64))
    dropped = tf.size(parses, out_type=tf.int64) - kept
    noted = tf.numpy_function(self.report.note, [kept, dropped], tf.int64)
    with tf.control_dependencies([report, noted]):
      usable = tf.identity(usable)
    return self._select(parsed, usable, labelled=require_labels)

  def _read_or_pass_over(self, records):
    """`_read_fields` of the records that parse: (dict, bool [R] which do)."""
    whole = tf.data.Dataset.from_tensors(records)

    def parses(record):
      alone = tf.data.Dataset.from_tensors(tf.expand_dims(record, 0))
      good = alone.map(self._read_fields).map(lambda _: True)
      return _try_else(good, tf.data.Dataset.from_tensors(False))

    def read_good(good):
      return self._read_fields(tf.boolean_mask(records, good)), good

    all_of_them = whole.map(
      lambda records: (
        self._read_fields(records),
        tf.fill(tf.shape(records), True),
      )
    )
    one_by_one = tf.data.Dataset.from_tensor_slices(records).flat_map(parses)
    one_by_one = one_by_one.batch(_ALL).map(read_good)
    return _try_else(all_of_them, one_by_one).get_single_element()

  def _report_unparsable(self, records, paths, numbers, parses, require_labels):
    """Reports what does not parse; (records, paths, numbers) of what does."""
    all_of = records, paths, numbers
    bad = [tf.boolean_mask(values, tf.logical_not(parses)) for values in all_of]
    with tf.control_dependencies([self._report_op(*bad, require_labels)]):
      return tuple(tf.boolean_mask(values, parses) for values in all_of)

  def _report_op(self, records, paths, numbers, require_labels):
    """Diagnoses flawed records in Python; int64 number of them."""

    def report(records, paths, numbers):
      for record, path, number in zip(records, paths, numbers):
        found = list(self._flaws(record, require_labels))
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
      labels: (int64 [L] record, int64 [L] label).
      num_records: R.

    Returns:
      (bool [R, C], bool [R] True where a label is outside [0, C)).
    """
    rows, values = labels
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


class YT8MAggregatedFeatureReader(BaseReader):
  """Reads tf.Examples of one float vector a feature: mean_rgb, mean_audio."""

  def _parse_ids(self, records):
    return _first_id(tf.io.parse_example(records, _ID_FEATURES))

  def _read_fields(self, records):
    """The fields of records [R]; fails where one is missing or of another size.

    Returns:
      dict of tensors: `id` and `video_id` string [R], `labels` (see
      `_flat`), and each feature, float32 [R, its size].
    """
    fields = tf.io.parse_example(
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
    return {**fields, "labels": _flat(fields["labels"])}

  def _interpret(self, values):
    """dict for `_to_batch` of what `_read_fields` gives.

    It has video_ids, features, labels, and bool [R] usable, flawed, unequal,
    has_frames, has_labels.
    """
    ids = _first_id(values)
    labels, stray = self._labels(values["labels"], tf.size(ids))
    has_labels = tf.reduce_any(labels, axis=1)
    usable = tf.not_equal(ids, "")
    ones = tf.ones_like(usable)
    return {
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

  def _flaws(self, record, require_labels):
    return record_diagnosis.video_flaws(
      record,
      sizes=dict(zip(self.feature_names, self.feature_sizes)),
      num_classes=self.num_classes,
      require_labels=require_labels,
    )


class YT8MFrameFeatureReader(BaseReader):
  """Reads tf.SequenceExamples of one uint8 string a frame and feature."""

  # Records are large: without a buffer each is read to where it stays.
  _buffer_bytes = 0

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

  def _read_fields(self, records):
    """The fields of records [R]; fails if one is no SequenceExample of bytes.

    Returns:
      dict of `context`, itself a dict of `id` and `video_id`, string [R], and
      the labels' key and those of ratings, (int64 [L] record, [L] value); and
      `frames`, a dict of (string [strings], int32 [R + 1] where a record's
      frames begin, int32 [frames + 1] where a frame's strings begin).
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
    return {
      "context": {
        key: _flat(value) if isinstance(value, tf.SparseTensor) else value
        for key, value in context.items()
      },
      "frames": {
        name: (steps.flat_values, *steps.nested_row_splits)
        for name, steps in lists.items()
      },
    }

  def _interpret(self, fields):
    """dict for `_to_batch` of what `_read_fields` gives.

    It has video_ids, labels, num_frames int32 [R], `frames` (those of the
    fields), `whole` (whether there are num_frames of each feature, so that
    nothing is to be cut), with segment labels `ratings` (see `_parse_ratings`),
    and bool [R] usable, flawed, unequal, has_frames, has_labels.
    """
    context = fields["context"]
    ids = _first_id(context)
    labels, stray = self._labels(context[self._labels_key], tf.size(ids))
    has_labels = tf.reduce_any(labels, axis=1)
    lengths, fits = [], []
    for name, size in zip(self.feature_names, self.feature_sizes):
      strings, splits, string_splits = fields["frames"][name]
      lengths.append(splits[1:] - splits[:-1])
      fits.append(_fits(strings, splits, string_splits, size))
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
      "video_ids": ids,
      "labels": labels,
      "num_frames": num_frames,
      "frames": fields["frames"],
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

    def cut(strings, splits, string_splits):
      """The first num_frames strings of each record to keep."""
      lengths = splits[1:] - splits[:-1]
      rows = tf.repeat(tf.range(tf.size(lengths)), lengths)
      step = tf.range(tf.size(rows))
      step -= tf.gather(splits, rows)
      wanted = step < tf.gather(num_frames, rows)
      wanted &= tf.gather(keep, rows)
      # Only frames of a record that is left out may have no string, or two.
      return tf.gather(strings, tf.boolean_mask(string_splits[:-1], wanted))

    features = []
    for name, size in zip(self.feature_names, self.feature_sizes):
      steps = parsed["frames"][name]
      strings = tf.cond(
        whole, lambda steps=steps: steps[0], lambda steps=steps: cut(*steps)
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

  def _flaws(self, record, require_labels):
    return record_diagnosis.frame_flaws(
      record,
      sizes=dict(zip(self.feature_names, self.feature_sizes)),
      num_classes=self.num_classes,
      max_frames=self.max_frames,
      segment_labels=self.segment_labels,
      require_labels=require_labels,
    )


_ID_FEATURES = {
  key: tf.io.FixedLenFeature([], tf.string, default_value="")
  for key in record_diagnosis.ID_KEYS
}
# Besides `segment_labels`.
_RATING_FEATURES = {
  "segment_start_times": tf.io.VarLenFeature(tf.int64),
  "segment_scores": tf.io.VarLenFeature(tf.float32),
}


def _first_id(values):
  """The id under either name; "" where there is none: string [R]."""
  return tf.where_v2(
    tf.equal(values["id"], ""), values["video_id"], values["id"]
  )


def _parse_ratings(context, num_frames):
  """The rated (segment, class) pairs of records.

  Args:
    context: dict of (int64 [L] record, int64 or float32 [L] value).
    num_frames: int32 [R].

  Returns:
    ((int64 [L] record, int64 [L] start, int64 [L] class, float32 [L] score),
    bool [R] whether a record has as many of each, bool [R] whether one of its
    segments begins behind its frames). Pairs of records that do not are left
    out.
  """
  keys = record_diagnosis.RATING_KEYS
  rows = [context[key][0] for key in keys]
  size = tf.size(num_frames)
  counts = [
    tf.math.bincount(
      tf.cast(row, tf.int32), minlength=size, maxlength=size, dtype=tf.int64
    )
    for row in rows
  ]
  aligned = tf.equal(counts[0], counts[1]) & tf.equal(counts[0], counts[2])
  starts, classes, scores = (
    tf.boolean_mask(context[key][1], tf.gather(aligned, row))
    for key, row in zip(keys, rows)
  )
  videos = tf.boolean_mask(rows[0], tf.gather(aligned, rows[0]))
  ends = tf.cast(tf.gather(num_frames, videos), tf.int64)
  behind = tf.cast((starts < 0) | (starts >= ends), tf.int32)
  beyond = tf.math.unsorted_segment_sum(behind, videos, size) > 0
  return (videos, starts, classes, scores), aligned, beyond


def _flat(sparse):
  """(int64 [L] record, [L] value) of a SparseTensor [R, any]."""
  return sparse.indices[:, 0], sparse.values


def _fits(strings, splits, string_splits, size):
  """Whether each frame of a record is one string of size bytes: bool [R].

  Args:
    strings: string [strings].
    splits: int32 [R + 1], where a record's frames begin.
    string_splits: int32 [frames + 1], where a frame's strings begin.
    size: int.
  """
  wrong = _any_by_row(
    tf.not_equal(tf.strings.length(strings), size),
    tf.gather(string_splits, splits),
  )
  counts = string_splits[1:] - string_splits[:-1]
  return tf.logical_not(wrong | _any_by_row(tf.not_equal(counts, 1), splits))


def _any_by_row(flags, splits):
  """Whether a flag of [N] is set between one split and the next: bool [R].

  Args:
    flags: bool [N], few of them True.
    splits: int32 [R + 1].
  """
  places = tf.cast(tf.where_v2(flags)[:, 0], splits.dtype)
  rows = tf.searchsorted(splits, places, side="right") - 1
  return (
    tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, tf.size(splits) - 1)
    > 0
  )


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
