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
then parsed once more, record by record (see `tensors.try_else`).

Axes: B videos, N frames of the whole batch, D features of all kinds, C classes,
R records read for a batch.
"""

import functools
import os
import zlib
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from records import chunks as record_chunks
from records import diagnosis, framing, segments, tensors
from records import report as read_report

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
    opened = framing.look(path)
    if not opened:
      continue  # Reading it will report it.
    try:
      lengths += framing.first_lengths(path, opened)
      sizes.append(framing.unpacked_size(path, opened))
    except (tf.errors.OpError, OSError, EOFError, zlib.error):
      continue  # The same.
  if not lengths:
    return 0
  total = sum(sizes) * len(paths) / len(sizes)
  return round(total / (sum(lengths) / len(lengths)))


class _Use(NamedTuple):
  """What is to become of videos, see `BaseReader.batches`."""

  labels: bool
  skip_unlabelled: bool
  skip_frameless: bool


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
    use_labels=True,
    skip_unlabelled=False,
    skip_frameless=True,
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
      use_labels: bool, report labels out of range, and with segment labels
        give the rated segments; False passes over them, and gives all segments.
      skip_unlabelled: bool, with use_labels: skip videos without labels, and
        report them.
      skip_frameless: bool, skip videos without frames; reported they are
        anyway.
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
          (
            records,
            tf.gather(paths, indices),
            numbers,
            tf.equal(epochs, first_epoch),
          ),
          _Use(use_labels, skip_unlabelled, skip_frameless),
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
    parsed = self._interpret(self._read_fields(records, use_labels=True))
    with tf.control_dependencies(
      [
        tf.debugging.assert_equal(
          tf.reduce_all(parsed["usable"]),
          True,
          message="A record lacks a feature, has one of another size, or has a "
          "number that is not finite.",
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
      return tensors.try_else(alone.map(side), neither)

    whole = tf.data.Dataset.from_tensors(records).map(side)
    one_by_one = tf.data.Dataset.from_tensor_slices(records)
    one_by_one = one_by_one.flat_map(side_of_one).unbatch().batch(_ALL)
    kept = tensors.try_else(whole, one_by_one).get_single_element()
    return records, *places[:-1], kept

  # From records to batches.

  def _to_batch(self, records, use):
    """The module's dict of the records that can be used; reports the others.

    Args:
      records: (string [R], string [R] the file of each, int64 [R] its number
        there, bool [R] whether this is the first epoch).
      use: `_Use`.
    """
    *_, is_first = records
    fields, parses = self._read_or_pass_over(records[0], use.labels)
    # Almost always all of them parse.
    records = tf.cond(
      tf.reduce_all(parses),
      lambda: records,
      lambda: self._report_unparsable(records, parses, use),
    )
    parsed = self._interpret(fields)
    usable = parsed["usable"]
    flawed = parsed["unequal"] | tf.logical_not(parsed["has_frames"])
    if use.labels:
      usable &= parsed["labels_are_sound"]
      flawed |= (parsed["num_strays"] > 0) | parsed["beyond"]
      if self._skips_unlabelled(use):
        flawed |= tf.logical_not(parsed["has_labels"])
    flawed |= tf.logical_not(usable)
    report = tf.cond(
      tf.reduce_any(flawed),
      lambda: self._report_op(
        [tf.boolean_mask(values, flawed) for values in records[:3]], use
      ),
      lambda: tf.constant(0, tf.int64),
    )
    if use.skip_frameless:
      usable &= parsed["has_frames"]
    if self._skips_unlabelled(use):
      usable &= parsed["has_labels"]
    if not use.labels:  # Having none, or others, is then no matter.
      parsed |= {"has_labels": tf.ones_like(usable)}
    noted = self._note_op(parses, is_first, records[3], parsed, flawed, usable)
    with tf.control_dependencies([report, noted]):
      usable = tf.identity(usable)
    return self._select(parsed, usable, labelled=use.labels)

  def _skips_unlabelled(self, use):
    return use.labels and use.skip_unlabelled

  def _note_op(self, parses, is_first, parsed_is_first, parsed, flawed, usable):
    """Tells the report how many records came, and what they were like.

    Args:
      parses: bool [records that came], whether each parses.
      is_first: bool, of the same shape, whether it counts.
      parsed_is_first: bool [R], of those that parse.
      parsed: dict, see `_to_batch`.
      flawed: bool [R].
      usable: bool [R].
    """

    def count(flags, where):
      return tf.math.count_nonzero(flags & where)

    def total(name):
      return tf.reduce_sum(
        tf.where_v2(parsed_is_first, parsed[name], tf.zeros([], tf.int64))
      )

    unlabelled = usable & tf.logical_not(parsed["has_labels"])
    first = read_report.FirstEpoch(
      records=tf.math.count_nonzero(is_first),
      flawed=count(flawed, parsed_is_first)
      + count(tf.logical_not(parses), is_first),
      unlabelled=count(unlabelled, parsed_is_first),
      labels=total("num_labels"),
      strays=total("num_strays"),
    )
    kept = tf.math.count_nonzero(usable)
    dropped = tf.size(parses, out_type=tf.int64) - kept
    return tf.numpy_function(
      self.report.note, [kept, dropped, tf.stack(first)], tf.int64
    )

  def _read_or_pass_over(self, records, use_labels):
    """`_read_fields` of the records that parse: (dict, bool [R] which do)."""
    read_fields = functools.partial(self._read_fields, use_labels=use_labels)
    whole = tf.data.Dataset.from_tensors(records)

    def parses(record):
      alone = tf.data.Dataset.from_tensors(tf.expand_dims(record, 0))
      good = alone.map(read_fields).map(lambda _: True)
      return tensors.try_else(good, tf.data.Dataset.from_tensors(False))

    def read_good(good):
      return read_fields(tf.boolean_mask(records, good)), good

    all_of_them = whole.map(
      lambda records: (
        read_fields(records),
        tf.fill(tf.shape(records), True),
      )
    )
    one_by_one = tf.data.Dataset.from_tensor_slices(records).flat_map(parses)
    one_by_one = one_by_one.batch(_ALL).map(read_good)
    return tensors.try_else(all_of_them, one_by_one).get_single_element()

  def _report_unparsable(self, records, parses, use):
    """Reports what does not parse; as `records` what does."""
    bad = [
      tf.boolean_mask(values, tf.logical_not(parses)) for values in records[:3]
    ]
    with tf.control_dependencies([self._report_op(bad, use)]):
      return tuple(tf.boolean_mask(values, parses) for values in records)

  def _report_op(self, records, use):
    """Diagnoses flawed records in Python; int64 number of them."""

    def report(records, paths, numbers):
      for record, path, number in zip(records, paths, numbers):
        found = list(self._flaws(record, use))
        if not found:
          # Say, an id of two values: a message like ours, but not one.
          found = [("unparsable_record", "a value of another type or length")]
        for kind, detail in found:
          self.report.add(kind, path.decode(), int(number), detail)
      return np.int64(len(records))

    count = tf.numpy_function(report, records, tf.int64)
    return tf.reshape(count, [])

  def _about_labels(self, labels, num_records):
    """What the labels of records are like.

    Args:
      labels: (int64 [L] record, int64 [L] label).
      num_records: R.

    Returns:
      dict of `labels` bool [R, C], `num_labels` and, of these, outside the
      classes, `num_strays`, int64 [R], and bool [R]: has_labels, and for
      segments, here as if there were none, labels_are_sound (if not, the record
      can't be used) and beyond (a segment is to be left out).
    """
    labels, num_labels, num_strays = tensors.label_sets(
      labels, num_records, self.num_classes
    )
    has_labels = tf.reduce_any(labels, axis=1)
    return {
      "labels": labels,
      "num_labels": num_labels,
      "num_strays": num_strays,
      "has_labels": has_labels,
      "labels_are_sound": tf.ones_like(has_labels),
      "beyond": tf.zeros_like(has_labels),
    }


class YT8MAggregatedFeatureReader(BaseReader):
  """Reads tf.Examples of one float vector a feature: mean_rgb, mean_audio."""

  def _parse_ids(self, records):
    return tensors.first_id(tf.io.parse_example(records, tensors.ID_FEATURES))

  def _read_fields(self, records, use_labels):
    """The fields of records [R]; fails where one is missing or of another size.

    Labels that are not used are not looked at, whatever their type: none then.

    Returns:
      dict of tensors: `id` and `video_id` string [R], `labels` (see
      `tensors.flat`), and each feature, float32 [R, its size].
    """
    about_labels = {"labels": tf.io.VarLenFeature(tf.int64)}
    fields = tf.io.parse_example(
      records,
      {
        **tensors.ID_FEATURES,
        **(about_labels if use_labels else {}),
        **{
          name: tf.io.FixedLenFeature([size], tf.float32)
          for name, size in zip(self.feature_names, self.feature_sizes)
        },
      },
    )
    if not use_labels:
      return {**fields, **tensors.no_values(about_labels)}
    return {**fields, "labels": tensors.flat(fields["labels"])}

  def _interpret(self, values):
    """dict for `_to_batch` of what `_read_fields` gives.

    It has video_ids, features, labels, and what `_about_labels` gives, and bool
    [R] usable, unequal, has_frames.
    """
    ids = tensors.first_id(values)
    features = tf.concat([values[name] for name in self.feature_names], axis=1)
    ones = tf.ones_like(tf.equal(ids, ""))
    return {
      **self._about_labels(values["labels"], tf.size(ids)),
      "video_ids": ids,
      "features": features,
      "usable": tf.not_equal(ids, "")
      & tf.reduce_all(tf.is_finite(features), axis=1),
      "unequal": tf.logical_not(ones),
      "has_frames": ones,
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

  def _flaws(self, record, use):
    return diagnosis.video_flaws(
      record,
      sizes=dict(zip(self.feature_names, self.feature_sizes)),
      num_classes=self.num_classes,
      use_labels=use.labels,
      skip_unlabelled=self._skips_unlabelled(use),
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
      records, context_features=tensors.ID_FEATURES
    )
    return tensors.first_id(context)

  def _read_fields(self, records, use_labels):
    """The fields of records [R]; fails if one is no SequenceExample of bytes.

    Labels and ratings that are not used are not looked at: there are none then.

    Returns:
      dict of `context`, itself a dict of `id` and `video_id`, string [R], and
      the labels' key and those of ratings, (int64 [L] record, [L] value); and
      `frames`, a dict of (string [strings], int32 [R + 1] where a record's
      frames begin, int32 [frames + 1] where a frame's strings begin).
    """
    about_labels = {
      self._labels_key: tf.io.VarLenFeature(tf.int64),
      **(tensors.RATING_FEATURES if self.segment_labels else {}),
    }
    context, lists, _ = tf.io.parse_sequence_example(
      records,
      context_features={
        **tensors.ID_FEATURES,
        **(about_labels if use_labels else {}),
      },
      sequence_features={
        name: tf.io.RaggedFeature(tf.string) for name in self.feature_names
      },
    )
    context = {
      key: tensors.flat(value) if isinstance(value, tf.SparseTensor) else value
      for key, value in context.items()
    }
    if not use_labels:
      context |= tensors.no_values(about_labels)
    return {
      "context": context,
      "frames": {
        name: (steps.flat_values, *steps.nested_row_splits)
        for name, steps in lists.items()
      },
    }

  def _interpret(self, fields):
    """dict for `_to_batch` of what `_read_fields` gives.

    It has video_ids, num_frames int32 [R], `frames` (those of the fields),
    `whole` (whether there are num_frames of each feature, so that nothing is to
    be cut), what `_about_labels` gives, with segment labels `ratings` (see
    `tensors.parse_ratings`), and bool [R] usable, unequal, has_frames.
    """
    context = fields["context"]
    ids = tensors.first_id(context)
    lengths, fits = [], []
    for name, size in zip(self.feature_names, self.feature_sizes):
      strings, splits, string_splits = fields["frames"][name]
      lengths.append(splits[1:] - splits[:-1])
      fits.append(tensors.fits(strings, splits, string_splits, size))
    lengths = tf.stack(lengths)  # [features, R]
    shortest = tf.reduce_min(lengths, axis=0)
    longest = tf.reduce_max(lengths, axis=0)
    unequal = tf.not_equal(shortest, longest)
    # A feature that is missing leaves no frame; if all are, it is no frames.
    complete = tf.equal(longest, 0) | (shortest > 0)
    usable = tf.not_equal(ids, "") & tf.reduce_all(fits, axis=0) & complete
    has_frames = shortest > 0
    num_frames = tf.minimum(shortest, self.max_frames)
    about_labels = self._about_labels(context[self._labels_key], tf.size(ids))
    if self.segment_labels:
      ratings, sound, beyond = tensors.parse_ratings(context, num_frames)
      about_labels |= {
        "ratings": ratings,
        "labels_are_sound": sound,
        "beyond": beyond,
      }
    return {
      **about_labels,
      "video_ids": ids,
      "num_frames": num_frames,
      "frames": fields["frames"],
      "whole": tf.reduce_all(tf.equal(lengths, shortest))
      & tf.reduce_all(shortest <= self.max_frames),
      "usable": usable,
      "unequal": unequal,
      "has_frames": has_frames,
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

  def _skips_unlabelled(self, use):
    # A video without rated segments has none to give.
    return use.labels and (use.skip_unlabelled or self.segment_labels)

  def _flaws(self, record, use):
    return diagnosis.frame_flaws(
      record,
      sizes=dict(zip(self.feature_names, self.feature_sizes)),
      num_classes=self.num_classes,
      max_frames=self.max_frames,
      segment_labels=self.segment_labels,
      use_labels=use.labels,
      skip_unlabelled=self._skips_unlabelled(use),
    )
