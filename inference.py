"""Predicts the classes of videos and writes a Kaggle submission.

  python inference.py --train_dir=/models/netvlad \\
    --input_data_pattern='/data/yt8m/frame/test*.tfrecord' \\
    --output_file=/submissions/netvlad.csv

The model is rebuilt from --train_dir alone. Every video gets one row. Records
and files that can't be read are listed in OUTPUT_FILE.unread.txt, and the exit
status is then 3. The file appears under its name when it is complete.

With --shard=I/N it predicts for a share of the files, and merge.py joins the
shards; one that is whole already is left as it is.
"""

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import os
import tempfile

import tensorflow.compat.v1 as tf
from absl import logging

import data_flags
import files
import model_flags
import readers
from checkpoints import archive, description, parts, restore
from console import flag_fields
from predictions import predictor, writing
from records import vocabulary as vocabulary_lib
from sharding import manifest
from sharding import shard as shard_lib

# Flags that what is written depends on, besides the model and the data.
_MAKES_ROWS = ("top_k", "segment_max_pred", "output_format", "descriptors")


@dataclasses.dataclass(frozen=True)
class _Data(flag_fields.Config, group="Data"):
  """What is read, and how."""

  input_data_pattern: str = flag_fields.paths(
    "",
    "Files to predict for: comma-separated globs or directories. Needed, but "
    "to write --output_model_tgz alone.",
  )
  batch_size: int = flag_fields.integer(
    256, "Videos of a batch; two batches are in work at a time.", low=1
  )
  num_readers: int = flag_fields.integer(
    1, "Files that are read at the same time.", low=1
  )
  segment_max_pred: int = flag_fields.integer(
    100000, "With --segment_labels: segments to list for each class.", low=1
  )
  segment_label_ids_file: str = flag_fields.path(
    "",
    "With --segment_labels: a file of the classes to predict, one a line "
    "(other lines are passed over); all classes if not given.",
  )


@dataclasses.dataclass(frozen=True)
class Config(shard_lib.Config, _Data, group="Checkpoints and logs"):
  """What inference.py's own flags say."""

  train_dir: str = flag_fields.path(
    "", "Directory that train.py wrote to; this or --input_model_tgz."
  )
  checkpoint: str = flag_fields.path(
    "", "Path prefix of a checkpoint; the newest if not given."
  )
  output_file: str = flag_fields.path(
    "", "The CSV to write. Needed as --input_data_pattern is."
  )
  output_format: str = flag_fields.choice(
    "csv",
    ["csv", "npz", "parquet"],
    "csv: a submission. npz: arrays, for train.py --teacher_predictions, in "
    "memory until the end: 0.5 GB of a million videos at --top_k=50, or give "
    "--shard. parquet: a table of ids, classes, names and scores. The latter "
    "two not of segments.",
  )
  descriptors: bool = flag_fields.boolean(
    False,
    "Write each video's descriptor too, what the model's classifier sees; with "
    "--output_format=parquet.",
  )
  vocabulary: str = vocabulary_lib.flag(" in --output_format=parquet")
  top_k: int = flag_fields.integer(
    predictor.TOP_K, "Predictions to write for each video.", low=1
  )
  output_model_tgz: str = flag_fields.path(
    "", "Bundle the model's flags and checkpoint in this archive."
  )
  input_model_tgz: str = flag_fields.path(
    "",
    "Read the model from this archive, which --output_model_tgz wrote, "
    "instead of --train_dir.",
  )
  untar_model_dir: str = flag_fields.path(
    "", "Unpack --input_model_tgz here; a temporary directory if not given."
  )

  def __post_init__(self):
    super().__post_init__()
    if self.train_dir and self.input_model_tgz:
      raise ValueError("Give --train_dir or --input_model_tgz, not both.")
    if self.output_format != "parquet":
      for name in ("descriptors", "vocabulary"):
        if getattr(self, name):
          raise ValueError(f"--{name} needs --output_format=parquet.")
    if not self.output_file and not self.archives_alone:
      raise ValueError("--output_file is empty: give the CSV to write.")

  @property
  def archives_alone(self) -> bool:
    """Whether nothing is predicted."""
    return bool(self.output_model_tgz and not self.input_data_pattern)

  @property
  def output(self) -> str:
    """The file that is written: the shard's, if it is to be one."""
    shard = self.own_shard
    return shard.path(self.output_file) if shard else self.output_file

  @property
  def listing(self) -> str:
    """Where what could not be read is listed."""
    return self.output and f"{self.output}.unread.txt"


def _run(config, ignored, directory, checkpoint=""):
  """Infers with the model of a directory; returns an exit status."""
  values = model_flags.load_for_data(directory)
  model_flags.warn_ignored(values, ignored)
  source = config.checkpoint or checkpoint or directory
  paths = []
  if not config.archives_alone:
    paths = readers.expand_data_pattern(
      config.input_data_pattern, "input_data_pattern"
    )
    data_flags.check(values, paths, "input_data_pattern")
  _check_outputs(config, directory, source, paths)
  names = None
  if config.output_format == "parquet":
    names = vocabulary_lib.of_model(config.vocabulary, directory)
  _check_format(config, values)
  write = _write_shard if config.shard else _write
  if not config.output_model_tgz:
    return write(config, source, values, paths, names)

  def bundle(chosen):
    restore.verified(chosen)
    with restore.telling_damage(chosen):
      archive.write(config.output_model_tgz, directory, chosen)
    logging.info("Wrote the model to %s.", config.output_model_tgz)
    if config.archives_alone:
      return None
    # Of the same checkpoint.
    return write(config, chosen, values, paths, names)

  return restore.with_newest(source, bundle)


def _check_format(config, values):
  """Refuses segments in a format of videos."""
  if values["segment_labels"] and config.output_format != "csv":
    raise ValueError(
      f"--output_format={config.output_format} is of videos: predictions for "
      "segments (--segment_labels) are written as csv."
    )


def _write_shard(config, source, values, paths, names):
  """Writes a shard's part, unless it is there; returns an exit status."""

  def write(checkpoint):
    with restore.telling_damage(checkpoint):
      model = manifest.of_model(checkpoint, values)
    made_by = {
      "model": model,
      "segments": values["segment_labels"],
      **{f"--{name}": getattr(config, name) for name in _MAKES_ROWS},
      "--vocabulary": names and shard_lib.digest(names.names),
      "classes": shard_lib.digest(_allowed_classes(config, values)),
    }
    task = manifest.Task(config.own_shard, paths, config.output, made_by)
    if done := task.done():
      logging.info(
        "%s is whole already: %d rows; delete it to have it made anew.",
        config.output,
        done.num_rows,
      )
      return program.INCOMPLETE if done.num_unread else None
    logging.info(
      "Shard %s: %d of %d files.", config.shard, len(task.paths), len(paths)
    )
    num_rows, unread = _infer(config, checkpoint, values, task.paths, names)
    status = _tell(config, unread)
    task.finish(num_rows, len(unread))
    return status

  return restore.with_newest(source, write)


def _write(config, source, values, paths, names):
  """Writes --output_file; returns an exit status."""
  return _tell(config, _infer(config, source, values, paths, names)[1])


def _allowed_classes(config, values):
  """The only classes to predict; None for all."""
  if not (values["segment_labels"] and config.segment_label_ids_file):
    return None
  return writing.read_classes(
    config.segment_label_ids_file, values["num_classes"]
  )


def _infer(config, source, values, paths, names):
  """`writing.infer`, as the flags have it."""
  output = writing.Output(
    config.output,
    allowed_classes=_allowed_classes(config, values),
    vocabulary=names,
    is_part=bool(config.shard),
    **{name: getattr(config, name) for name in _MAKES_ROWS},
  )
  reading = {"batch_size": config.batch_size, "num_readers": config.num_readers}
  return writing.infer(source, values, paths, output, **reading)


def _tell(config, unread):
  """Lists what could not be read; returns an exit status."""
  if not unread:
    # An earlier run's belongs to the file that has just been replaced.
    if tf.io.gfile.exists(config.listing):
      tf.io.gfile.remove(config.listing)
    return None
  files.write_text(config.listing, "".join(f"{line}\n" for line in unread))
  logging.error(
    "%d records or files could not be read and have no row: %s lists them.",
    len(unread),
    config.listing,
  )
  return program.INCOMPLETE


def _check_outputs(config, directory, source, paths):
  """Refuses outputs that are inputs, or each other."""
  checkpoints = [source]
  if source == directory:
    checkpoints = restore.known_checkpoints(directory)
  files.check_outputs(
    {
      "--output_file": config.output,
      "--output_file's list of unread records": config.listing,
      "--output_model_tgz": config.output_model_tgz,
      "--shard's account": config.shard and manifest.path_of(config.output),
    },
    {
      "--input_data_pattern": paths,
      "--input_model_tgz": [config.input_model_tgz],
      "--segment_label_ids_file": [config.segment_label_ids_file],
      "--vocabulary": [config.vocabulary],
      "the model": [
        os.path.join(directory, model_flags.FILE_NAME),
        *description.files_of(directory).values(),
        *(file for name in checkpoints for file in parts.of(name).values()),
      ],
    },
  )


def define_flags():
  """Defines the flags; returns the names of those that have no effect."""
  model_flags.define(hidden=True)
  flag_fields.define(Config)
  return model_flags.define_ignored("run_once")


def main(ignored):
  """Infers with a train_dir or with an archive."""
  config = flag_fields.from_flags(Config)
  if not config.input_model_tgz:
    return _run(config, ignored, config.train_dir)
  if config.untar_model_dir:
    checkpoint = archive.extract(config.input_model_tgz, config.untar_model_dir)
    return _run(config, ignored, config.untar_model_dir, checkpoint)
  with tempfile.TemporaryDirectory() as directory:
    archive.extract(config.input_model_tgz, directory)
    return _run(config, ignored, directory)


if __name__ == "__main__":
  _IGNORED = define_flags()
  program.run(lambda: main(_IGNORED))
