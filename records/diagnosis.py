"""Says what is wrong with a record that a reader could not use as it stands.

In Python, field by field: only records with a problem come here. Kinds are
those of `report.KINDS`.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow.compat.v1 as tf

# The second is the name in the files of 2017.
ID_KEYS = ("id", "video_id")
# Of each rated pair of a segment and a class.
RATING_KEYS = ("segment_start_times", "segment_labels", "segment_scores")
# Of the labels that are out of range.
_SHOWN = 5
_TYPES = {
  "bytes_list": "strings",
  "int64_list": "integers",
  "float_list": "floats",
}
_TYPE_HINTS = {
  ("bytes_list", "int64_list"): ": number the classes from 0",
  ("float_list", "int64_list"): ": write them as int64",
  ("int64_list", "bytes_list"): ": write it as a string",
  ("int64_list", "float_list"): ": write them as floats",
}
_QUANTISE = (
  "quantise to uint8, a byte a number, as scripts/make_records.py does"
)
# What has so many bytes a number.
_DTYPES = {1: "uint8", 2: "float16", 4: "float32", 8: "float64"}
_NUM_BYTES = {dtype: number for number, dtype in _DTYPES.items()}


def video_problems(
  record: bytes,
  *,
  sizes: Mapping[str, int],
  num_classes: int,
  use_labels: bool,
  skip_unlabelled: bool,
) -> Iterator[tuple[str, str]]:
  """Yields the problems of a tf.Example of float features.

  Args:
    record: serialized.
    sizes: length of each feature.
    num_classes: C; labels are 0 to C - 1.
    use_labels: whether labels matter: their type, and being out of range.
    skip_unlabelled: whether, with use_labels, having none is a problem.

  Yields:
    (kind, detail) of each.
  """
  example, problems = _parsed(tf.train.Example, record)
  yield from problems
  if problems:
    return
  features = example.features.feature
  yield from _id_problems(features, "it has")
  for name, size in sizes.items():
    if name not in features:
      hint = ""
      if _has_frames(record):
        hint = "; it is a frame-level record: add --frame_features=True"
      yield "missing_feature", f"no {name!r} in {sorted(features)}{hint}"
      continue
    yield from _type_problems(features, name, "float_list")
    values = features[name].float_list.value
    if _type(features[name]) in ("float_list", None) and len(values) != size:
      yield (
        "bad_feature_size",
        f"{name!r} has {len(values)} floats, where --feature_sizes says {size}",
      )
    bad = [value for value in values if not math.isfinite(value)]
    if bad:
      yield (
        "not_finite",
        f"{len(bad)} of the {len(values)} numbers of {name!r} are not finite, "
        f"the first {bad[0]}",
      )
  if use_labels:
    yield from _type_problems(features, "labels", "int64_list")
    yield from _label_problems(features, "labels", num_classes, skip_unlabelled)


def frame_problems(
  record: bytes,
  *,
  sizes: Mapping[str, int],
  num_classes: int,
  max_frames: int,
  segment_labels: bool,
  use_labels: bool,
  skip_unlabelled: bool,
  dtype: str = "uint8",
) -> Iterator[tuple[str, str]]:
  """Yields the problems of a tf.SequenceExample of frames.

  Args:
    record: serialized.
    sizes: numbers of a frame of each feature.
    num_classes: see `video_problems`.
    max_frames: what a video has beyond does not count.
    segment_labels: whether the labels are those of segments.
    use_labels: see `video_problems`.
    skip_unlabelled: see `video_problems`.
    dtype: how frames are stored, one of `features_file.DTYPES`.

  Yields:
    (kind, detail) of each.
  """
  example, problems = _parsed(tf.train.SequenceExample, record)
  yield from problems
  if problems:
    return
  context = example.context.feature
  lists = example.feature_lists.feature_list
  yield from _id_problems(context, "its context has")
  yield from _list_problems(lists, sizes, dtype)
  key = "segment_labels" if segment_labels else "labels"
  if use_labels:
    yield from _type_problems(context, key, "int64_list")
    if segment_labels:
      yield from _type_problems(context, "segment_start_times", "int64_list")
      yield from _type_problems(context, "segment_scores", "float_list")
    yield from _label_problems(context, key, num_classes, skip_unlabelled)
    filled = [len(lists[name].feature) for name in sizes if name in lists]
    filled = [length for length in filled if length]
    if segment_labels and filled:
      yield from _rating_problems(context, min(*filled, max_frames))


def _parsed(kind, record):
  """(a message of a kind, the problems that keep it from being one)."""
  message = kind()
  try:
    message.ParseFromString(record)
  except Exception as error:  # Whatever the protobuf library in use raises.
    return message, [
      ("unparsable_record", f"not a tf.{kind.__name__}: {error}")
    ]
  return message, []


def _list_problems(lists, sizes, dtype):
  """Yields what is wrong with the lists of frames."""
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
      yield from _frame_problems(name, size, dtype, lists[name].feature)


def _has_frames(record):
  """Whether this is a tf.SequenceExample with lists of features."""
  try:
    example = tf.train.SequenceExample.FromString(record)
  except Exception:  # Of bytes that are none, whatever protobuf raises.
    return False
  return bool(example.feature_lists.feature_list)


def _has_id(features):
  """Whether there is an id, of whatever type: a wrong one is told apart."""
  return any(
    any(features[key].bytes_list.value)
    or _type(features[key]) not in ("bytes_list", None)
    for key in ID_KEYS
    if key in features
  )


def _id_problems(features, place):
  """Yields what is wrong with the ids; `place` begins the list of what is."""
  for key in ID_KEYS:
    yield from _type_problems(features, key, "bytes_list")
    count = len(features[key].bytes_list.value) if key in features else 0
    if count > 1:
      yield "wrong_type", f"{key!r} is {count} strings, where one is wanted"
  if not _has_id(features):
    yield "missing_id", f"{place} {sorted(features)}"


def _type(feature):
  """ "bytes_list", "int64_list", "float_list", or None if it has no value."""
  return feature.WhichOneof("kind")


def _type_problems(features, key, wanted):
  """Yields what is wrong with the type of a feature, if it is there."""
  found = _type(features[key]) if key in features else None
  if found in (wanted, None):
    return
  values = getattr(features[key], found).value
  detail = f"{key!r} is {len(values)} {_TYPES[found]}"
  detail += f" (the first: {values[0]!r:.80})" if values else ""
  hint = _TYPE_HINTS.get((found, wanted), "")
  if found == "bytes_list" and wanted == "float_list" and len(values) == 1:
    hint = f": one of {len(values[0])} bytes; write the numbers themselves"
  yield "wrong_type", f"{detail}, where {_TYPES[wanted]} are wanted{hint}"


def _numbers(features, key):
  """The integers or floats of a feature; none if it is not there."""
  if key not in features:
    return []
  feature = features[key]
  return [*feature.int64_list.value, *feature.float_list.value]


def _label_problems(features, key, num_classes, skip_unlabelled):
  """Yields what is wrong with the labels of a record."""
  if key in features and _type(features[key]) not in ("int64_list", None):
    return  # That is told already.
  labels = _numbers(features, key)
  strays = [label for label in labels if not 0 <= label < num_classes]
  if strays:
    yield (
      "label_out_of_range",
      f"labels {', '.join(map(str, strays[:_SHOWN]))}"
      f"{' and more' if len(strays) > _SHOWN else ''}, where "
      f"--num_classes={num_classes}",
    )
  if skip_unlabelled and len(strays) == len(labels):
    yield "no_labels", f"{len(labels)} labels, none within the classes"


def _rating_problems(context, num_frames):
  """Yields what is wrong with the rated segments of a record."""
  lengths = {key: len(_numbers(context, key)) for key in RATING_KEYS}
  if len(set(lengths.values())) > 1:
    yield "bad_segments", f"values of each: {lengths}"
    return
  bad = [
    score
    for score in _numbers(context, "segment_scores")
    if not math.isfinite(score)
  ]
  if bad:
    yield "not_finite", f"{len(bad)} of 'segment_scores', the first {bad[0]}"
  for start in sorted(set(_numbers(context, "segment_start_times"))):
    if not 0 <= start < num_frames:
      yield (
        "segment_out_of_range",
        f"a segment begins at {start} of {num_frames} frames",
      )


def _frame_problems(name, size, dtype, steps):
  """Yields what is wrong with the first frame that is not sound."""
  is_list = dtype == "float_list"
  problem_of = _list_problem if is_list else _string_problem
  for frame, step in enumerate(steps):
    if problem := problem_of(size, dtype, step):
      kind, detail = problem
      yield kind, f"frame {frame} of {name!r} {detail}"
      return


def _string_problem(size, dtype, step):
  """(kind, detail) of a frame that is no string of numbers, or None."""
  found, wanted = _type(step), size * _NUM_BYTES[dtype]
  if found not in ("bytes_list", None):
    count = len(getattr(step, found).value)
    way_out = _QUANTISE
    if found == "float_list" and count == size:
      way_out += ", or give --feature_dtype=float_list"
    return (
      "wrong_type",
      f"is {count} {_TYPES[found]}, where one string of {wanted} bytes is "
      f"wanted: {way_out}",
    )
  values = step.bytes_list.value
  if len(values) != 1 or len(values[0]) != wanted:
    lengths = [len(value) for value in values]
    hint = _dtype_hint(lengths[0] / size) if len(lengths) == 1 else ""
    flags, says = "--feature_sizes", f"says {wanted}"
    if dtype != "uint8":
      flags, says = f"{flags} and --feature_dtype={dtype}", f"say {wanted}"
    return (
      "bad_feature_size",
      f"has {lengths} bytes, where {flags} {says}{hint}",
    )
  if dtype == "uint8":
    return None
  return _finite_problem(np.frombuffer(values[0], np.dtype(dtype)).tolist())


def _list_problem(size, dtype, step):
  """(kind, detail) of a frame that is no list of finite floats, or None."""
  found = _type(step)
  if found not in ("float_list", None):
    values = getattr(step, found).value
    hint = ""
    if found == "bytes_list" and len(values) == 1:
      hint = _dtype_hint(len(values[0]) / size)
    return (
      "wrong_type",
      f"is {len(values)} {_TYPES[found]}, where --feature_dtype={dtype} wants "
      f"{size} floats{hint}",
    )
  values = step.float_list.value
  if len(values) != size:
    return (
      "bad_feature_size",
      f"has {len(values)} floats, where --feature_sizes says {size}",
    )
  return _finite_problem(values)


def _finite_problem(values):
  """(kind, detail) of numbers that are not all finite, or None."""
  bad = [value for value in values if not math.isfinite(value)]
  if not bad:
    return None
  return (
    "not_finite",
    f"has {len(bad)} numbers of {len(values)} that are not finite, the first "
    f"{bad[0]}",
  )


def _dtype_hint(num_bytes):
  """What to do about numbers of so many bytes; "" if none has that many."""
  found = _DTYPES.get(num_bytes)
  if not found:
    return ""
  if found == "uint8":
    return ": uint8 numbers? Then give --feature_dtype=uint8"
  if found == "float64":
    return f": float64 numbers? Then {_QUANTISE}, or store float32"
  return f": {found} numbers? Then {_QUANTISE}, or give --feature_dtype={found}"
