"""Runs of the programs on tiny data, in this process and in others.

A program takes seconds to start: what needs no process of its own (signals,
flags, exit statuses) is run here, through the functions behind the flags.
"""

import collections
import dataclasses
import fcntl
import os
import re
import textwrap

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import model_flags
import readers
import train
from checkpoints import restore
from evaluation import measure
from predictions import submission, writing
from scripts import make_dataset
from tests.programs import (  # noqa: F401
  ROOT,
  TIMEOUT,
  finish,
  run_ok,
  run_program,
  start_program,
  wait_for_log,
)
from training import placement

SIZES = {"rgb": 7, "audio": 5}
NUM_CLASSES = 6

# Every field of train.Config, as tests want it: short, quiet, repeatable.
_CONFIG = {
  "train_dir": None,
  "train_data_pattern": None,
  "start_new_model": False,
  "batch_size": 4,
  "regularization_penalty": 1.0,
  "base_learning_rate": 0.01,
  "learning_rate_schedule": "exponential",
  "learning_rate_warmup_steps": 0,
  "learning_rate_decay": 0.95,
  "learning_rate_decay_examples": 4000000.0,
  "num_epochs": 0,
  "max_steps": 3,
  "export_model_steps": 0,
  "num_readers": 2,
  "optimizer": "AdamOptimizer",
  "clip_gradient_norm": 1.0,
  "clip_by_global_norm": False,
  "ema_decay": 0.0,
  "ema_warmup": True,
  "label_smoothing": 0.0,
  "class_weights": "",
  "mixup_alpha": 0.0,
  "frame_dropout": 0.0,
  "teachers": "",
  "teacher_predictions": "",
  "distillation_weight": 0.5,
  "distillation_temperature": 1.0,
  "mixed_precision": False,
  "xla": False,
  "synchronous": False,
  "nccl": True,
  "worker_timeout_secs": 600,
  "log_device_placement": False,
  "num_gpu": 0,
  "num_towers": 1,
  "init_checkpoint": "",
  "save_checkpoints_secs": 0,
  "save_checkpoints_steps": 0,
  "keep_checkpoints": 5,
  "early_stop_evals": 0,
  "log_steps": 1,
  "log_secs": 0,
  "shuffle_buffer": 16,
  "data_service": "",
  "skip_unlabelled": False,
  "strict_records": False,
  "seed": 1,
  "deterministic": False,
}
# What train's programs are told besides, so that tiny data fit.
_VALUES = {
  "model": "NetVLADModelLF",
  "frame_features": True,
  "feature_names": ",".join(SIZES),
  "feature_sizes": ",".join(map(str, SIZES.values())),
  "num_classes": NUM_CLASSES,
  "iterations": 4,
  "netvlad_cluster_size": "4",
  "netvlad_hidden_size": 4,
  "dbof_cluster_size": 9,
  "dbof_hidden_size": 4,
  "fv_cluster_size": "4",
  "fv_hidden_size": 4,
  "lstm_cells": 4,
  "gru_cells": 4,
}
VIDEO_LEVEL = {
  "frame_features": False,
  "feature_names": ",".join(f"mean_{name}" for name in SIZES),
}


def write_data(directory, **changes):
  """Writes learnable videos: the pattern of their files.

  Args:
    directory: str or path.
    **changes: fields of `make_dataset.DatasetConfig`.
  """
  fields = {
    "output_dir": str(directory),
    "feature_sizes": tuple(SIZES.values()),
    "num_videos": 12,
    "num_shards": 2,
    "num_classes": NUM_CLASSES,
    "min_frames": 3,
    "max_frames": 7,
    "labels_per_video": 1.5,
    "label_frames": 0.8,
    "noise": 0.5,
    **changes,
  }
  fields["feature_sizes"] = ",".join(map(str, fields["feature_sizes"]))
  return make_dataset.write_dataset(
    make_dataset.DatasetConfig(**fields)
  ).pattern


def model_values(**changes):
  """The model flags' values: the defaults, with tiny sizes, and changes."""
  own = flags.FlagValues()
  model_flags.define(own)
  defaults = model_flags.from_flags(own)
  unknown = set(changes) - set(defaults)
  if unknown:
    raise ValueError(f"No such model flags: {sorted(unknown)}.")
  given = {**_VALUES, **changes}
  return model_flags.with_model_defaults({**defaults, **given}, given)


def train_config(directory, pattern, **changes):
  """A `train.Config`."""
  return train.Config(
    **{
      **_CONFIG,
      "train_dir": str(directory),
      "train_data_pattern": str(pattern),
      **changes,
    }
  )


def run_train(directory, pattern, **changes):
  """Trains in this process: the path prefix of the last checkpoint.

  Args:
    directory: the train_dir.
    pattern: the data.
    **changes: fields of `train.Config` and model flags.
  """
  names = {field.name for field in dataclasses.fields(train.Config)}
  own = {name: value for name, value in changes.items() if name in names}
  others = {name: changes[name] for name in changes if name not in names}
  train.Trainer(
    train_config(directory, pattern, **own),
    model_values(**others),
    placement.from_environment("{}"),
  ).run()
  return restore.latest_checkpoint(str(directory))


def shared_model(tmp_path_factory):
  """A trained model for all test processes, not to be written to.

  Returns:
    (its train_dir, the pattern of the 13 videos it was trained on).
  """
  root = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    root = root.parent
  directory, data = root / "shared_model", root / "shared_data"
  with open(root / "shared_model.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not directory.exists():
      pattern = write_data(data, num_videos=13)
      run_train(
        root / "shared_model.tmp",
        pattern,
        max_steps=20,
        base_learning_rate=0.05,
        gating=True,
        moe_prob_gating=True,
        netvlad_relu=False,
      )
      os.rename(root / "shared_model.tmp", directory)
  return directory, str(data / "train-*.tfrecord")


def run_eval(directory, pattern, **changes):
  """Evaluates a train_dir's newest checkpoint: `eval.evaluate`'s results."""
  return measure.evaluate(
    restore.latest_checkpoint(str(directory)),
    model_flags.load(str(directory)),
    readers.expand_data_pattern(str(pattern)),
    **{"batch_size": 5, "num_readers": 2, **changes},
  )


def run_infer(directory, pattern, output_file, **changes):
  """Infers with a train_dir's newest checkpoint: `writing.infer`'s.

  Changes are those of `writing.Output`.
  """
  return writing.infer(
    restore.latest_checkpoint(str(directory)),
    model_flags.load(str(directory)),
    readers.expand_data_pattern(str(pattern)),
    writing.Output(str(output_file), **changes),
    batch_size=5,
    num_readers=2,
  )


# What someone else would write: TensorFlow, and nothing of ours.
_SERVE = """
  import sys
  import numpy as np
  import tensorflow as tf

  directory, pattern, output = sys.argv[1:]
  records = []
  for path in sorted(tf.io.gfile.glob(pattern)):
    records += [r.numpy() for r in tf.data.TFRecordDataset(path)]
  serve = tf.saved_model.load(directory).signatures["serving_default"]
  found = serve(tf.constant(records))
  named = serve(example_bytes=tf.constant(records[:1]))
  assert named["video_id"].numpy() == found["video_id"].numpy()[:1]
  found = {name: value.numpy() for name, value in found.items()}
  for name in found:
    if found[name].dtype == object:  # Else it is pickled.
      found[name] = found[name].astype("S")
  np.savez(output, **found)
  foreign = [m for m in sys.modules if m in ("predictor", "readers", "pooling")]
  assert not foreign, foreign
"""


def serve(directory, pattern, tmp_path):
  """What a SavedModel returns, run elsewhere: {output: array}."""
  elsewhere = tmp_path / "elsewhere"
  elsewhere.mkdir()
  script = elsewhere / "serve.py"
  script.write_text(textwrap.dedent(_SERVE))
  run_ok(script, directory, pattern, elsewhere / "out.npz")
  with np.load(elsewhere / "out.npz") as stored:
    return dict(stored)


def flag_list(values):
  """["--name=value"] of a dict; None is left out."""
  return [
    f"--{name}={value}" for name, value in values.items() if value is not None
  ]


def model_flag_list(**changes):
  """Flags of a tiny model, for a command line."""
  return flag_list({**_VALUES, **changes})


def train_flag_list(directory, pattern, **changes):
  """Flags of a tiny training, for a command line."""
  config = {
    **_CONFIG,
    "train_dir": directory,
    "train_data_pattern": pattern,
    **changes,
  }
  return flag_list({**config, **_VALUES, **changes})


def events(directory):
  """{tag: {step: value}} of all event files of a directory."""
  found = {}
  for path in sorted(tf.io.gfile.glob(f"{directory}/events.out.tfevents.*")):
    for event in tf.train.summary_iterator(path):
      for value in event.summary.value:
        number = value.simple_value
        if value.WhichOneof("value") == "tensor":
          array = tf.make_ndarray(value.tensor)
          if array.dtype.kind != "f" or array.shape:
            continue
          number = float(array)
        found.setdefault(value.tag, {})[event.step] = number
  return found


def losses_of(stderr):
  """{step: loss as printed} of a training log."""
  return {
    int(step): loss
    for step, loss in re.findall(r"training step (\d+) \| Loss: (\S+)", stderr)
  }


def step_of(directory):
  """The global step inside a train_dir's newest checkpoint."""
  checkpoint = restore.latest_checkpoint(str(directory))
  return int(tf.train.load_checkpoint(checkpoint).get_tensor("global_step"))


def variables_of(checkpoint):
  """{name: array} of a checkpoint."""
  reader = tf.train.load_checkpoint(checkpoint)
  return {
    name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
  }


def labels_of(pattern, is_frame_level=True):
  """{video id: set of labels} of the records of some files, in their order."""
  kind = tf.train.SequenceExample if is_frame_level else tf.train.Example
  found = {}
  for path in readers.expand_data_pattern(str(pattern)):
    for record in tf.python_io.tf_record_iterator(path):
      example = kind.FromString(record)
      context = example.context if is_frame_level else example.features
      video_id = context.feature["id"].bytes_list.value[0].decode()
      found[video_id] = set(context.feature["labels"].int64_list.value)
  return found


def gap_of_csv(path, labels):
  """GAP of a submission, by its definition, without eval's code.

  Where pairs tie, each of their orders is as likely as any other, and the mean
  over them counts. Videos tie in all their scores when no hidden unit is above
  0 for either.

  Args:
    path: the CSV.
    labels: {video id: set of labels}.
  """
  tied = collections.defaultdict(list)  # {score: whether each pair is a hit}
  for video_id, (classes, scores) in submission.read_submission(path).items():
    for label, score in zip(classes, scores, strict=True):
      tied[score].append(int(label) in labels[video_id])
  area, rank, hits = 0.0, 0, 0
  for _, group in sorted(tied.items(), reverse=True):
    chances = {0: 1.0}  # {hits drawn of this group: its probability}
    for drawn in range(len(group)):
      rank += 1
      following = collections.Counter()
      for found, chance in chances.items():
        hit = chance * (sum(group) - found) / (len(group) - drawn)
        area += hit * (hits + found + 1) / rank
        following[found + 1] += hit
        following[found] += chance - hit
      chances = following
    hits += sum(group)
  return area / sum(map(len, labels.values()))
