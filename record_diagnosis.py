"""Says what is wrong with a record that a reader could not use as it stands.

In Python, field by field: only flawed records come here. Kinds are those of
`read_report.KINDS`.
"""

from collections.abc import Iterator, Mapping

import tensorflow.compat.v1 as tf

# The second is the name in the files of 2017.
ID_KEYS = ("id", "video_id")
# Of each rated pair of a segment and a class.
RATING_KEYS = ("segment_start_times", "segment_labels", "segment_scores")


def video_flaws(
  record: bytes,
  *,
  sizes: Mapping[str, int],
  num_classes: int,
  require_labels: bool,
) -> Iterator[tuple[str, str]]:
  """Yields the flaws of a tf.Example of float features.

  Args:
    record: serialized.
    sizes: length of each feature.
    num_classes: C; labels are 0 to C - 1.
    require_labels: whether labels that are missing or out of range are flaws.

  Yields:
    (kind, detail) of each.
  """
  example = tf.train.Example()
  try:
    example.ParseFromString(record)
  except Exception as error:  # Whatever the protobuf library in use raises.
    yield "unparsable_record", f"not a tf.Example: {error}"
    return
  features = example.features.feature
  if not _has_id(features):
    yield "missing_id", f"it has {sorted(features)}"
  for name, size in sizes.items():
    if name not in features:
      hint = ""
      if _has_frames(record):
        hint = "; it is a frame-level record: add --frame_features=True"
      yield "missing_feature", f"no {name!r} in {sorted(features)}{hint}"
      continue
    values = features[name].float_list.value
    if len(values) != size:
      yield (
        "bad_feature_size",
        f"{name!r} has {len(values)} floats, where --feature_sizes says {size}",
      )
  if require_labels:
    yield from _label_flaws(_numbers(features, "labels"), num_classes)


def frame_flaws(
  record: bytes,
  *,
  sizes: Mapping[str, int],
  num_classes: int,
  max_frames: int,
  segment_labels: bool,
  require_labels: bool,
) -> Iterator[tuple[str, str]]:
  """Yields the flaws of a tf.SequenceExample of one string a frame.

  Args:
    record: serialized.
    sizes: bytes of a frame of each feature.
    num_classes: see `video_flaws`.
    max_frames: what a video has beyond does not count.
    segment_labels: whether the labels are those of segments.
    require_labels: see `video_flaws`.

  Yields:
    (kind, detail) of each.
  """
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
  present = [name for name in sizes if name in lists]
  hint = ""
  if not lists:
    hint = "; a video-level record? Then leave --frame_features out"
  for name in sizes:
    if name not in lists:
      yield "missing_feature", f"no {name!r} in {sorted(lists)}{hint}"
  lengths = {name: len(lists[name].feature) for name in present}
  filled = [length for length in lengths.values() if length]
  if len(present) == len(sizes):
    if not filled:
      yield "no_frames", "0 frames"
    elif len(filled) < len(present):
      yield "missing_feature", f"a feature without frames: {lengths}"
    elif len(set(filled)) > 1:
      yield "unequal_lengths", f"frames of each feature: {lengths}"
  for name, size in sizes.items():
    if name in present:
      yield from _size_flaws(name, size, lists[name].feature)
  if require_labels:
    key = "segment_labels" if segment_labels else "labels"
    yield from _label_flaws(_numbers(context, key), num_classes)
    if segment_labels and filled:
      yield from _rating_flaws(context, min(*filled, max_frames))


def _has_frames(record):
  """Whether this is a tf.SequenceExample with lists of features."""
  try:
    example = tf.train.SequenceExample.FromString(record)
  except Exception:  # Of bytes that are none, whatever protobuf raises.
    return False
  return bool(example.feature_lists.feature_list)


def _has_id(features):
  return any(
    any(features[key].bytes_list.value) for key in ID_KEYS if key in features
  )


def _numbers(features, key):
  """The integers or floats of a feature; none if it is not there."""
  if key not in features:
    return []
  feature = features[key]
  return [*feature.int64_list.value, *feature.float_list.value]


def _label_flaws(labels, num_classes):
  """Yields what is wrong with the labels of a record."""
  strays = [label for label in labels if not 0 <= label < num_classes]
  for label in strays:
    yield (
      "label_out_of_range",
      f"label {label}, where --num_classes={num_classes}",
    )
  if len(strays) == len(labels):
    yield "no_labels", f"{len(labels)} labels, none within the classes"


def _rating_flaws(context, num_frames):
  """Yields what is wrong with the rated segments of a record."""
  lengths = {key: len(_numbers(context, key)) for key in RATING_KEYS}
  if len(set(lengths.values())) > 1:
    yield "bad_segments", f"values of each: {lengths}"
    return
  for start in sorted(set(_numbers(context, "segment_start_times"))):
    if not 0 <= start < num_frames:
      yield (
        "segment_out_of_range",
        f"a segment begins at {start} of {num_frames} frames",
      )


def _size_flaws(name, size, steps):
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
