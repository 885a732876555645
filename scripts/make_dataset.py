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
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import re
from typing import NamedTuple

import numpy as np
import tqdm

from console import flag_fields
from records import writer
from scripts import synthetic_videos

_DEFAULT_NAMES = {"frame": "rgb,audio", "video": "mean_rgb,mean_audio"}
# The other keys of the two formats; a feature of that name would replace
# them, in the file or in the reader's dictionary.
_RESERVED_NAMES = ("id", "labels", "video_id")


@dataclasses.dataclass(frozen=True)
class DatasetConfig(flag_fields.Config, group="Data"):
  """What to write."""

  output_dir: str = flag_fields.path(
    None, "Directory for the shards; made if missing.", required=True
  )
  level: str = flag_fields.choice(
    "frame",
    list(_DEFAULT_NAMES),
    "frame: SequenceExamples with one string of bytes a frame. video: Examples "
    "with the mean over the frames, as floats.",
  )
  feature_names: str = flag_fields.text(
    None,
    "Names of the features, separated by commas; default: rgb,audio at frame "
    "level; mean_rgb,mean_audio at video level.",
  )
  feature_sizes: str = flag_fields.integers(
    "1024,128", "Size of each feature, in the order of --feature_names."
  )
  num_videos: int = flag_fields.integer(1000, "Videos in this split.", low=1)
  num_shards: int = flag_fields.integer(
    4, "Files to spread the videos over.", low=1
  )
  num_classes: int = flag_fields.integer(3862, "Size of the vocabulary.", low=2)
  min_frames: int = flag_fields.integer(
    120, "Frames of the shortest videos.", low=1
  )
  max_frames: int = flag_fields.integer(
    300, "Frames of the longest videos.", low=1
  )
  labels_per_video: float = flag_fields.real(
    3.0,
    "Mean number of labels of a video; every video has at least one.",
    low=1.0,
  )
  label_frames: float = flag_fields.real(
    0.25,
    "Fraction of its video's frames in which a label shows; one frame at "
    "least. The smaller, the more depends on pooling.",
    high=1.0,
  )
  label_signature: str = flag_fields.choice(
    "mean",
    ["mean", "covariance"],
    "What tells labels apart. mean: each has a prototype. covariance: the "
    "frames of all labels have the same mean and the same variances; only the "
    "correlations between 16 directions differ, which the mean over the frames "
    "does not see and second-order pooling does. Needs sizes of 16 or more.",
  )
  clutter_frames: float = flag_fields.real(
    0.0,
    "Fraction of the frames that show clutter: four pictures a video, out of "
    "64 that videos of all classes share. It disturbs the mean over the "
    "frames; pooling that knows clutter when it sees it is not disturbed. "
    "Frames without a label are replaced first.",
    low=0.0,
  )
  burst_frames: float = flag_fields.real(
    0.0,
    "Fraction of the frames that are near-identical copies of one, a "
    "background or clutter, one after the other. A sum over the frames is "
    "mostly that picture; democratic weights (Jegou, Zisserman 2014) count it "
    "about once. Frames without a label are replaced first.",
    low=0.0,
  )
  noise: float = flag_fields.real(
    1.0,
    "Standard deviation of the noise, relative to that of the prototypes.",
    low=0.0,
  )
  seed: int = flag_fields.seed(
    0, "Seed of the videos. Same seed and split, same bytes."
  )
  prototype_seed: int = flag_fields.seed(
    0,
    "Seed of the classes. Keep it the same for the splits of a data set, "
    "whatever their --seed: with another one a model meets classes it was not "
    "trained on.",
  )
  split: str = flag_fields.text(
    "train",
    "First part of the file names, such as train, validate or test. Another "
    "split has other videos, even with the same --seed.",
  )
  overwrite: bool = flag_fields.boolean(
    False,
    "Delete files of the same split in another number of shards, which are an "
    "error otherwise.",
  )

  def __post_init__(self):
    super().__post_init__()
    names, sizes = self.names, self.sizes
    least = 1
    if self.label_signature == "covariance":
      least = synthetic_videos.NUM_DIRECTIONS
    replaced = self.clutter_frames + self.burst_frames
    # Each need names the flags that an error shows.
    needs = {
      "one of --feature_sizes for each of --feature_names": (
        len(sizes) == len(names) > 0
      ),
      f"--feature_sizes >= {least} with this --label_signature": (
        min(sizes, default=least) >= least
      ),
      f"different --feature_names, none of them {_RESERVED_NAMES}": (
        len({*names, *_RESERVED_NAMES}) == len(names) + len(_RESERVED_NAMES)
      ),
      "--num_shards <= --num_videos": self.num_shards <= self.num_videos,
      "--min_frames <= --max_frames": self.min_frames <= self.max_frames,
      "--labels_per_video <= --num_classes": (
        self.labels_per_video <= self.num_classes
      ),
      "--label_frames > 0": self.label_frames > 0,
      "--clutter_frames + --burst_frames < 1": replaced < 1,
      # Dashes would let the files of one split match the pattern of another
      # (train-*.tfrecord and train-small-...).
      "letters, digits or _ in --split": re.fullmatch(r"\w+", self.split, re.A),
    }
    for need, is_met in needs.items():
      if not is_met:
        flags = re.findall(r"--(\w+)", need)
        got = ", ".join(f"--{name}={getattr(self, name)}" for name in flags)
        raise ValueError(f"Need {need}, got {got}.")

  @property
  def names(self) -> list[str]:
    """Names of the features."""
    return flag_fields.parse_names(
      self.feature_names or _DEFAULT_NAMES[self.level]
    )

  @property
  def sizes(self) -> list[int]:
    """Their sizes."""
    return flag_fields.parse_ints(self.feature_sizes)


class Summary(NamedTuple):
  """What `write_dataset` wrote.

  Attributes:
    paths: the shards, in order.
    pattern: a glob that matches them and no other split's.
    num_bytes: int, of all shards.
    label_counts: int64 [classes], videos that carry each.
  """

  paths: list[str]
  pattern: str
  num_bytes: int
  label_counts: np.ndarray


def _stale_shards(config):
  """Names of the split's files that a new set would not replace."""
  shard_name = re.compile(rf"{config.split}-\d{{5,}}-of-(\d{{5,}})\.tfrecord")
  names = []
  if os.path.exists(config.output_dir):
    names = sorted(os.listdir(config.output_dir))
  matches = filter(None, map(shard_name.fullmatch, names))
  return [m[0] for m in matches if int(m[1]) != config.num_shards]


def write_dataset(config: DatasetConfig) -> Summary:
  """Writes all shards, one video in memory at a time.

  Files of the same names are replaced; a run that fails changes nothing.

  Raises:
    FileExistsError: the directory holds this split in another number of
      shards, which would be read along with the new ones, and
      `config.overwrite` is False.
    OSError: the directory cannot be made or written to.
  """
  stale = _stale_shards(config)
  if stale and not config.overwrite:
    raise FileExistsError(
      f"{config.output_dir} holds {len(stale)} files of split "
      f"{config.split!r} in another number of shards, such as {stale[0]}; "
      f"with num_shards={config.num_shards} beside them every reader would "
      "mix the two. Set --overwrite to delete them, or choose another "
      "output_dir or split."
    )
  looks = synthetic_videos.make_looks(config)
  label_counts = np.zeros([config.num_classes], np.int64)
  paths = writer.shard_paths(config.output_dir, config.split, config.num_shards)

  def records(indices):
    for index in indices:
      video = synthetic_videos.generate_video(config, looks, index)
      label_counts[video.labels] += 1
      labels = video.labels.tolist()
      bar.update()
      if config.level == "frame":
        yield writer.frame_record(video.video_id, video.frames, labels)
      else:
        # The mean of the bytes, exact in float64, is that of their values.
        means = {
          name: writer.dequantize(frames.mean(axis=0))
          for name, frames in video.frames.items()
        }
        yield writer.video_record(video.video_id, means, labels)

  # disable=None: no bar in log files.
  with tqdm.tqdm(total=config.num_videos, unit=" videos", disable=None) as bar:
    shards = np.array_split(range(config.num_videos), config.num_shards)
    writer.write_shards(
      paths,
      map(records, shards),
      stale=[os.path.join(config.output_dir, name) for name in stale],
    )
  pattern = os.path.join(config.output_dir, f"{config.split}-*.tfrecord")
  num_bytes = sum(map(os.path.getsize, paths))
  return Summary(paths, pattern, num_bytes, label_counts)


def main():
  """Writes the data set that the flags describe."""
  config = flag_fields.from_flags(DatasetConfig)
  summary = write_dataset(config)
  counts = summary.label_counts
  print(
    f"Wrote {config.num_videos} videos ({config.level} level) in "
    f"{config.num_shards} shards, {summary.num_bytes} bytes:\n"
    f"  {summary.pattern}\n"
    f"Labels: {counts.sum() / config.num_videos:.2f} a video on average; "
    f"{np.count_nonzero(counts)} of {config.num_classes} classes occur, "
    f"the most frequent in {counts.max()} videos.\n"
    f"Train on it with --frame_features={config.level == 'frame'} "
    f"--feature_names={','.join(config.names)} "
    f"--feature_sizes={','.join(map(str, config.sizes))} "
    f"--num_classes={config.num_classes}"
  )


if __name__ == "__main__":
  flag_fields.define(DatasetConfig)
  program.run(main)
