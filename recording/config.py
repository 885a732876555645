"""What make_records.py is told. A field is the flag of its name."""

import dataclasses
import os

import files
from console import flag_fields
from recording import clip_features
from records import features_file
from sharding import shard as shard_lib


@dataclasses.dataclass(frozen=True)
class _Input(flag_fields.Config, group="Input"):
  """What is read."""

  features: str = flag_fields.path(
    None,
    "A folder of .npz files (an array for each feature), of .npy files (one "
    "feature), of folders of .npy files (each a feature), or of videos and "
    "sounds; or a .csv or .parquet file with a row a frame, or a row a clip.",
    required=True,
  )
  labels: str = flag_fields.path(
    "",
    "A CSV or Parquet file with a header: an id (with the file's ending or "
    "without) and names separated by ;, or a column of 0 and 1 for each label. "
    "Clips that it does not list are left out. Without it all clips are "
    "written to test-*.tfrecord, to predict for.",
  )
  label_folders: bool = flag_fields.boolean(
    False,
    "In the place of --labels: the folder in --features that a file lies in is "
    "its label.",
  )
  feature_names: str = flag_fields.text(
    "", "Comma-separated names of the features to take; all if not given."
  )
  id_column: str = flag_fields.text(
    "", "The column of the ids; one called id, file, ..., or the first."
  )
  label_column: str = flag_fields.text(
    "", "The column of the names; one called labels, class, ... if there is."
  )
  group_column: str = flag_fields.text(
    "",
    "A column of --labels: clips that have the same there, such as a speaker "
    "or a film, come into the same part of --split.",
  )
  like: str = flag_fields.path(
    "",
    "A folder of records, or a train_dir: make features and classes as they "
    "are there, for new data of a trained model.",
  )


@dataclasses.dataclass(frozen=True)
class _Media(flag_fields.Config, group="Videos and sounds"):
  """What extract.py is told."""

  encoder: str = flag_fields.text(
    "",
    "Features and what makes them, as extract.py has them; its own default if "
    "not given, or what made those of --like.",
  )
  fps: float | None = flag_fields.real(
    None, "Rows a second of each feature.", low=0.001, high=1000.0
  )
  max_frames: int | None = flag_fields.integer(
    None, "At most so many rows of a clip.", low=1
  )
  jobs: int = flag_fields.integer(
    0, "Files to decode at a time; 0 for as many as there are cores.", low=0
  )


@dataclasses.dataclass(frozen=True)
class _Storage(flag_fields.Config, group="Records"):
  """What is written, and how."""

  output_dir: str = flag_fields.path(
    None,
    "Folder to write: a new one, or one that the same command has begun.",
    required=True,
  )
  split: str = flag_fields.text(
    "0.8,0.1,0.1",
    "Shares of the clips to train, validate and test on. A hash of the id says "
    "where a clip goes, so that it stays there when others are added.",
  )
  num_shards: int = flag_fields.integer(
    0, "Files of training clips; 0 for files of about 64 MB.", low=0
  )
  feature_dtype: str = flag_fields.choice(
    None,
    features_file.DTYPES,
    "How to store a frame: uint8 (default), a byte a number over a range; "
    "float16, float32, float_list as they are.",
  )
  range: str = flag_fields.text(
    clip_features.MEASURED,
    "What bytes stand for: LOW:HIGH, or a comma list, one for each feature; or "
    "'measured', the range of the training clips' numbers.",
  )
  range_outside: float = flag_fields.real(
    0.001,
    "Share of the numbers that a measured range leaves out, half on each side: "
    "a few large ones would make the steps of all others coarse. What lies "
    "outside is stored as the end of the range. 0 for none.",
    low=0.0,
    high=0.5,
  )
  pca: str = flag_fields.text(
    "",
    "Reduce features to so many principal components, whitened, fitted on the "
    "training clips: 'rgb:1024,audio:128'.",
  )


@dataclasses.dataclass(frozen=True)
class Config(shard_lib.Config, _Storage, _Media, _Input):
  """What make_records.py is told."""

  def __post_init__(self):
    super().__post_init__()
    is_measured = self.range == clip_features.MEASURED and (
      self.feature_dtype in (None, "uint8")
    )
    if self.shard and not self.like and (is_measured or self.pca):
      raise ValueError(
        "--shard: what all clips have in common can't be measured in a share "
        "of them: give --range or a --feature_dtype of floats; or --like, a "
        "folder that this program made of some of the clips, which may have a "
        "PCA."
      )
    clip_features.parse_pca(self.pca)
    if self.range != clip_features.MEASURED:
      try:
        flag_fields.parse_ranges(self.range)
      except ValueError as error:
        raise ValueError(f"--range: {error}") from None
    if not self.shares or not any(self.shares):
      raise ValueError(
        "Need --split of two or three shares whose sum is 1, such as "
        f"0.8,0.1,0.1; got {self.split!r}."
      )
    if self.labels and self.label_folders:
      raise ValueError("Give --labels or --label_folders, not both.")
    if self.group_column and not self.labels:
      raise ValueError("--group_column is a column of --labels: give that too.")
    if self.like and (self.pca or self.range != clip_features.MEASURED):
      raise ValueError(
        "--like has a range and PCA of its own: give one of them."
      )
    for name in ("features", "labels", "like"):
      path = getattr(self, name)
      if path and not os.path.exists(path):
        raise ValueError(f"--{name}={path} is not there.")
    if os.path.isdir(self.features) and (
      files.is_within(self.output_dir, self.features)
      or files.is_within(self.features, self.output_dir)
    ):
      raise ValueError(
        f"--output_dir={self.output_dir} and --features={self.features} lie in "
        "each other: give another folder."
      )

  @property
  def directory(self):
    """Where records go: a folder of its own for each shard."""
    shard = self.own_shard
    return shard.path(self.output_dir) if shard else self.output_dir

  @property
  def shares(self):
    """Of train, validate and test; none if --split can't be understood."""
    try:
      found = [float(part) for part in self.split.split(",")]
    except ValueError:
      return []
    is_right = len(found) in (2, 3) and min(found) >= 0
    return found if is_right and abs(sum(found) - 1) < 1e-6 else []

  @property
  def names(self):
    """Of the features to take."""
    return flag_fields.parse_names(self.feature_names)
