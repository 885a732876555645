"""What a checkpoint predicts for a whole data set: a submission or a table."""

import time

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


def infer(
  source,
  values,
  paths,
  output_file,
  *,
  top_k=predictor.TOP_K,
  segment_max_pred=None,
  allowed_classes=None,
  output_format="csv",
  vocabulary=None,
  descriptors=False,
  is_part=False,
  **data,
):
  """Writes the submission of one checkpoint.

  Args:
    source: path prefix of the checkpoint, or a train_dir for the newest.
    values: dict of the model flags.
    paths: list of str, the files.
    output_file: str, the file to write.
    top_k: int >= 1; at most as many as there are classes.
    segment_max_pred: int >= 1, segments to list for each class, if the values
      ask for segments.
    allowed_classes: list of int, or None for all; the only ones to predict.
    output_format: "csv"; or not of segments, "npz" of `stored_predictions` or
      "parquet" of `parquet_predictions`.
    vocabulary: `vocabulary.Vocabulary`, the names in "parquet".
    descriptors: bool, write the videos' descriptors too, in "parquet".
    is_part: bool, whether it is one of several parts, which merge.py joins: it
      may have no file or no row, and segments keep their scores.
    **data: `batch_size` and more, see `readers.BaseReader.batches`.

  Returns:
    (int number of rows, list of str: what could not be read).

  Raises:
    ValueError: the model makes no descriptor.
    program.UserError: no record could be read; nothing is written, unless it
      is a part.
  """

  def fetch(batch, predictions, *more):
    if allowed_classes is not None:
      predictions = _allowed(predictions, allowed_classes, values)
    return (batch["video_ids"], *predictor.top_k(predictions, top_k), *more)

  csv = _writer(
    output_file, values, output_format, segment_max_pred, vocabulary, is_part
  )
  if is_part and not paths:
    with csv:
      return 0, []
  with predictor.Predictor(
    values, paths, fetch, describes=descriptors, use_labels=False, **data
  ) as videos:
    checkpoint = videos.restore(source)
    logging.info("Predicting with %s for %d files.", checkpoint, len(paths))
    start = time.monotonic()
    unfit = _write(csv, videos, paths, is_part)
    seconds = time.monotonic() - start
  _tell(csv, output_file, seconds, videos.reader.report)
  return csv.num_rows, videos.reader.report.unread() + unfit


def _allowed(predictions, classes, values):
  """Predictions in which all but some classes are below any probability.

  What remains of those among the best is not written.
  """
  allowed = np.full(values["num_classes"], -1.0, np.float32)
  allowed[classes] = 0.0
  return tf.where_v2(allowed < 0, allowed, predictions)


def _tell(csv, output_file, seconds, report):
  """Logs what was written, how fast, and what was not read."""
  report.log_warnings()
  logging.info(
    "Wrote %d rows to %s: %.1f videos a second; %s.",
    csv.num_rows,
    output_file,
    csv.num_rows / seconds,
    report.summary(),
  )
  if csv.num_duplicates:
    logging.warning(
      "%d videos came more than once; the first row of each was kept.",
      csv.num_duplicates,
    )


def _writer(
  output_file, values, output_format, segment_max_pred, vocabulary, is_part
):
  """What writes the file, see `infer`."""
  if values["segment_labels"]:
    return segment_submission.SegmentWriter(
      output_file, segment_max_pred, is_part
    )
  if output_format == "npz":
    return stored_predictions.PredictionsWriter(
      output_file, values["num_classes"]
    )
  if output_format == "parquet":
    return parquet_predictions.ParquetWriter(output_file, vocabulary)
  return submission.SubmissionWriter(output_file)


def _write(csv, videos, paths, is_part):
  """Writes all rows: list of str, what fits no CSV."""
  unfit = {}  # A set in order.
  with csv:
    for video_ids, *columns in videos:
      good = np.array([csv.fits(video_id) for video_id in video_ids])
      unfit |= dict.fromkeys(map(csv.video_of, video_ids[~good]))
      csv.write(video_ids[good], *(column[good] for column in columns))
    if not csv.num_rows and not is_part:
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
