"""What a checkpoint predicts for a whole data set: a submission or a table."""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

from console import messages, program
from predictions import (
  parquet_predictions,
  predictor,
  segment_submission,
  stored_predictions,
  submission,
)
from records import vocabulary as vocabulary_lib


@dataclasses.dataclass(frozen=True)
class Output:
  """What is to be written.

  Attributes:
    path: of the file.
    output_format: "csv"; or not of segments, "npz" of `stored_predictions` or
      "parquet" of `parquet_predictions`.
    top_k: int >= 1; at most as many as there are classes.
    segment_max_pred: int >= 1, segments to list for each class, if the model's
      values ask for segments.
    allowed_classes: the only ones to predict; None for all.
    vocabulary: the names in "parquet".
    descriptors: write the videos' descriptors too, in "parquet".
    is_part: whether it is one of several parts, which merge.py joins: it may
      have no file or no row, and segments keep their scores.
  """

  path: str
  output_format: str = "csv"
  top_k: int = predictor.TOP_K
  segment_max_pred: int = 100000
  allowed_classes: Sequence[int] | None = None
  vocabulary: vocabulary_lib.Vocabulary | None = None
  descriptors: bool = False
  is_part: bool = False


def infer(source, values, paths, output, **data):
  """Writes what one checkpoint predicts.

  Args:
    source: path prefix of the checkpoint, or a train_dir for the newest.
    values: dict of the model flags.
    paths: list of str, the files.
    output: `Output`.
    **data: `batch_size` and more, see `readers.BaseReader.batches`.

  Returns:
    (int number of rows, list of str: what could not be read).

  Raises:
    ValueError: the model makes no descriptor.
    program.UserError: no record could be read; nothing is written, unless it
      is a part.
  """

  def fetch(batch, predictions, *more):
    if output.allowed_classes is not None:
      predictions = _allowed(predictions, output.allowed_classes, values)
    best = predictor.top_k(predictions, output.top_k)
    return (batch["video_ids"], *best, *more)

  writer = _writer(output, values)
  if output.is_part and not paths:
    with writer:
      return 0, []
  with predictor.Predictor(
    values,
    paths,
    fetch,
    describes=output.descriptors,
    use_labels=False,
    **data,
  ) as videos:
    checkpoint = videos.restore(source)
    logging.info("Predicting with %s for %d files.", checkpoint, len(paths))
    start = time.monotonic()
    unfit = _write(writer, videos, paths, output.is_part)
    seconds = time.monotonic() - start
  _tell(writer, output.path, seconds, videos.reader.report)
  return writer.num_rows, videos.reader.report.unread() + unfit


def _allowed(predictions, classes, values):
  """Predictions in which all but some classes are below any probability.

  What remains of those among the best is not written.
  """
  allowed = np.full(values["num_classes"], -1.0, np.float32)
  allowed[classes] = 0.0
  return tf.where_v2(allowed < 0, allowed, predictions)


def _tell(writer, path, seconds, report):
  """Logs what was written, how fast, and what was not read."""
  report.log_warnings()
  logging.info(
    "Wrote %d rows to %s: %.1f videos a second; %s.",
    writer.num_rows,
    path,
    writer.num_rows / seconds,
    report.summary(),
  )
  if writer.num_duplicates:
    logging.warning(
      "%d videos came more than once; the first row of each was kept.",
      writer.num_duplicates,
    )


def _writer(output, values):
  """What writes the file."""
  if values["segment_labels"]:
    return segment_submission.SegmentWriter(
      output.path, output.segment_max_pred, output.is_part
    )
  if output.output_format == "npz":
    return stored_predictions.PredictionsWriter(
      output.path, values["num_classes"]
    )
  if output.output_format == "parquet":
    return parquet_predictions.ParquetWriter(output.path, output.vocabulary)
  return submission.SubmissionWriter(output.path)


def _write(writer, videos, paths, is_part):
  """Writes all rows: list of str, what fits no CSV."""
  unfit = {}  # A set in order.
  with writer:
    for video_ids, *columns in videos:
      good = np.array([writer.fits(video_id) for video_id in video_ids])
      unfit |= dict.fromkeys(map(writer.video_of, video_ids[~good]))
      writer.write(video_ids[good], *(column[good] for column in columns))
    if not writer.num_rows and not is_part:
      raise program.no_video(
        videos.reader.report, paths, "--input_data_pattern", "readable"
      )
  return [
    f"video {messages.short(video)}: no id for a CSV file" for video in unfit
  ]


def read_classes(path, num_classes):
  """The classes of a file, one a line; other lines are passed over.

  Raises:
    program.UserError: it has none, or one that is too large.
  """
  with tf.io.gfile.GFile(path) as stream:
    lines = [line.strip() for line in stream]
  classes = sorted({int(line) for line in lines if line.isdecimal()})
  if not classes or classes[-1] >= num_classes:
    raise program.UserError(
      f"--segment_label_ids_file={path} needs classes below {num_classes}, one "
      f"a line; it has {len(classes)}, up to {classes[-1:]}."
    )
  return classes
