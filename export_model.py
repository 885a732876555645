"""Exports a checkpoint as a SavedModel for serving.

  python export_model.py --train_dir=/models/netvlad --output_dir=/models/served

Any TensorFlow runs it, without this code: serialised records in; video ids,
the best classes, their scores and, if the model has a vocabulary, names out.

  model = tf.saved_model.load("/models/served")
  model.signatures["serving_default"](tf.constant([record, ...]))
"""

from console import program  # isort: skip  (before TensorFlow)

import dataclasses

import files
import model_flags
from checkpoints import compression, saved_model
from console import flag_fields
from predictions import predictor
from records import vocabulary as vocabulary_lib


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Checkpoints and logs"):
  """What export_model.py is told."""

  train_dir: str = flag_fields.path(
    "/tmp/yt8m_model/", "Directory that train.py wrote to."
  )
  checkpoint: str = flag_fields.path(
    "", "Path prefix of a checkpoint; the newest if not given."
  )
  output_dir: str = flag_fields.path(
    "", "Directory to write; train_dir/export/step_N if not given."
  )
  top_k: int = flag_fields.integer(
    predictor.TOP_K, "Classes to return for each video.", low=1
  )
  vocabulary: str = vocabulary_lib.flag(", which the SavedModel then gives")
  export_dtype: str = flag_fields.choice(
    "float32",
    compression.DTYPES,
    "What weights of more than 16,384 elements are stored as: float16 halves "
    "them, uint8 (codes with a linear range for each column) makes a quarter. "
    "They are turned back to float32 as the model runs.",
  )

  def __post_init__(self):
    super().__post_init__()
    for source in (self.train_dir, self.checkpoint):
      if (
        source and self.output_dir and files.is_within(source, self.output_dir)
      ):
        raise ValueError(
          f"--output_dir={self.output_dir} is written as a whole, and would "
          f"replace {source}: give another directory."
        )


def define_flags():
  """Defines the flags."""
  flag_fields.define(Config)


def main():
  """Exports one checkpoint."""
  config = flag_fields.from_flags(Config)
  values = model_flags.load(config.train_dir)
  output_dir = config.output_dir
  if config.checkpoint and not output_dir:
    output_dir = saved_model.default_dir(config.checkpoint, config.train_dir)
  predictor.export(
    config.checkpoint or config.train_dir,
    values,
    output_dir,
    config.top_k,
    config.export_dtype,
    config.train_dir,
    config.vocabulary,
  )


if __name__ == "__main__":
  define_flags()
  program.run(main)
