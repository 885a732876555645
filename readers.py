"""TFRecords to batches, as tf.data pipelines.

What leaves a reader is a dict of tensors:

- `video_ids`: string [B].
- `features`: [N, D] for frames, those of one video after those of the other,
  N = sum(num_frames), uint8 or the floats that are stored; float32 [B, D] for
  video-level features.
- `num_frames`: int32 [B]; ones for video-level features.
- `labels`: bool [B, C].
- `label_weights`: float32 [B, C], of segments alone: 1 where a rater judged the
  class, else 0.

With segment labels a segment takes the place of a video; its id is `id:start`.

Nothing is padded or dequantised here: the model does it, where the device is.

A record that can't be used as it stands costs no other video anything. It is
skipped or cut as `records.report.KINDS` says, and counted in the reader's
report.

    files -> batches of records (`records.pipeline`) -> parse, check

Axes: B videos, N frames of the whole batch, D features of all kinds, C classes,
R records read for a batch.
"""

import functools
import os
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from records import (
  data_files,
  diagnosis,
  pipeline,
  remote,
  report,
  segments,
  stored_frames,
  tensors,
)

# Under the names by which programs know them.
expand_data_pattern = data_files.expand_data_pattern
estimate_num_records = data_files.estimate_num_records

# Batches that are parsed at the same time: each is held in memory.
_PARSED_AT_ONCE = min(4, os.cpu_count() or 1)


class BaseReader:
  """What the readers of frames and of video-level features share."""

  # Methods of each.
  _interpret: Any
  _parse_ids: Any
  _problems: Any
  _read_fields: Any
  _select: Any

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
    self.report = report.ReadReport()

  # There is no control flow of Python's to convert, and to look for it takes
  # seconds.
  @tf.autograph.experimental.do_not_convert
  def batches(self, files, **options):
    """Builds the pipeline.

    Args:
      files: list of str.
      **options: `batch_size`, and other fields of `records.pipeline.Options`.

    Returns:
      `tf.data.Dataset` of the module's dict, plus `epoch`, an int64 scalar.

    Raises:
      ValueError: see `records.pipeline.Options`.
    """
    chosen = pipeline.Options(**options)
    self.report = report.ReadReport(strict=chosen.strict)
    source = remote if chosen.service else pipeline
    data = source.record_batches(
      files, chosen, self.report, parse_ids=self._parse_ids
    ).map(
      functools.partial(self._to_batch, chosen),
      num_parallel_calls=_PARSED_AT_ONCE,
      deterministic=chosen.deterministic,
    )
    data = data.filter(lambda batch: tf.size(batch["video_ids"]) > 0)
    tf_options = tf.data.Options()
    tf_options.deterministic = chosen.deterministic
    return data.with_options(tf_options).prefetch(2)

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

  def _to_batch(self, options, records, paths, numbers, epochs):
    """The module's dict of the records that can be used; reports the others.

    Args:
      options: `pipeline.Options`.
      records: string [R].
      paths: string [R], the file of each.
      numbers: int64 [R], its number there.
      epochs: int64 [R].
    """
    sources = records, paths, numbers, tf.equal(epochs, options.first_epoch)
    fields, parses = tensors.parse_good(
      records,
      functools.partial(self._read_fields, use_labels=options.use_labels),
    )
    # Almost always all of them parse.
    parsed_sources = tf.cond(
      tf.reduce_all(parses),
      lambda: sources,
      lambda: self._report_unparsable(sources, parses, options),
    )
    parsed = self._interpret(fields)
    usable, imperfect = self._judge(parsed, options)
    reported = tf.cond(
      tf.reduce_any(imperfect),
      lambda: self._report_op(
        tensors.kept(parsed_sources[:3], imperfect), options
      ),
      lambda: tf.constant(0, tf.int64),
    )
    if not options.use_labels:  # Having none, or others, is then no matter.
      parsed |= {"has_labels": tf.ones_like(usable)}
    noted = self._note_op(
      parsed, usable, imperfect, parsed_sources[3], parses, sources[3]
    )
    with tf.control_dependencies([reported, noted]):
      usable = tf.identity(usable)
    batch = self._select(parsed, usable, labelled=options.use_labels)
    return {**batch, "epoch": tf.reduce_max(epochs)}

  def _judge(self, parsed, options):
    """Which records to use, and which to report: bool [R] each."""
    usable = parsed["usable"]
    has_frames, has_labels = parsed["has_frames"], parsed["has_labels"]
    imperfect = parsed["unequal"] | tf.logical_not(has_frames)
    if options.use_labels:
      usable &= parsed["labels_are_sound"]
      imperfect |= (parsed["num_strays"] > 0) | parsed["beyond"]
    if self._skips_unlabelled(options):
      imperfect |= tf.logical_not(has_labels)
    imperfect |= tf.logical_not(usable)
    if options.skip_frameless:
      usable &= has_frames
    if self._skips_unlabelled(options):
      usable &= has_labels
    return usable, imperfect

  def _skips_unlabelled(self, options):
    return options.use_labels and options.skip_unlabelled

  def _note_op(self, parsed, usable, imperfect, is_first, parses, all_first):
    """Tells the report how many records came, and what they were like.

    Args:
      parsed: dict of those that parse, [R], see `_interpret`.
      usable: bool [R].
      imperfect: bool [R].
      is_first: bool [R], whether they are of the first epoch, and count.
      parses: bool [records that came].
      all_first: bool, of the same shape, as is_first.
    """

    def count(flags, where):
      return tf.math.count_nonzero(flags & where)

    def total(name):
      return tf.reduce_sum(
        tf.where_v2(is_first, parsed[name], tf.zeros([], tf.int64))
      )

    unlabelled = usable & tf.logical_not(parsed["has_labels"])
    first = report.FirstEpoch(
      records=tf.math.count_nonzero(all_first),
      imperfect=count(imperfect, is_first)
      + count(tf.logical_not(parses), all_first),
      unlabelled=count(unlabelled, is_first),
      labels=total("num_labels"),
      strays=total("num_strays"),
    )
    kept = tf.math.count_nonzero(usable)
    dropped = tf.size(parses, out_type=tf.int64) - kept
    return tf.numpy_function(
      self.report.note, [kept, dropped, tf.stack(first)], tf.int64
    )

  def _report_unparsable(self, sources, parses, options):
    """Reports what does not parse; as `sources` what does."""
    bad = tensors.kept(sources[:3], tf.logical_not(parses))
    with tf.control_dependencies([self._report_op(bad, options)]):
      return tuple(tensors.kept(sources, parses))

  def _report_op(self, sources, options):
    """Diagnoses records in Python and reports them; int64 number of them."""

    def diagnose(records, paths, numbers):
      for record, path, number in zip(records, paths, numbers):
        found = list(self._problems(record, options))
        if not found:
          # Say, an id of two values: a message like ours, but not one.
          found = [("unparsable_record", "a value of another type or length")]
        for kind, detail in found:
          self.report.add(kind, path.decode(), int(number), detail)
      return np.int64(len(records))

    count = tf.numpy_function(diagnose, sources, tf.int64)
    return tf.reshape(count, [])


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

    It has video_ids, features, those of `tensors.label_facts`, and bool [R]
    usable, unequal, has_frames.
    """
    ids = tensors.first_id(values)
    features = tf.concat([values[name] for name in self.feature_names], axis=1)
    ones = tf.ones_like(tf.equal(ids, ""))
    return {
      **tensors.label_facts(values["labels"], tf.size(ids), self.num_classes),
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
    names = ("video_ids", "features", "labels")
    found = tensors.kept([parsed[name] for name in names], keep)
    batch = dict(zip(names, found))
    batch["num_frames"] = tf.ones_like(batch["video_ids"], dtype=tf.int32)
    return batch

  def _problems(self, record, options):
    return diagnosis.video_problems(
      record,
      sizes=dict(zip(self.feature_names, self.feature_sizes)),
      num_classes=self.num_classes,
      use_labels=options.use_labels,
      skip_unlabelled=self._skips_unlabelled(options),
    )


class YT8MFrameFeatureReader(BaseReader):
  """Reads tf.SequenceExamples of one string, or float list, a frame."""

  def __init__(
    self,
    *,
    feature_names,
    feature_sizes,
    num_classes,
    max_frames=300,
    segment_labels=False,
    feature_dtype="uint8",
  ):
    """Keeps the configuration.

    Args:
      feature_names: see `BaseReader`.
      feature_sizes: see `BaseReader`.
      num_classes: see `BaseReader`.
      max_frames: int >= 1; what a video has beyond is left out.
      segment_labels: bool, give the rated five-second segments of videos in the
        place of videos; or all of their segments, where labels do not matter.
      feature_dtype: one of `records.features_file.DTYPES`, of all features.

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
    self._dtype = feature_dtype
    self._storage = stored_frames.storage(feature_dtype)
    self._labels_key = "segment_labels" if segment_labels else "labels"

  def _parse_ids(self, records):
    context, _, _ = tf.io.parse_sequence_example(
      records, context_features=tensors.ID_FEATURES
    )
    return tensors.first_id(context)

  def _read_fields(self, records, use_labels):
    """The fields of records [R]; fails if one is no such SequenceExample.

    Labels and ratings that are not used are not looked at: there are none then.

    Returns:
      dict of `context`, itself a dict of `id` and `video_id`, string [R], and
      the labels' key and those of ratings, (int64 [L] record, [L] value); and
      `frames`, a dict of each feature's steps (see `stored_frames`).
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
        name: self._storage.feature for name in self.feature_names
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

    It has video_ids, `frames` (those of the fields), those of
    `tensors.frame_facts` and `tensors.label_facts`, with segment labels
    `ratings` (see `tensors.parse_ratings`), and usable, bool [R].
    """
    context, frames = fields["context"], fields["frames"]
    ids = tensors.first_id(context)
    sizes = dict(zip(self.feature_names, self.feature_sizes))
    facts = {
      **tensors.frame_facts(frames, sizes, self._storage, self.max_frames),
      **tensors.label_facts(
        context[self._labels_key], tf.size(ids), self.num_classes
      ),
    }
    if self.segment_labels:
      ratings, sound, beyond = tensors.parse_ratings(
        context, facts["num_frames"]
      )
      facts |= {
        "ratings": ratings,
        "labels_are_sound": sound,
        "beyond": beyond,
      }
    return {
      **facts,
      "video_ids": ids,
      "frames": frames,
      "usable": tf.not_equal(ids, "") & facts["frames_are_sound"],
    }

  def _select(self, parsed, keep, labelled):
    """The module's dict of the records to keep, bool [R].

    Of segments it takes the labelled ones, or all if labels do not matter.
    """
    num_frames = parsed["num_frames"]
    whole = parsed["whole"] & tf.reduce_all(keep)
    wanted = {"whole": whole, "num_frames": num_frames, "keep": keep}
    features = [
      self._storage.select(parsed["frames"][name], size, **wanted)
      for name, size in zip(self.feature_names, self.feature_sizes)
    ]
    video_ids, counts, labels = tensors.kept(
      [parsed["video_ids"], num_frames, parsed["labels"]], keep
    )
    batch = {
      "video_ids": video_ids,
      "features": tf.concat(features, axis=1),
      "num_frames": counts,
      "labels": labels,
    }
    if not self.segment_labels:
      return batch
    if not labelled:
      return segments.all_of(batch, self.num_classes)
    return segments.rated(
      batch, parsed["ratings"], num_frames, keep, self.num_classes
    )

  def _skips_unlabelled(self, options):
    # A video without rated segments has none to give.
    return options.use_labels and (
      options.skip_unlabelled or self.segment_labels
    )

  def _problems(self, record, options):
    return diagnosis.frame_problems(
      record,
      sizes=dict(zip(self.feature_names, self.feature_sizes)),
      dtype=self._dtype,
      num_classes=self.num_classes,
      max_frames=self.max_frames,
      segment_labels=self.segment_labels,
      use_labels=options.use_labels,
      skip_unlabelled=self._skips_unlabelled(options),
    )
