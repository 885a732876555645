"""Names what is in videos, sounds, arrays or records.

  python predict.py --model=runs/own clips/dog.mp4 features/cat.npz
  python predict.py --model=model.tgz --window=5 --picture_dir=pictures clips/*

--model is a train_dir, an archive that inference.py --output_model_tgz wrote,
or a SavedModel that export_model.py wrote. Each word that is no flag is a file,
or a directory, which is searched for such files:

- a video or a sound, where the model's features.json names what makes its
  features from it (needs the extra [extract]);
- .npz: arrays [frames, size] by the features' names; .npy: that of a model's
  one feature; floats as an encoder gives them, or bytes as records hold them;
- .tfrecord: records of the model's kind.

Features are made, projected and quantised as the training data were. A file
that can't be used is listed at the end, costs nothing else, and makes the exit
status 3.
"""

import dataclasses

from console import flag_fields
from extraction import decoding
from records import vocabulary as vocabulary_lib

# Nothing here may load TensorFlow: see `decoding`.


@dataclasses.dataclass(frozen=True)
class _Shown(flag_fields.Config, group="Output"):
  """What is shown, and how."""

  top_k: int = flag_fields.integer(5, "Classes to show of each video.", low=1)
  json: bool = flag_fields.boolean(
    False, "Print a JSON object a line and video."
  )
  csv: bool = flag_fields.boolean(False, "Print CSV, a row a prediction.")
  window: float = flag_fields.real(
    0.0,
    "Predict for each part of so many seconds as well. Where features.json "
    "does not say how many frames a second has, it has one, as in YouTube-8M: "
    "then these are frames.",
    low=0.0,
  )
  picture_dir: str = flag_fields.path(
    "",
    "With --window: a directory for pictures of the predictions over time, a "
    "PNG a video; needs the extra [plots].",
  )


@dataclasses.dataclass(frozen=True)
class Config(_Shown, group="Model"):
  """What predict.py is told."""

  model: str = flag_fields.path(
    "", "A train_dir, a model.tgz, or a SavedModel.", required=True
  )
  checkpoint: str = flag_fields.path(
    "", "Path prefix of a checkpoint; the newest if not given."
  )
  vocabulary: str = vocabulary_lib.flag()
  timeout_secs: float = decoding.timeout_flag()
  encoder_dir: str = flag_fields.path(
    "",
    "Where encoders' files are that the model's features.json names, if not "
    "with the model.",
  )

  def __post_init__(self):
    super().__post_init__()
    if self.json and self.csv:
      raise ValueError("Give --json or --csv, not both.")
    if self.picture_dir and not self.window:
      raise ValueError("--picture_dir needs --window.")


if __name__ == "__main__":
  from console import program
  from named import predicting

  flag_fields.define(Config)
  program.run(
    lambda words: predicting.run(flag_fields.from_flags(Config), words),
    takes_arguments=True,
  )
