"""Exports a checkpoint as a SavedModel for serving.

  python export_model.py --train_dir=/models/netvlad --output_dir=/models/served

Any TensorFlow runs it, without this code: serialised records in; video ids,
the best classes and their scores out.

  model = tf.saved_model.load("/models/served")
  model.signatures["serving_default"](tf.constant([record, ...]))
"""

import program  # isort: skip  (before TensorFlow)

import os

from absl import flags

import files
import flag_types
import model_flags
import predictor

FLAGS = flags.FLAGS


def define_flags():
  """Defines the flags."""
  flag_types.path(
    "train_dir", "/tmp/yt8m_model/", "Directory that train.py wrote to."
  )
  flag_types.path(
    "output_dir",
    "",
    "Directory to write; train_dir/export/step_N if not given.",
  )
  flag_types.path(
    "checkpoint", "", "Path prefix of a checkpoint; the newest if not given."
  )
  flag_types.integer(
    "top_k", predictor.TOP_K, "Classes to return for each video.", lower_bound=1
  )


def main():
  """Exports one checkpoint."""
  values = model_flags.load(FLAGS.train_dir)
  output_dir = FLAGS.output_dir
  for source in (FLAGS.train_dir, FLAGS.checkpoint):
    if source and output_dir and files.is_within(source, output_dir):
      raise program.UserError(
        f"--output_dir={output_dir} is written as a whole, and would replace "
        f"{source}: give another directory."
      )
  if FLAGS.checkpoint and not output_dir:
    step = predictor.step_of(FLAGS.checkpoint)
    output_dir = os.path.join(FLAGS.train_dir, "export", f"step_{step}")
  predictor.export(
    FLAGS.checkpoint or FLAGS.train_dir, values, output_dir, FLAGS.top_k
  )


if __name__ == "__main__":
  define_flags()
  program.run(main)
