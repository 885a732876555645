"""Predicts the classes of videos and writes a Kaggle submission.

  python inference.py --train_dir=/models/netvlad \\
    --input_data_pattern='/data/yt8m/frame/test*.tfrecord' \\
    --output_file=/submissions/netvlad.csv

The model is rebuilt from --train_dir alone. Every video gets one row. Records
and files that can't be read are listed in OUTPUT_FILE.unread.txt, and the exit
status is then 3. The file appears under its name when it is complete.
"""

import program  # isort: skip  (before TensorFlow)

import os
import tempfile
import time

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags, logging

import files
import flag_types
import messages
import model_flags
import predictor
import readers
import submission
from checkpoints import archive, train_dir

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags.

  Returns:
    Names of those that have no effect.
  """
  flag_types.path("train_dir", "", "Directory that train.py wrote to.")
  flag_types.paths(
    "input_data_pattern",
    "",
    "Files to predict for: comma-separated globs or directories.",
  )
  flag_types.path("output_file", "", "The CSV to write.")
  flag_types.path(
    "input_model_tgz",
    "",
    "Read the model from this archive, which --output_model_tgz wrote, "
    "instead of --train_dir.",
  )
  flag_types.path(
    "untar_model_dir",
    "",
    "Unpack --input_model_tgz here; a temporary directory if not given.",
  )
  flag_types.path(
    "output_model_tgz",
    "",
    "Bundle the model's flags and checkpoint in this archive.",
  )
  flag_types.path(
    "checkpoint", "", "Path prefix of a checkpoint; the newest if not given."
  )
  flag_types.integer(
    "batch_size",
    256,
    "Videos of a batch; two batches are in work at a time.",
    lower_bound=1,
  )
  flag_types.integer(
    "num_readers", 1, "Files that are read at the same time.", lower_bound=1
  )
  flag_types.integer(
    "top_k",
    predictor.TOP_K,
    "Predictions to write for each video.",
    lower_bound=1,
  )
  flag_types.integer(
    "segment_max_pred",
    100000,
    "With --segment_labels: segments to list for each class.",
    lower_bound=1,
  )
  flag_types.path(
    "segment_label_ids_file",
    "",
    "With --segment_labels: a file of the classes to predict, one a line "
    "(other lines are passed over); all classes if not given.",
  )
  model_flags.define()
  return model_flags.define_ignored("run_once")


def infer(
  source,
  values,
  paths,
  output_file,
  *,
  batch_size,
  num_readers,
  top_k=predictor.TOP_K,
  segment_max_pred=None,
  allowed_classes=None,
):
  """Writes the submission of one checkpoint.

  Args:
    source: path prefix of the checkpoint, or a train_dir for the newest.
    values: dict of the model flags.
    paths: list of str, the files.
    output_file: str, the CSV.
    batch_size: int >= 1.
    num_readers: int >= 1.
    top_k: int >= 1; at most as many as there are classes.
    segment_max_pred: int >= 1, segments to list for each class, if the values
      ask for segments.
    allowed_classes: list of int, or None for all; the only ones to predict.

  Returns:
    (int number of rows, list of str: what could not be read).

  Raises:
    program.UserError: no record could be read; nothing is written.
  """
  reader = model_flags.build_reader(values)
  model = model_flags.build_model(values)
  config = program.session_config()
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    data = reader.batches(
      paths,
      batch_size=batch_size,
      num_readers=num_readers,
      use_labels=False,
      skip_frameless=False,
    )
    iterator = tf.data.make_initializable_iterator(data.enumerate())
    number, batch = iterator.get_next()
    predictions = predictor.predict(model, batch, reader.num_classes)
    if allowed_classes is not None:
      # Below any probability: what remains among the best is not written.
      allowed = np.full(reader.num_classes, -1.0, np.float32)
      allowed[allowed_classes] = 0.0
      predictions = tf.where_v2(allowed < 0, allowed, predictions)
    fetches = (batch["video_ids"], *predictor.top_k(predictions, top_k))
    checkpoint = predictor.restore_newest(session, source)
    logging.info("Predicting with %s for %d files.", checkpoint, len(paths))
    session.run(iterator.initializer)
    start = time.monotonic()
    unread = []
    fits_the_csv = submission.is_video_id
    if values["segment_labels"]:
      fits_the_csv = submission.is_segment
    with (
      submission.SegmentWriter(output_file, segment_max_pred)
      if values["segment_labels"]
      else submission.SubmissionWriter(output_file) as writer,
      program.progress_bar(
        readers.estimate_num_records(paths), "videos"
      ) as bar,
    ):
      for video_ids, classes, scores in predictor.run_batches(
        session, number, fetches, reader.report
      ):
        good = [fits_the_csv(video_id) for video_id in video_ids]
        if not all(good):
          unfit = video_ids[np.logical_not(good)].tolist()
          if values["segment_labels"]:
            unfit = [segment.rpartition(b":")[0] for segment in unfit]
          unread += [
            f"video {messages.short(video_id)}: no id for a CSV file"
            for video_id in dict.fromkeys(unfit)
          ]
        writer.write(video_ids[good], classes[good], scores[good])
        bar.update(len(video_ids))
      if not writer.num_rows:
        raise program.UserError(
          f"No readable video in the {len(paths)} files of "
          f"--input_data_pattern: {reader.report.summary()}. "
          + " ".join(reader.report.problems()[:1])
        )
    seconds = time.monotonic() - start
  reader.report.log_warnings()
  logging.info(
    "Wrote %d rows to %s: %.1f videos a second; %s.",
    writer.num_rows,
    output_file,
    writer.num_rows / seconds,
    reader.report.summary(),
  )
  if writer.num_duplicates:
    logging.warning(
      "%d videos came more than once; the first row of each was kept.",
      writer.num_duplicates,
    )
  return writer.num_rows, reader.report.unread() + unread


def _run(directory, ignored, checkpoint=""):
  """Infers with the model of a directory; returns an exit status."""
  values = model_flags.load_for_data(directory)
  model_flags.warn_ignored(values, ignored)
  source = FLAGS.checkpoint or checkpoint or directory
  archives_alone = FLAGS.output_model_tgz and not FLAGS.input_data_pattern
  if not FLAGS.output_file and not archives_alone:
    raise program.UserError("--output_file is empty: give the CSV to write.")
  paths = []
  if not archives_alone:
    paths = readers.expand_data_pattern(
      FLAGS.input_data_pattern, "input_data_pattern"
    )
  _check_outputs(directory, source, paths)
  if not FLAGS.output_model_tgz:
    return _write(source, values, paths)

  def bundle(chosen):
    train_dir.verified(chosen)
    with train_dir.telling_damage(chosen):
      archive.write(FLAGS.output_model_tgz, directory, chosen)
    logging.info("Wrote the model to %s.", FLAGS.output_model_tgz)
    # Of the same checkpoint.
    return None if archives_alone else _write(chosen, values, paths)

  return train_dir.with_newest(source, bundle)


def _listing():
  """Where what could not be read is listed."""
  return f"{FLAGS.output_file}.unread.txt"


def _write(source, values, paths):
  """Writes --output_file; returns an exit status."""
  _, unread = infer(
    source,
    values,
    paths,
    FLAGS.output_file,
    batch_size=FLAGS.batch_size,
    num_readers=FLAGS.num_readers,
    top_k=FLAGS.top_k,
    segment_max_pred=FLAGS.segment_max_pred,
    allowed_classes=_allowed_classes(values),
  )
  listing = _listing()
  if not unread:
    # An earlier run's belongs to the file that has just been replaced.
    if tf.io.gfile.exists(listing):
      tf.io.gfile.remove(listing)
    return None
  files.write_text(listing, "".join(f"{line}\n" for line in unread))
  logging.error(
    "%d records or files could not be read and have no row: %s lists them.",
    len(unread),
    listing,
  )
  return program.INCOMPLETE


def _check_outputs(directory, source, paths):
  """Refuses outputs that are inputs, or each other."""
  checkpoints = [source]
  if source == directory:
    checkpoints = train_dir.checkpoints(directory)
  files.check_outputs(
    {
      "--output_file": FLAGS.output_file,
      "--output_file's list of unread records": FLAGS.output_file
      and _listing(),
      "--output_model_tgz": FLAGS.output_model_tgz,
    },
    {
      "--input_data_pattern": paths,
      "--input_model_tgz": [FLAGS.input_model_tgz],
      "--segment_label_ids_file": [FLAGS.segment_label_ids_file],
      "the model": [
        os.path.join(directory, model_flags.FILE_NAME),
        *(
          f"{checkpoint}.{part}"
          for checkpoint in checkpoints
          for part in ("index", "data-00000-of-00001")
        ),
      ],
    },
  )


def _allowed_classes(values):
  """The classes of --segment_label_ids_file; None for all."""
  path, num_classes = FLAGS.segment_label_ids_file, values["num_classes"]
  if not path or not values["segment_labels"]:
    return None
  with tf.io.gfile.GFile(path) as stream:
    lines = [line.strip() for line in stream]
  classes = sorted({int(line) for line in lines if line.isdecimal()})
  if not classes or classes[-1] >= num_classes:
    raise program.UserError(
      f"--segment_label_ids_file={path} needs classes below {num_classes}, one "
      f"a line; it has {len(classes)}, up to {classes[-1:]}."
    )
  return classes


def main(ignored):
  """Infers with a train_dir or with an archive."""
  if not FLAGS.input_model_tgz:
    return _run(FLAGS.train_dir, ignored)
  if FLAGS.train_dir:
    raise program.UserError("Give --train_dir or --input_model_tgz, not both.")
  if FLAGS.untar_model_dir:
    checkpoint = archive.extract(FLAGS.input_model_tgz, FLAGS.untar_model_dir)
    return _run(FLAGS.untar_model_dir, ignored, checkpoint)
  with tempfile.TemporaryDirectory() as directory:
    archive.extract(FLAGS.input_model_tgz, directory)
    return _run(directory, ignored)


if __name__ == "__main__":
  _IGNORED = define_flags()
  program.run(lambda: main(_IGNORED))
