"""Train_dirs of one variable, for tests: made, prepared, listed."""

import os

import tensorflow.compat.v1 as tf
from absl import flags

import model_flags
from checkpoints import train_dir


def values_of(*args):
  own = flags.FlagValues()
  model_flags.define(own)
  own(["prog", "--model=MoeModel", *args])
  return model_flags.from_flags(own)


def save(directory, *steps):
  """Writes real checkpoints of one variable, whose value is the step."""
  with tf.Graph().as_default(), tf.Session() as session:
    value = tf.placeholder(tf.int64, [])
    variable = tf.get_variable("global_step", [], tf.int64)
    assign = tf.assign(variable, value)
    saver = tf.train.Saver(max_to_keep=2)
    for step in steps:
      session.run(assign, {value: step})
      saver.save(
        session,
        os.path.join(directory, "model.ckpt"),
        global_step=step,
        write_meta_graph=False,
      )


def files_of(step):
  return {f"model.ckpt-{step}.index", f"model.ckpt-{step}.data-00000-of-00001"}


def make(path, *args, steps=(7,)):
  """A train_dir with checkpoints, events, an evaluation and an export."""
  path.mkdir()
  model_flags.save(str(path), values_of(*args))
  save(str(path), *steps)
  for name in (
    "events.out.tfevents.1.host",
    "eval/metrics-7.json",
    "export/step_7/saved_model.pb",
  ):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("ours")
  return path


def contents(path):
  """{relative path: bytes} of all files below."""
  return {
    str(file.relative_to(path)): file.read_bytes()
    for file in path.rglob("*")
    if file.is_file()
  }


def messages(caplog):
  return [record.getMessage() for record in caplog.records]


def prepare(path, *args, start_new_model=False):
  return train_dir.prepare(str(path), values_of(*args), start_new_model)
