"""What is measured by default: models and sizes, and records of these sizes."""

import dataclasses
import os
import sys
from typing import Any

import tqdm

import model_flags
import readers
from console import flag_fields
from scripts import make_dataset, measuring

FEATURES = ("rgb", "audio")
# Names of flags' families, of as many centres and units for all.
_CLUSTERED = ("netvlad", "nextvlad", "fv")

# Models and sizes with names of their own: flags of train.py.
_GATED: dict[str, Any] = {
  "model": "NetVLADModelLF",
  "gating": True,
  "moe_prob_gating": True,
  "netvlad_relu": False,
  "moe_l2": 1e-6,
}
_GATED_256: dict[str, Any] = {
  **_GATED,
  "netvlad_cluster_size": 256,
  "netvlad_hidden_size": 1024,
  "iterations": 300,
  "batch_size": 80,
}
_NEXTVLAD: dict[str, Any] = {
  "model": "NeXtVLADModel",
  "nextvlad_cluster_size": 128,
  "nextvlad_hidden_size": 2048,
  "groups": 8,
  "expansion": 2,
  "iterations": 300,
  "batch_size": 80,
}
CONFIGURATIONS = {
  "gated-netvlad": _GATED,
  "gated-netvlad-256": _GATED_256,
  "gated-netvlad-mixed": {**_GATED, "mixed_precision": True},
  "gated-netvlad-256-mixed": {**_GATED_256, "mixed_precision": True},
  # At its published sizes.
  "nextvlad-128": _NEXTVLAD,
}


@dataclasses.dataclass(frozen=True)
class Settings(flag_fields.Config, group="Sizes"):
  """Sizes and budgets."""

  data_dir: str = flag_fields.path(
    None,
    "Directory of frame/*.tfrecord and video/*.tfrecord to read; where there "
    "is none, synthetic ones are made and stay. A temporary directory if not "
    "given.",
  )
  seconds: float = flag_fields.real(
    5.0,
    f"Time of each row, which has {measuring.LEAST_ROUNDS} rounds at least.",
    low=0,
  )
  batch_size: int = flag_fields.integer(
    16, "Videos a step; 64 times as many of a video-level model.", low=1
  )
  clusters: int = flag_fields.integer(64, "Centres.", low=1)
  hidden_size: int = flag_fields.integer(
    512, "Units of the layer after pooling.", low=1
  )
  frames: int = flag_fields.integer(64, "Frames sampled of each video.", low=1)
  max_frames: int = flag_fields.integer(
    300, "Frames of the longest video; the shortest has 0.4 of them.", low=3
  )
  feature_sizes: str = flag_fields.integers(
    "1024,128", "Sizes of rgb and audio."
  )
  num_classes: int = flag_fields.integer(3862, "Classes.", low=3)
  num_videos: int = flag_fields.integer(
    512, "Synthetic videos of each level.", low=1
  )

  def __post_init__(self):
    super().__post_init__()
    if len(self.sizes) != len(FEATURES):
      raise ValueError(
        "--feature_sizes: need those of rgb and audio, got "
        f"{self.feature_sizes!r}."
      )

  @property
  def sizes(self) -> list[int]:
    """Sizes of rgb and audio."""
    return flag_fields.parse_ints(self.feature_sizes)

  def paths(self, level: str, least: int = 0) -> list[str]:
    """The files of a level, as often as makes so many videos at least."""
    pattern = os.path.join(self.data_dir, level, "*.tfrecord")
    paths = readers.expand_data_pattern(pattern)
    return paths * max(1, -(-least // readers.estimate_num_records(paths)))


def train_flags(settings: Settings, name: str, **changes: Any) -> dict:
  """Flags of train.py for a model or a configuration at the settings' sizes."""
  own = CONFIGURATIONS.get(name, {"model": name})
  given = {
    "feature_sizes": settings.feature_sizes,
    "num_classes": settings.num_classes,
    "num_epochs": 0,
    # A rate at which random labels do no harm.
    "base_learning_rate": 1e-4,
    "seed": 0,
  }
  if model_flags.is_frame_level(own["model"]):
    given |= {
      "frame_features": True,
      "feature_names": ",".join(FEATURES),
      "train_data_pattern": ",".join(settings.paths("frame")),
      "batch_size": settings.batch_size,
      "max_frames": settings.max_frames,
      "iterations": settings.frames,
      **{f"{name}_cluster_size": settings.clusters for name in _CLUSTERED},
      **{f"{name}_hidden_size": settings.hidden_size for name in _CLUSTERED},
    }
  else:
    given |= {
      "feature_names": ",".join(f"mean_{name}" for name in FEATURES),
      "train_data_pattern": ",".join(settings.paths("video")),
      "batch_size": 64 * settings.batch_size,
    }
  return {**given, **own, **changes}


def make_data(config: Settings) -> None:
  """Makes the synthetic records that are not there."""
  for level in ("frame", "video"):
    directory = os.path.join(config.data_dir, level)
    if os.path.isdir(directory) and os.listdir(directory):
      continue
    tqdm.tqdm.write(
      f"Making {config.num_videos} synthetic videos, {level} level.",
      file=sys.stderr,
    )
    make_dataset.write_dataset(
      make_dataset.DatasetConfig(
        output_dir=directory,
        level=level,
        num_videos=config.num_videos,
        # YouTube-8M's files hold about 1,000 videos: opening one costs little.
        num_shards=min(2, config.num_videos),
        num_classes=config.num_classes,
        min_frames=int(0.4 * config.max_frames),
        max_frames=config.max_frames,
        feature_sizes=config.feature_sizes,
      )
    )
