"""The flags that say what is read, and what the data themselves say of them.

Beside data of one's own stand `features.json` and `vocabulary.csv` (see
records/features_file.py and records/vocabulary.py): flags that nobody gives
have their values, and a model refuses data whose features were made or stored
otherwise than those that it was trained on. Data without such a file are as the
flags say.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags, logging

from console import flag_fields
from models import base
from records import data_files, features_file, vocabulary

Values = Mapping[str, Any]

_WAY_OUT = (
  "Features are comparable only if they are made and stored alike: make these "
  "records as the others (scripts/make_records.py), or train on them."
)


@dataclasses.dataclass(frozen=True)
class Reading(flag_fields.Config, group="Data"):
  """What is read."""

  feature_names: str = flag_fields.text(
    "mean_rgb",
    "Comma-separated names of the features in the records: 'rgb,audio' of "
    "frame-level files, 'mean_rgb,mean_audio' of video-level ones.",
  )
  feature_sizes: str = flag_fields.integers(
    "1024", "Comma-separated lengths of the features: '1024,128'."
  )
  frame_features: bool = flag_fields.boolean(
    False,
    "Read frame-level records (SequenceExamples) for a frame-level model, "
    "rather than video-level ones (Examples) for a video-level model.",
  )
  segment_labels: bool = flag_fields.boolean(
    False,
    "Train and evaluate on rated five-second segments, predict for every such "
    "segment; needs --frame_features.",
    may_change=True,
  )
  num_classes: int = flag_fields.integer(
    3862, "Labels are 0 to num_classes - 1.", low=2
  )
  max_frames: int = flag_fields.integer(
    300,
    "What a video has beyond so many frames is left out.",
    low=1,
    may_change=True,
  )
  holdout_fraction: float = flag_fields.real(
    0.0,
    "Share of the videos, by a hash of their id, that train.py leaves out "
    "and eval.py --holdout sees alone. The paper holds out 0.02.",
    low=0.0,
    high=0.99,
  )
  feature_dtype: str = flag_fields.choice(
    "uint8",
    features_file.DTYPES,
    "How a frame of frame-level features is stored. uint8: a string of a byte "
    "a number, over --feature_ranges. float16, float32: a string of 2 or 4 "
    "bytes a number, little endian. float_list: a list of floats.",
  )
  feature_ranges: str = flag_fields.ranges(
    "",
    "What the bytes 0 and 255 stand for, LOW:HIGH; or a comma list, one for "
    "each feature. -2:2 if not given, as in YouTube-8M.",
    may_change=lambda saved, current: _ranges_of(saved) == _ranges_of(current),
  )
  feature_fingerprints: str = flag_fields.text(
    "",
    "What made each feature, as features.json has it; '' if not known.",
    hidden=True,
    # What is not known may be anything.
    may_change=lambda saved, current: (
      not saved.strip(",") or not current.strip(",")
    ),
  )

  @property
  def features(self):
    """list of `base.Feature`.

    Raises:
      ValueError: neither one range nor one for each feature.
    """
    names = flag_fields.parse_names(self.feature_names)
    sizes = flag_fields.parse_ints(self.feature_sizes)
    ranges = flag_fields.parse_ranges(self.feature_ranges)
    ranges = ranges or [features_file.DEFAULT_RANGE]
    if len(ranges) not in (1, len(names)):
      raise ValueError(
        f"Need one of --feature_ranges={self.feature_ranges} for each of "
        f"--feature_names={self.feature_names}, or one for all."
      )
    ranges *= len(names) if len(ranges) == 1 else 1
    return [
      base.Feature(name, size, *bounds)
      for name, size, bounds in zip(names, sizes, ranges)
    ]


def _ranges_of(text):
  """What --feature_ranges says, one range if all are the same."""
  found = flag_fields.parse_ranges(text) or [features_file.DEFAULT_RANGE]
  return found[:1] if len(set(found)) == 1 else found


def differing(wanted: Reading, found: Reading) -> list[tuple[str, str, str]]:
  """In what two descriptions of features differ; what is not known may be any.

  Returns:
    list of (flag, its value in the one, its value in the other).
  """
  both = wanted, found

  def differs(of):
    return of(wanted) != of(found)

  names = []
  if differs(lambda one: [each.name for each in one.features]):
    names.append("feature_names")
  if differs(lambda one: [each.size for each in one.features]):
    names.append("feature_sizes")
  if differs(lambda one: one.feature_dtype):
    names.append("feature_dtype")
  elif wanted.feature_dtype == "uint8" and differs(
    lambda one: [(each.low, each.high) for each in one.features]
  ):
    names.append("feature_ranges")
  fingerprints = (one.feature_fingerprints.split(",") for one in both)
  if any(a and b and a != b for a, b in zip(*fingerprints)):
    names.append("feature_fingerprints")
  unsaid = {"feature_ranges": "-2:2"}
  values = (
    [getattr(one, name) or unsaid.get(name, "''") for name in names]
    for one in both
  )
  return list(zip(names, *values))


class Described(NamedTuple):
  """What stands beside data.

  Attributes:
    directory: str, that of the files below.
    description: `features_file.Description`.
    names: `vocabulary.Vocabulary`, or None.
  """

  directory: str
  description: features_file.Description
  names: vocabulary.Vocabulary | None

  @property
  def path(self) -> str:
    """That of features.json."""
    return os.path.join(self.directory, features_file.FILE_NAME)

  def values(self, names: Iterable[str]) -> dict[str, Any]:
    """Values of the flags about some of the features.

    Raises:
      ValueError: there is no feature of such a name.
    """
    known = {each.name: each for each in self.description.features}
    missing = [name for name in names if name not in known]
    if missing:
      raise ValueError(
        f"{self.path} describes {', '.join(known)}, and no {missing[0]!r}: "
        f"give --feature_names={','.join(known)} and --feature_sizes="
        f"{','.join(str(each.size) for each in known.values())} (a preset has "
        "those of its data)."
      )
    features = [known[name] for name in names]
    ranges = [f"{each.low!r}:{each.high!r}" for each in features]
    if {(x.low, x.high) for x in features} == {features_file.DEFAULT_RANGE}:
      ranges = []
    fingerprints = [each.fingerprint for each in features]
    return {
      "frame_features": True,
      "feature_names": ",".join(each.name for each in features),
      "feature_sizes": ",".join(str(each.size) for each in features),
      "feature_dtype": self.description.dtype,
      "feature_ranges": ",".join(ranges),
      "feature_fingerprints": ",".join(fingerprints).strip(",")
      and ",".join(fingerprints),
    }


def beside(paths: Sequence[str], flag: str) -> Described | None:
  """What stands beside files; None if none of their directories has it.

  Raises:
    ValueError: a file that can't be understood, or directories that differ in
      it.
  """
  found = []
  for directory in sorted({os.path.dirname(path) for path in paths}):
    if description := features_file.load(directory):
      path = vocabulary.find(directory)
      names = vocabulary.load(path) if path else None
      found.append(Described(directory, description, names))
  for other in found[1:]:
    if _essence(other) != _essence(found[0]):
      raise ValueError(
        f"--{flag} names data that differ in their features or classes: "
        f"compare {found[0].path} and {other.path}, and the "
        f"{vocabulary.FILE_NAME} beside them."
      )
  return found[0] if found else None


def names_beside(paths: Sequence[str]) -> str:
  """The directory whose vocabulary names the classes of data without more.

  It gives names and says nothing of flags, so one that can't be understood, or
  several that differ, are told, and the classes stay numbers: "".
  """
  found = {}
  for directory in sorted({os.path.dirname(path) for path in paths}):
    if path := vocabulary.find(directory):
      try:
        found.setdefault(vocabulary.load(path), directory)
      except ValueError as error:
        logging.warning("Classes get no names from it: %s", error)
  if len(found) > 1:
    logging.warning(
      "Classes get no names: the %s of %s differ.",
      vocabulary.FILE_NAME,
      " and ".join(found.values()),
    )
  return next(iter(found.values())) if len(found) == 1 else ""


def _essence(described):
  """What is equal for data that can be read as one set."""
  features = [
    (x.name, x.size, x.dtype, x.low, x.high, x.fingerprint)
    for x in described.description.features
  ]
  return features, described.names


def filled(
  values: Values,
  pattern: str,
  flag: str = "train_data_pattern",
  flag_values: flags.FlagValues = flags.FLAGS,
) -> dict[str, Any]:
  """Values in which the data say what the command line does not.

  Args:
    values: of all flags that define a reader and a model.
    pattern: the data's, of a flag.
    flag: its name.
    flag_values: the parsed flags, for which of them are given.

  Raises:
    ValueError: no such file, or one that contradicts a flag that is given.
  """
  described = beside(data_files.expand_data_pattern(pattern, flag), flag)
  given = flag_fields.given(flag_fields.specs(Reading), flag_values)
  if not described or (
    "frame_features" in given and not values["frame_features"]
  ):
    return dict(values)
  names = [each.name for each in described.description.features]
  if "feature_names" in given:
    names = flag_fields.parse_names(values["feature_names"])
  own = described.values(names)
  if described.names:
    own["num_classes"] = max(2, len(described.names))
  own = {name: value for name, value in own.items() if name not in given}
  logging.info(
    "From %s: %s.",
    described.path,
    ", ".join(f"--{name}={value}" for name, value in own.items() if value),
  )
  _check({**values, **own}, described, flag, "the command line has")
  return {**values, **own}


def check(
  values: Values, paths: Sequence[str], flag: str, train_dir: str = ""
) -> None:
  """Refuses data that were made or stored otherwise than a model's.

  Args:
    values: the model's flags.
    paths: the files.
    flag: that names them.
    train_dir: the model's directory, where the labels of the data matter: the
      names of the classes are then compared too.

  Raises:
    ValueError: they do not go together; a line that names both.
  """
  if not values["frame_features"]:
    return
  described = beside(paths, flag)
  if not described:
    return
  _check(values, described, flag, "the model was trained with")
  path = vocabulary.find(train_dir) if train_dir else ""
  if not path or not described.names:
    return
  pairs = zip(vocabulary.load(path).names, described.names.names)
  for index, (ours, theirs) in enumerate(pairs):
    if ours != theirs:
      raise ValueError(
        f"--{flag}: class {index} is {theirs!r} in the {vocabulary.FILE_NAME} "
        f"of {described.directory}, but {ours!r} in {path}: labels would mean "
        "other classes. Make both with one vocabulary."
      )


def _check(values, described, flag, whose):
  """Raises ValueError where flags differ from what stands beside data."""
  wanted = flag_fields.from_values(Reading, values)
  names = flag_fields.parse_names(wanted.feature_names)
  try:
    own = described.values(names)
  except ValueError as error:
    raise ValueError(f"--{flag}: {error}") from None
  found = flag_fields.from_values(Reading, {**values, **own})
  if differences := differing(wanted, found):
    raise ValueError(
      f"--{flag}: {described.path} has "
      + ", ".join(f"--{name}={theirs}" for name, _, theirs in differences)
      + f", but {whose} "
      + ", ".join(f"--{name}={ours}" for name, ours, _ in differences)
      + f". {_WAY_OUT}"
    )
