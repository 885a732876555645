"""The files of checkpoints: DIRECTORY/model.ckpt-STEP.PART.

A checkpoint is named by its path prefix, DIRECTORY/model.ckpt-STEP. Which there
are is told by the files themselves. The list that TensorFlow keeps beside them,
`checkpoint`, may be missing, old or edited.
"""

import os
import re

import tensorflow.compat.v1 as tf

PREFIX = "model.ckpt"
LIST = "checkpoint"
# Regular expressions of whole names: of a part's, of a file's, and of what a
# killed save leaves, in TensorFlow's own words.
PART = r"index|data-\d{5}-of-\d{5}"
FILE = rf"{re.escape(PREFIX)}-(?:0|[1-9]\d*)\.(?:{PART})"
HALF_SAVED = (
  rf"{FILE}\.tempstate\d+",
  rf"{LIST}\.tmp[0-9a-f]{{32}}",
)


def prefix(directory, step):
  """Path prefix of the checkpoint of a step."""
  return os.path.join(directory, f"{PREFIX}-{step}")


def step_in_name(checkpoint):
  """The step that a checkpoint's name has; None for another name."""
  start, _, step = os.path.basename(checkpoint).rpartition("-")
  is_ours = start == PREFIX and re.fullmatch(r"[0-9]+", step)
  return int(step) if is_ours else None


def names_in(directory):
  """Names of a directory's entries; none if it is not there."""
  try:
    return [name.rstrip("/") for name in tf.io.gfile.listdir(directory)]
  except tf.errors.NotFoundError:
    return []


def by_step(directory):
  """{step: {part: its path}} of all checkpoints, whole or not."""
  found = {}
  for name in names_in(directory):
    if re.fullmatch(FILE, name):
      checkpoint, _, part = name.rpartition(".")
      step = found.setdefault(step_in_name(checkpoint), {})
      step[part] = os.path.join(directory, name)
  return found


def of(checkpoint):
  """{part: its path} of one checkpoint, which may have any name."""
  directory, own = os.path.split(checkpoint)
  matches = [
    re.fullmatch(rf"{re.escape(own)}\.({PART})", name)
    for name in names_in(directory or ".")
  ]
  return {
    match[1]: os.path.join(directory, match[0]) for match in matches if match
  }


def is_whole(files):
  """Whether the parts of a checkpoint are all there, and none is empty."""
  shards = {part for part in files if part != "index"}
  counts = {int(part.rpartition("-")[2]) for part in shards}
  if "index" not in files or len(counts) != 1 or len(shards) != counts.pop():
    return False
  try:
    return all(tf.io.gfile.stat(file).length for file in files.values())
  except tf.errors.NotFoundError:  # Deleted since it was listed.
    return False


def write_list(directory, checkpoint, others=()):
  """Writes the list of a directory's checkpoints, for other tools.

  Args:
    directory: str.
    checkpoint: path prefix of the newest.
    others: list of all path prefixes; the newest alone if not given.
  """
  tf.train.update_checkpoint_state(
    directory, checkpoint, list(others) or [checkpoint]
  )


def told_by_list(directory):
  """What the list says, in words: "names model.ckpt-9", or what it lacks."""
  file = os.path.join(directory, LIST)
  if not tf.io.gfile.exists(file):
    return "is missing"
  try:
    state = tf.train.get_checkpoint_state(directory)
  except ValueError:
    state = None
  if not state:
    return "is damaged"
  return f"names {os.path.basename(state.model_checkpoint_path)}"
