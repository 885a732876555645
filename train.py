"""Trains a model on YouTube-8M TFRecords.

A frame-level model:

  python train.py --train_data_pattern='/data/yt8m/frame/train*.tfrecord' \\
    --train_dir=/models/netvlad --model=NetVLADModelLF --frame_features=True \\
    --feature_names=rgb,audio --feature_sizes=1024,128 \\
    --batch_size=80 --base_learning_rate=0.0002 --iterations=300 \\
    --netvlad_cluster_size=256 --gating=True --netvlad_relu=False

The same flags, as a preset:

  python train.py --preset=willow-gated-netvlad \\
    --train_data_pattern='/data/yt8m/frame/train*.tfrecord' \\
    --train_dir=/models/netvlad

A run that was stopped goes on from its last checkpoint with the same command;
learning rate, batch size, data and number of towers may change, the
architecture may not. Training by several machines is configured by TF_CONFIG:
with workers alone, or --synchronous, they take each step together, with ps on
their own.

What is not given about the features and the classes is taken from features.json
and vocabulary.csv beside the data, where scripts/make_records.py puts them.

The flags stand in training/config.py and with the models; the loop of steps in
training/loop.py.
"""

from console import program  # isort: skip  (before TensorFlow)

import tensorflow.compat.v1 as tf
from absl import flags, logging

import data_flags
import model_flags
from console import flag_fields
from training import placement, presets
from training.config import Config
from training.trainer import Trainer


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags; with model_flags.py's they are the starter code's."""
  model_flags.define(flag_values)
  flag_fields.define(Config, flag_values)


def main():
  """Runs this process's task."""
  task = placement.from_environment()
  config = flag_fields.from_flags(Config)
  if task.is_ps:
    logging.info(
      "Parameter server %d: %s until killed.",
      task.index,
      "idle, as of --synchronous," if config.synchronous else "serving",
    )
    # It computes nothing: the GPUs are the workers'.
    task.start_server(tf.ConfigProto(device_count={"GPU": 0})).join()
    return
  if config.synchronous:
    task = task.together()
  model_flags.warn_unused()
  values = data_flags.filled(
    model_flags.from_flags(), config.train_data_pattern
  )
  Trainer(config, values, task).run()


if __name__ == "__main__":
  define_flags()
  program.run(main, expand=presets.expand)
