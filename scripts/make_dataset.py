"""Writes learnable synthetic YouTube-8M in the true file formats.

A training set of frame-level features, and other videos of the same classes
to evaluate on:

  python scripts/make_dataset.py --output_dir=/tmp/yt8m --num_videos=5000
  python scripts/make_dataset.py --output_dir=/tmp/yt8m --num_videos=1000 \\
      --split=validate --seed=1

Small, audio only, video level:

  python scripts/make_dataset.py --output_dir=/tmp/small --level=video \\
      --feature_names=mean_audio --feature_sizes=16 --num_classes=20 \\
      --min_frames=20 --max_frames=40

What a video is made of follows from --seed, --split and its number in the
split; what a class looks like follows from --prototype_seed alone. So sets
written with different --seed or --split hold different videos of the same
classes, and a model trained on one can be evaluated on the other, as long as
--prototype_seed, --num_classes, --feature_sizes, --label_signature and --noise
agree. The video level of a seed and split holds the means of the same videos,
under the same ids and labels, as the frame level; shard count and feature names
change nothing in them.

Every class has a prototype vector for each feature. A label shows in some of
the frames only (--label_frames), in one run or scattered, as its prototype
plus noise; the other frames show backgrounds which all classes share. Labels
are long-tailed: class 0 is the most frequent, as in YouTube-8M. On request,
clutter and near-identical copies of a frame crowd the labels
(--clutter_frames, --burst_frames), or classes differ in correlations instead
of prototypes (--label_signature).

What a set asks of a model is a matter of these flags. The figures are the GAP
of ridge regression on the mean over the frames and on their second moments
(the mean of x x^T), each with plain and with democratic weights (Jégou,
Zisserman 2014); 600 videos to learn from, 300 others to test on, mean of three
seeds, at --feature_sizes=64,16 --num_classes=20 --min_frames=40
--max_frames=60 --labels_per_video=1. The frequencies of the classes alone have
0.10.

                                                    mean       second moments
                                                plain  dem.    plain  dem.
  the defaults: the mean is enough               1.00  1.00     1.00  1.00
  few frames count, the others are noise:
    --label_frames=0.1 --noise=2                 0.45  0.63     0.70  0.83
  clutter:
    --label_frames=0.1 --clutter_frames=0.8      0.64  0.76     1.00  1.00
  a burst:
    --label_frames=0.2 --burst_frames=0.7        0.39  0.92     0.90  1.00
  only the second order tells classes apart:
    --label_signature=covariance
    --label_frames=0.5 --noise=0.5               0.09  0.09     1.00  1.00
  the same, and a burst:
    --label_signature=covariance
    --label_frames=0.3 --noise=0.5
    --burst_frames=0.6                           0.10  0.10     0.82  1.00

The prototypes on the best frames have 0.98 or more in the first four. How many
videos a model learns from (--num_videos) counts as much: in the second row,
plain second moments have 0.22 from 100 videos and 0.91 from 2,400, the mean
0.22 and 0.55. Sets of YouTube-8M's sizes need more noise for the same effect:
with --label_frames=0.02 --noise=3, 100 classes and 1,500 videos, the mean has
0.27, the prototypes on the best frames 1.00.

Clutter and the burst replace frames without a label first. When there are too
few of those, as label_frames + clutter_frames + burst_frames > 1 or a video has
many labels, they replace frames with labels too: labels then show in fewer
frames than --label_frames says, but each in one at least.

Axes: T frames, L labels of a video, C classes, S sources (the backgrounds,
then the labels of a video), D size of a feature, M directions, P = M / 2 pairs
of them.
"""

import base64
import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import re
import sys
from collections.abc import Sequence

import numpy as np
import tqdm
from absl import app, flags

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import flag_types  # isort: skip
import messages  # isort: skip

# tensorflow is imported where files are written: it takes seconds, which
# neither --help nor a mistyped flag should cost.

_DEFAULT_NAMES = {
  "frame": ("rgb", "audio"),
  "video": ("mean_rgb", "mean_audio"),
}
# The other keys of the two formats; a feature of that name would replace
# them, in the file or in the reader's dictionary.
_RESERVED_NAMES = frozenset(["id", "video_id", "labels"])

_NUM_BACKGROUNDS = 8
# A background lasts twenty frames on average.
_CUT_PROBABILITY = 0.05
# The clutter of a set, and how much of it one video shows. The pool is larger
# than a small feature, so no projection of the mean is free of it.
_NUM_CLUTTER = 64
_CLUTTER_OF_VIDEO = 4
_NO_DISTRACTOR = -1
_MAX_MESSAGE = 2000
# Deviation of a frame of a burst from the first one, relative to the noise.
_BURST_JITTER = 0.02
_SIGNATURES = ("mean", "covariance")
# Directions whose pairs tell classes apart by covariance: 519 million classes.
_NUM_DIRECTIONS = 16
_NUM_PAIRS = _NUM_DIRECTIONS // 2
# Popularity of the class at rank r is 1 / (r + 2). Plain Zipf, 1 / r, would
# give nearly a third of all videos to the first of 3,862 classes; this gives
# it one in eight.
_POPULARITY_OFFSET = 2
# Standard deviation of all values before they are quantised: fewer than one in
# a thousand lie beyond the +-2 that a byte can express.
_VALUE_STD = 0.6
# The noise of a frame is a mixture of fresh noise and that of the frame
# before, which gives neighbours a correlation of 0.4.
_FRESH, _CARRIED = 0.8**0.5, 0.2**0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
  """What to write; each field is the flag of the same name.

  `feature_names` None stands for the names of YouTube-8M at that level; lists
  become tuples.

  Raises:
    ValueError: a field is out of range, or two fields contradict each other.
  """

  output_dir: str
  level: str = "frame"
  feature_names: Sequence[str] | None = None
  feature_sizes: Sequence[int] = (1024, 128)
  num_videos: int = 1000
  num_shards: int = 4
  num_classes: int = 3862
  min_frames: int = 120
  max_frames: int = 300
  labels_per_video: float = 3.0
  label_frames: float = 0.25
  label_signature: str = "mean"
  clutter_frames: float = 0.0
  burst_frames: float = 0.0
  noise: float = 1.0
  seed: int = 0
  prototype_seed: int = 0
  split: str = "train"
  overwrite: bool = False

  def __post_init__(self) -> None:
    if not self.output_dir:
      raise ValueError(f"Need a directory, got output_dir={self.output_dir!r}.")
    if self.level not in _DEFAULT_NAMES:
      raise ValueError(f"Need level frame or video, got level={self.level!r}.")
    names = self.feature_names
    if names is None:
      names = _DEFAULT_NAMES[self.level]
    # The dataclass is frozen for its users, not yet for itself.
    object.__setattr__(self, "feature_names", tuple(names))
    object.__setattr__(self, "feature_sizes", tuple(self.feature_sizes))
    self._check_features()
    for name, least in [
      ("num_videos", 1),
      ("num_shards", 1),
      ("num_classes", 2),
      ("min_frames", 1),
    ]:
      if getattr(self, name) < least:
        raise ValueError(
          f"Need {name} >= {least}, got {name}={getattr(self, name)}."
        )
    if self.num_shards > self.num_videos:
      raise ValueError(
        "Need a video for every shard, got "
        f"num_shards={self.num_shards}, num_videos={self.num_videos}."
      )
    if self.min_frames > self.max_frames:
      raise ValueError(
        "Need min_frames <= max_frames, got "
        f"min_frames={self.min_frames}, max_frames={self.max_frames}."
      )
    # Comparisons are written so that NaN fails them.
    if not 1 <= self.labels_per_video <= self.num_classes:
      raise ValueError(
        "Need 1 <= labels_per_video <= num_classes, got "
        f"labels_per_video={self.labels_per_video}, "
        f"num_classes={self.num_classes}."
      )
    if not 0 < self.label_frames <= 1:
      raise ValueError(
        f"Need 0 < label_frames <= 1, got label_frames={self.label_frames}."
      )
    self._check_distractors()
    if not 0 <= self.noise < math.inf:
      raise ValueError(f"Need a finite noise >= 0, got noise={self.noise}.")
    # Dashes would let the files of one split match the pattern of another
    # (train-*.tfrecord and train-small-...).
    if not re.fullmatch(r"[A-Za-z0-9_]+", self.split):
      raise ValueError(
        f"Need letters, digits or _ in split, got split={self.split!r}."
      )

  def _check_features(self) -> None:
    names, sizes = self.feature_names, self.feature_sizes
    if not names or len(names) != len(sizes):
      raise ValueError(
        "Need one size for each feature, got "
        f"feature_names={list(names)}, feature_sizes={list(sizes)}."
      )
    if not 1 <= min(sizes) <= max(sizes) <= flag_types.MAX_INTEGER:
      raise ValueError(
        f"Need sizes from 1 to {flag_types.MAX_INTEGER}, got "
        f"feature_sizes={list(sizes)}."
      )
    if (
      len(set(names)) < len(names)
      or "" in names
      or _RESERVED_NAMES.intersection(names)
    ):
      raise ValueError(
        "Need distinct, non-empty names other than "
        f"{sorted(_RESERVED_NAMES)}, got feature_names={list(names)}."
      )
    if self.label_signature not in _SIGNATURES:
      raise ValueError(
        f"Need label_signature {' or '.join(_SIGNATURES)}, got "
        f"label_signature={self.label_signature!r}."
      )
    if self.label_signature == "covariance" and min(sizes) < _NUM_DIRECTIONS:
      raise ValueError(
        f"Need sizes >= {_NUM_DIRECTIONS} with label_signature='covariance', "
        f"got feature_sizes={list(sizes)}."
      )

  def _check_distractors(self) -> None:
    for name in ("clutter_frames", "burst_frames"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(
          f"Need 0 <= {name} < 1, got {name}={getattr(self, name)}."
        )
    if self.clutter_frames + self.burst_frames >= 1:
      raise ValueError(
        "Need clutter_frames + burst_frames < 1, got "
        f"clutter_frames={self.clutter_frames}, "
        f"burst_frames={self.burst_frames}."
      )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
  """What all videos of a configuration share.

  Attributes:
    popularity: float64 [C], descending, sums to 1.
    backgrounds: float32 [8, D] for each feature, unit variance.
    clutter: float32 [64, D] for each feature, unit variance.
    prototypes: float32 [C, D] for each feature, unit variance.
    directions: float32 [M, D] for each feature, orthogonal, of squared norm
      D / M; none unless label_signature is covariance.
    codes: float32 [C, P, M] for each feature, distinct; row p of a class has
      1 in one column of its pair and the pair's sign in the other. None unless
      label_signature is covariance.
  """

  popularity: np.ndarray
  backgrounds: tuple[np.ndarray, ...]
  clutter: tuple[np.ndarray, ...]
  prototypes: tuple[np.ndarray, ...]
  directions: tuple[np.ndarray, ...]
  codes: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Video:
  """One video, before it is serialised.

  Attributes:
    video_id: 11 characters of YouTube's alphabet.
    labels: int64 [L], ascending, L >= 1.
    shows: bool [T, L], True where a label shows.
    clutter: bool [T], True where clutter shows.
    burst: bool [T], True in the burst.
    frames: uint8 [T, D] by feature name.
  """

  video_id: bytes
  labels: np.ndarray
  shows: np.ndarray
  clutter: np.ndarray
  burst: np.ndarray
  frames: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
  """What `write_dataset` wrote.

  Attributes:
    paths: the shards, in order.
    pattern: a glob that matches them and no other split's.
    num_videos: int.
    num_bytes: int, of all shards.
    label_counts: int64 [C], videos that carry the class.
  """

  paths: tuple[str, ...]
  pattern: str
  num_videos: int
  num_bytes: int
  label_counts: np.ndarray


def quantize(values: np.ndarray) -> np.ndarray:
  """Maps floats to the bytes of YouTube-8M, clipping beyond about +-2.

  Args:
    values: float array of any shape.

  Returns:
    uint8, same shape; `dequantize` of it is within 2/255 of `values` in
    [-1.992, 2.007].
  """
  steps = values + (2 - 4 / 512)
  steps *= 255 / 4
  np.rint(steps, out=steps)
  return np.clip(steps, 0, 255, out=steps).astype(np.uint8)


def dequantize(values: np.ndarray) -> np.ndarray:
  """Maps bytes, or means of bytes, to floats as the readers do."""
  return values * (4 / 255) + (4 / 512 - 2)


def make_classes(config: DatasetConfig) -> Classes:
  """Draws what all videos share, from `prototype_seed` and the sizes."""
  popularity = 1 / (
    np.arange(1, config.num_classes + 1) + float(_POPULARITY_OFFSET)
  )
  backgrounds, clutter, prototypes, directions, codes = [], [], [], [], []
  for position, size in enumerate(config.feature_sizes):
    rng = _generator("prototypes", config.prototype_seed, position)
    backgrounds.append(_normal(rng, _NUM_BACKGROUNDS, size))
    prototypes.append(_normal(rng, config.num_classes, size))
    # Generators of their own: a set without them has the same prototypes.
    rng = _generator("clutter pool", config.prototype_seed, position)
    clutter.append(_normal(rng, _NUM_CLUTTER, size))
    if config.label_signature == "covariance":
      rng = _generator("covariance", config.prototype_seed, position)
      directions.append(_draw_directions(rng, size))
      codes.append(_draw_codes(rng, config.num_classes))
  return Classes(
    popularity=popularity / popularity.sum(),
    backgrounds=tuple(backgrounds),
    clutter=tuple(clutter),
    prototypes=tuple(prototypes),
    directions=tuple(directions),
    codes=tuple(codes),
  )


def generate_video(
  config: DatasetConfig, classes: Classes, index: int
) -> Video:
  """Makes one video.

  It depends on the seed, the split and `index`, but not on the number of
  videos or shards, the level, or the names of the features.

  Args:
    config: the data set.
    classes: `make_classes(config)`, or that of a configuration with the same
      prototype_seed, num_classes, feature_sizes and label_signature.
    index: int >= 0, number of the video in its split.

  Returns:
    A `Video` of min_frames to max_frames frames.
  """
  rng = _generator("video", config.seed, config.split, index)
  num_frames = int(
    rng.integers(config.min_frames, config.max_frames, endpoint=True)
  )
  labels = _draw_labels(rng, config, classes.popularity)
  shows = _place_labels(rng, num_frames, len(labels), config.label_frames)
  distractors, burst = _place_distractors(config, index, shows)
  distracts = distractors != _NO_DISTRACTOR
  mixture = _mix_sources(rng, shows)
  # Loud noise makes the prototypes fainter instead of clipping the sum.
  scale = _VALUE_STD / math.sqrt(1 + config.noise**2)
  frames = {}
  for position, name in enumerate(config.feature_names):
    # With generators of its own, a feature stays the same when others are
    # added after it.
    key = config.seed, config.split, index, position
    weights, sources = _weigh_sources(
      config, classes, key, labels=labels, mixture=mixture
    )
    values = weights @ (sources * np.float32(scale))  # [T, D]
    pictures = _pictures(classes, position)
    values[distracts] = pictures[distractors[distracts]] * np.float32(scale)
    _add_noise(_generator("noise", *key), values, config.noise * scale)
    _still(values, burst)
    frames[name] = quantize(values)
  return Video(
    video_id=_video_id(config, index),
    labels=labels,
    shows=shows,
    clutter=distracts & ~burst,
    burst=burst,
    frames=frames,
  )


def write_dataset(
  config: DatasetConfig, *, show_progress: bool = False
) -> Summary:
  """Writes all shards, one video in memory at a time.

  Shards are complete or absent: they are written under temporary names,
  `*.tfrecord.tmp`, and renamed when the last of them is closed. A run that
  fails or is interrupted before that leaves the directory's earlier files as
  they were. Files of the same names are replaced.

  Args:
    config: the data set.
    show_progress: bool, draw a progress bar if stderr is a terminal.

  Returns:
    A `Summary`.

  Raises:
    FileExistsError: the directory holds this split in another number of
      shards, which would be read along with the new ones, and
      `config.overwrite` is False.
    OSError: the directory cannot be made or written to.
  """
  import tensorflow.compat.v1 as tf

  serialize = _serialize_frames if config.level == "frame" else _serialize_means
  os.makedirs(config.output_dir, exist_ok=True)
  stale = _other_shards(config)
  if stale and not config.overwrite:
    raise FileExistsError(
      f"{config.output_dir} holds {len(stale)} files of split "
      f"{config.split!r} in another number of shards, such as {stale[0]}; "
      f"with num_shards={config.num_shards} beside them every reader would "
      "mix the two. Set overwrite to delete them, or choose another "
      "output_dir or split."
    )

  classes = make_classes(config)
  label_counts = np.zeros([config.num_classes], np.int64)
  paths = [
    os.path.join(
      config.output_dir,
      f"{config.split}-{shard:05d}-of-{config.num_shards:05d}.tfrecord",
    )
    for shard in range(config.num_shards)
  ]
  temporary = [f"{path}.tmp" for path in paths]
  try:
    # disable=None: no bar in log files.
    with tqdm.tqdm(
      total=config.num_videos,
      unit=" videos",
      disable=None if show_progress else True,
    ) as progress:
      for path, indices in zip(temporary, _shard_ranges(config)):
        with tf.io.TFRecordWriter(path) as writer:
          for index in indices:
            video = generate_video(config, classes, index)
            writer.write(serialize(video))
            label_counts[video.labels] += 1
            progress.update()
    num_bytes = sum(os.path.getsize(path) for path in temporary)
    for name in stale:
      os.remove(os.path.join(config.output_dir, name))
    for source, target in zip(temporary, paths):
      os.replace(source, target)
  except tf.errors.OpError as error:
    raise OSError(str(error)) from error  # A full disk, for instance.
  finally:
    for path in temporary:
      with contextlib.suppress(FileNotFoundError):
        os.remove(path)
  return Summary(
    paths=tuple(paths),
    pattern=os.path.join(config.output_dir, f"{config.split}-*.tfrecord"),
    num_videos=config.num_videos,
    num_bytes=num_bytes,
    label_counts=label_counts,
  )


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the program's flags, with the defaults of `DatasetConfig`.

  Not done on import: tests import this module beside programs whose flags
  have the same names.
  """
  default = {
    field.name: field.default for field in dataclasses.fields(DatasetConfig)
  }
  flag_types.path(
    "output_dir",
    None,
    "Directory for the shards; made if missing.",
    required=True,
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    "level",
    default["level"],
    list(_DEFAULT_NAMES),
    "frame: SequenceExamples with one string of bytes a frame. video: "
    "Examples with the mean over the frames, as floats.",
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    "feature_names",
    default["feature_names"],
    "Names of the features, separated by commas; default: "
    + "; ".join(
      f"{','.join(names)} at {level} level"
      for level, names in _DEFAULT_NAMES.items()
    )
    + ".",
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    "feature_sizes",
    [str(size) for size in default["feature_sizes"]],
    "Size of each feature, in the order of --feature_names.",
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    "label_signature",
    default["label_signature"],
    list(_SIGNATURES),
    "What tells labels apart. mean: each has a prototype. covariance: the "
    "frames of all labels have the same mean and the same variances; only the "
    "correlations between 16 directions differ, which the mean over the "
    "frames does not see and second-order pooling does. Needs sizes of 16 or "
    "more.",
    flag_values=flag_values,
  )
  for name, text in {
    "labels_per_video": "Mean number of labels of a video; every video has at "
    "least one.",
    "label_frames": "Fraction of its video's frames in which a label shows; "
    "one frame at least. The smaller, the more depends on pooling.",
    "clutter_frames": "Fraction of the frames that show clutter: four "
    "pictures a video, out of 64 that videos of all classes share. It "
    "disturbs the mean over the frames; pooling that knows clutter when it "
    "sees it is not disturbed. Frames without a label are replaced first.",
    "burst_frames": "Fraction of the frames that are near-identical copies "
    "of one, a background or clutter, one after the other. A sum over the "
    "frames is mostly that picture; democratic weights (Jegou, Zisserman "
    "2014) count it about once. Frames without a label are replaced first.",
    "noise": "Standard deviation of the noise, relative to that of the "
    "prototypes.",
  }.items():
    flag_types.real(name, default[name], text, flag_values=flag_values)
  flags.DEFINE_string(
    "split",
    default["split"],
    "First part of the file names, such as train, validate or test. "
    "Another split has other videos, even with the same --seed.",
    flag_values=flag_values,
  )
  flags.DEFINE_boolean(
    "overwrite",
    default["overwrite"],
    "Delete files of the same split in another number of shards, which "
    "are an error otherwise.",
    flag_values=flag_values,
  )
  for name, text in {
    "num_videos": "Videos in this split.",
    "num_shards": "Files to spread the videos over.",
    "num_classes": "Size of the vocabulary.",
    "min_frames": "Frames of the shortest videos.",
    "max_frames": "Frames of the longest videos.",
  }.items():
    flag_types.integer(
      name, default[name], text, lower_bound=1, flag_values=flag_values
    )
  for name, text in {
    "seed": "Seed of the videos. Same seed and split, same bytes.",
    "prototype_seed": "Seed of the classes. Keep it the same for the splits of "
    "a data set, whatever their --seed: with another one a model meets "
    "classes it was not trained on.",
  }.items():
    flag_types.seed(name, default[name], text, flag_values=flag_values)


def config_from_flags(flag_values: flags.FlagValues) -> DatasetConfig:
  """Builds the configuration from parsed flags.

  Raises:
    ValueError: as `DatasetConfig`, or a size is not a number.
  """
  values = {
    field.name: flag_values[field.name].value
    for field in dataclasses.fields(DatasetConfig)
  }
  try:
    values["feature_sizes"] = [int(size) for size in values["feature_sizes"]]
  except ValueError:
    raise ValueError(
      f"Need whole numbers, got feature_sizes={values['feature_sizes']}."
    ) from None
  return DatasetConfig(**values)


def main(
  argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS
) -> None:
  if len(argv) > 1:
    _exit_with(f"Unknown arguments {argv[1:]}; flags begin with --.")
  try:
    config = config_from_flags(flag_values)
  except ValueError as error:
    _exit_with(f"{error} See --help.")
  try:
    summary = write_dataset(config, show_progress=True)
  except (MemoryError, OSError) as error:
    _exit_with(messages.cut(str(error), _MAX_MESSAGE))
  except KeyboardInterrupt:
    _exit_with("Interrupted; the temporary files are removed.")
  counts = summary.label_counts
  print(
    f"Wrote {summary.num_videos} videos ({config.level} level) in "
    f"{len(summary.paths)} shards, {summary.num_bytes} bytes:"
  )
  print(f"  {summary.pattern}")
  print(
    f"Labels: {counts.sum() / summary.num_videos:.2f} a video on average; "
    f"{np.count_nonzero(counts)} of {config.num_classes} classes occur, "
    f"the most frequent in {counts.max()} videos."
  )


def _exit_with(message: str) -> None:
  """Ends the program with status 1 and no traceback."""
  sys.exit(f"make_dataset.py: {message}")


def _generator(*key: str | int) -> np.random.Generator:
  """A generator for `key`, independent of those of all other keys."""
  return np.random.Generator(np.random.PCG64(_hash(key, num_bytes=16)))


def _hash(key: Sequence[str | int], *, num_bytes: int) -> int:
  """A number that, unlike Python's hash, is the same in every process."""
  # str, not repr: numpy's integers must count as Python's.
  text = "/".join(map(str, key)).encode()
  digest = hashlib.blake2b(text, digest_size=num_bytes).digest()
  return int.from_bytes(digest, "big")


def _video_id(config: DatasetConfig, index: int) -> bytes:
  """64 bits in 11 characters, as YouTube's ids.

  An odd factor permutes the 64-bit numbers, so no two ids of a split are
  equal; other seeds and splits start from elsewhere.
  """
  start = _hash(("id", config.seed, config.split), num_bytes=8)
  number = (start + int(index) * 0x9E3779B97F4A7C15) % 2**64
  return base64.urlsafe_b64encode(number.to_bytes(8, "big")).rstrip(b"=")


def _draw_labels(
  rng: np.random.Generator, config: DatasetConfig, popularity: np.ndarray
) -> np.ndarray:
  """Draws int64 [L] distinct labels, ascending, by popularity."""
  others = config.num_classes - 1
  # A binomial has the wanted mean and never asks for more than all classes.
  num_labels = 1 + rng.binomial(others, (config.labels_per_video - 1) / others)
  # The first arrivals of processes with these rates are a draw without
  # replacement with these weights.
  arrivals = rng.standard_exponential(config.num_classes) / popularity
  first = np.argpartition(arrivals, num_labels - 1)[:num_labels]
  return np.sort(first).astype(np.int64)


def _place_labels(
  rng: np.random.Generator, num_frames: int, num_labels: int, fraction: float
) -> np.ndarray:
  """Chooses the frames of each label: bool [T, L].

  Every label gets max(1, round(fraction * T)) frames; half of the labels in
  one run, the others scattered.
  """
  count = max(1, round(fraction * num_frames))
  shows = np.zeros([num_frames, num_labels], bool)
  for label in range(num_labels):
    if rng.random() < 0.5:
      start = rng.integers(num_frames - count, endpoint=True)
      shows[start : start + count, label] = True
    else:
      shows[rng.permutation(num_frames)[:count], label] = True
  return shows


def _normal(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
  """Draws float32 [rows, size] of unit variance."""
  return rng.standard_normal([rows, size], dtype=np.float32)


def _draw_directions(rng: np.random.Generator, size: int) -> np.ndarray:
  """Draws float32 [M, D], orthogonal; their sum has unit mean square."""
  basis, _ = np.linalg.qr(rng.standard_normal([size, _NUM_DIRECTIONS]))
  return (basis.T * math.sqrt(size / _NUM_DIRECTIONS)).astype(np.float32)


def _draw_codes(rng: np.random.Generator, num_classes: int) -> np.ndarray:
  """Draws a perfect matching of the directions, with signs, for each class.

  Frames of a class are random signs [P] times its code [P, M] times the
  directions. The coefficients of the directions have mean 0 and the covariance
  code^T code: 1 on the diagonal, the sign where two are paired, else 0.

  Returns:
    float32 [C, P, M], without two classes of the same covariance.
  """
  pair = np.arange(_NUM_PAIRS)
  codes = {}  # By covariance.
  while len(codes) < num_classes:
    one, other = rng.permutation(_NUM_DIRECTIONS).reshape(2, _NUM_PAIRS)
    code = np.zeros([_NUM_PAIRS, _NUM_DIRECTIONS], np.float32)
    code[pair, one] = 1
    code[pair, other] = rng.choice([-1, 1], _NUM_PAIRS)
    codes.setdefault((code.T @ code).tobytes(), code)
  return np.stack(list(codes.values()))


def _pictures(classes: Classes, position: int) -> np.ndarray:
  """What frames without a label show: backgrounds, clutter [8 + 64, D]."""
  return np.concatenate(
    [classes.backgrounds[position], classes.clutter[position]]
  )


def _weigh_sources(
  config: DatasetConfig,
  classes: Classes,
  key: Sequence[str | int],
  *,
  labels: np.ndarray,
  mixture: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """What the frames of a feature are sums of.

  Args:
    config: the data set.
    classes: its classes.
    key: seed, split, number of the video, and position of the feature.
    labels: int64 [L].
    mixture: float32 [T, S].

  Returns:
    Weights [T, S] and sources [S, D]; with covariance, weights [T, 8 + M] and
    sources [8 + M, D]. float32.
  """
  position = key[-1]
  if config.label_signature == "mean":
    weights, sources = mixture, classes.prototypes[position][labels]
  else:
    weights = _draw_loads(
      _generator("signs", *key), mixture, classes.codes[position][labels]
    )
    sources = classes.directions[position]
  return weights, np.concatenate([classes.backgrounds[position], sources])


def _draw_loads(
  rng: np.random.Generator, mixture: np.ndarray, codes: np.ndarray
) -> np.ndarray:
  """Weights of backgrounds and directions in each frame: float32 [T, 8 + M].

  `mixture` is [T, S]; `codes` [L, P, M], of the labels of the video.
  """
  backgrounds, labels = np.split(mixture, [_NUM_BACKGROUNDS], axis=1)
  signs = rng.choice(
    np.array([-1, 1], np.float32), [*labels.shape, _NUM_PAIRS]
  )  # [T, L, P]
  loads = np.einsum("tl,tlp,lpm->tm", labels, signs, codes)
  return np.concatenate([backgrounds, loads], axis=1)


def _place_distractors(
  config: DatasetConfig, index: int, shows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Chooses the frames of the burst and of the clutter, and what they show.

  They replace frames without a label as long as there are any, then frames
  with labels, and leave every label one frame; short of that, the burst comes
  before the clutter.

  Args:
    config: the data set.
    index: int, number of the video.
    shows: bool [T, L], cleared in the frames that are chosen.

  Returns:
    int64 [T], the row of the backgrounds and clutter, or -1; bool [T], True in
    the burst.
  """
  num_frames = len(shows)
  key = config.seed, config.split, index
  distractors = np.full([num_frames], _NO_DISTRACTOR)
  if count := round(config.burst_frames * num_frames):
    rng = _generator("burst", *key)
    picture = rng.integers(_NUM_BACKGROUNDS + _NUM_CLUTTER)
    order = _expendable(rng, shows, distractors == _NO_DISTRACTOR)
    num_free = np.count_nonzero(~shows.any(axis=1))
    # Frames with a label cut into the burst instead of ending it.
    frames = np.sort(order[: max(count, num_free)])
    start = rng.integers(max(0, len(frames) - count), endpoint=True)
    distractors[frames[start : start + count]] = picture
  burst = distractors != _NO_DISTRACTOR
  shows[burst] = False
  if count := round(config.clutter_frames * num_frames):
    rng = _generator("clutter", *key)
    own = rng.choice(_NUM_CLUTTER, _CLUTTER_OF_VIDEO, replace=False)
    frames = _expendable(rng, shows, ~burst)[:count]
    distractors[frames] = _NUM_BACKGROUNDS + rng.choice(own, len(frames))
    shows[frames] = False
  return distractors, burst


def _expendable(
  rng: np.random.Generator, shows: np.ndarray, available: np.ndarray
) -> np.ndarray:
  """The available frames but one of each label, in the order to replace them.

  Returns:
    int64 [N], frames without a label first, otherwise in random order.
  """
  order = rng.permutation(np.flatnonzero(available))
  kept = order[shows[order].argmax(axis=0)]
  order = order[~np.isin(order, kept)]
  return order[np.argsort(shows[order].any(axis=1), kind="stable")]


def _mix_sources(rng: np.random.Generator, shows: np.ndarray) -> np.ndarray:
  """Weights of backgrounds and labels in each frame: float32 [T, S].

  Frames without a label show one background, which changes now and then.
  Rows have unit norm, so that a frame with two labels is no louder.
  """
  num_frames = len(shows)
  scene = np.cumsum(rng.random(num_frames) < _CUT_PROBABILITY)  # [T]
  background_of_scene = rng.integers(_NUM_BACKGROUNDS, size=scene[-1] + 1)
  empty = np.flatnonzero(~shows.any(axis=1))
  mixture = np.concatenate(
    [np.zeros([num_frames, _NUM_BACKGROUNDS]), shows], axis=1, dtype=np.float32
  )
  mixture[empty, background_of_scene[scene[empty]]] = 1
  return mixture / np.linalg.norm(mixture, axis=1, keepdims=True)


def _add_noise(
  rng: np.random.Generator, values: np.ndarray, stddev: float
) -> None:
  """Adds noise that is correlated between frames to float32 [T, D], in place.

  It is a sum of two uniform variables: normal ones take four times as long,
  and were half of the program's time.
  """
  num_frames, size = values.shape
  fresh = rng.random([num_frames + 1, size], dtype=np.float32)
  fresh -= np.float32(0.5)
  # A uniform variable's variance is 1/12.
  fresh *= np.float32(stddev * math.sqrt(12) * _FRESH)
  values += fresh[1:]
  fresh *= np.float32(_CARRIED / _FRESH)
  values += fresh[:-1]


def _still(values: np.ndarray, burst: np.ndarray) -> None:
  """Moves frames of a burst to its first: float32 [T, D], in place.

  They show the same picture, so what sets them apart is noise.
  """
  if burst.any():
    first = values[burst.argmax()].copy()
    values[burst] = first + np.float32(_BURST_JITTER) * (values[burst] - first)


def _shard_ranges(config: DatasetConfig) -> list[range]:
  """Indices of each shard's videos; the first shards get one more."""
  size, extra = divmod(config.num_videos, config.num_shards)
  starts = [
    shard * size + min(shard, extra) for shard in range(config.num_shards + 1)
  ]
  return [range(*ends) for ends in itertools.pairwise(starts)]


def _other_shards(config: DatasetConfig) -> list[str]:
  """Names of the split's files that a new set would not replace."""
  shard_name = re.compile(rf"{config.split}-\d{{5,}}-of-(\d{{5,}})\.tfrecord")
  matches = map(shard_name.fullmatch, sorted(os.listdir(config.output_dir)))
  return [
    match[0]
    for match in matches
    if match and int(match[1]) != config.num_shards
  ]


def _serialize_frames(video: Video) -> bytes:
  """A frame-level SequenceExample."""
  import tensorflow.compat.v1 as tf

  example = tf.train.SequenceExample()
  _add_context(example.context, video)
  for name, frames in video.frames.items():
    feature_list = example.feature_lists.feature_list[name]
    for frame in frames:
      feature_list.feature.add().bytes_list.value.append(frame.tobytes())
  # Features are a map, whose order is otherwise left to chance.
  return example.SerializeToString(deterministic=True)


def _serialize_means(video: Video) -> bytes:
  """A video-level Example."""
  import tensorflow.compat.v1 as tf

  example = tf.train.Example()
  _add_context(example.features, video)
  for name, frames in video.frames.items():
    # The mean of the bytes, exact in float64, is that of their values.
    example.features.feature[name].float_list.value.extend(
      dequantize(frames.mean(axis=0))
    )
  return example.SerializeToString(deterministic=True)


def _add_context(features, video: Video) -> None:
  """Adds what both formats share to a tf.train.Features."""
  features.feature["id"].bytes_list.value.append(video.video_id)
  features.feature["labels"].int64_list.value.extend(video.labels.tolist())


if __name__ == "__main__":
  define_flags()
  app.run(main)
