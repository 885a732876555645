"""Sums a demo up: its GAP beside that of a guess, and what to run next."""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf

import eval_util
import model_flags
import readers
from checkpoints import evaluations
from console import flag_fields
from predictions import predictor, submission


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Demo"):
  """What the demo wrote."""

  train_dir: str = flag_fields.path(None, "The demo's model.", required=True)
  submission: str = flag_fields.path(None, "The demo's CSV.", required=True)
  train_data_pattern: str = flag_fields.paths(
    None, "What it was trained on.", required=True
  )
  eval_data_pattern: str = flag_fields.paths(
    None, "What it was evaluated on.", required=True
  )


def read_labels(reader, pattern, flag_name):
  """All labels of some files: bool [videos, classes]."""
  paths = readers.expand_data_pattern(pattern, flag_name)
  labels = []
  with tf.Graph().as_default(), tf.Session() as session:
    data = reader.batches(paths, batch_size=256)
    iterator = tf.data.make_initializable_iterator(data)
    batch = iterator.get_next()["labels"]
    session.run(iterator.initializer)
    while True:
      try:
        labels.append(session.run(batch))
      except tf.errors.OutOfRangeError:
        return np.concatenate(labels)


def main():
  """Prints the summary."""
  config = flag_fields.from_flags(Config)
  reader = model_flags.build_reader(model_flags.load(config.train_dir))
  train_labels, eval_labels = (
    read_labels(reader, getattr(config, name), name)
    for name in ("train_data_pattern", "eval_data_pattern")
  )
  guess = eval_util.calculate_gap(
    np.tile(train_labels.mean(axis=0), (len(eval_labels), 1)),
    eval_labels,
    predictor.TOP_K,
  )
  directory = os.path.join(config.train_dir, evaluations.DIRECTORY)
  metrics = evaluations.of_kind(directory, "")[-1]
  rows = sum(1 for _ in submission.iter_submission(config.submission))
  print(f"""
== Done
GAP@20 on {metrics["num_videos"]} videos not trained on: {metrics["gap"]:.3f}
GAP@20 of always predicting the label frequencies: {guess:.3f}
Submission: {rows} rows in {config.submission}
TensorBoard: .venv/bin/tensorboard --logdir={config.train_dir}

Next, on real data (frame-level YouTube-8M,
https://research.google.com/youtube8m/download.html):

  .venv/bin/python train.py --train_dir=runs/gated-netvlad \\
    --train_data_pattern='/path/to/frame/train*.tfrecord' \\
    --model=NetVLADModelLF \\
    --frame_features=True --feature_names=rgb,audio --feature_sizes=1024,128 \\
    --batch_size=80 --base_learning_rate=0.0002 --learning_rate_decay=0.8 \\
    --iterations=300 --netvlad_cluster_size=256 --netvlad_hidden_size=1024 \\
    --netvlad_relu=False --gating=True --moe_prob_gating=True --moe_l2=1e-6
  .venv/bin/python eval.py --train_dir=runs/gated-netvlad \\
    --eval_data_pattern='/path/to/frame/validate*.tfrecord'
""")


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
