"""What a training directory holds: finding, checking and clearing it.

train_dir/model_flags.json            the model (see model_flags.py)
train_dir/checkpoint, model.ckpt-N.*  checkpoints
train_dir/events.out.tfevents.*       TensorBoard, training
train_dir/eval/                       TensorBoard and metrics-STEP.json
train_dir/export/                     SavedModels
"""

import contextlib
import fcntl
import fnmatch
import os

import tensorflow.compat.v1 as tf
from absl import logging

import model_flags

CHECKPOINT_PREFIX = "model.ckpt"
_OWN = (
  "checkpoint",
  "checkpoint.tmp*",
  f"{CHECKPOINT_PREFIX}-[0-9]*",
  f"{model_flags.FILE_NAME}*",
  "events.out.tfevents.*",
)
# In directories of ours; what else is in them stays.
_OWN_WITHIN = {
  "eval": ("events.out.tfevents.*", "metrics-*.json"),
  "export": ("step_*",),
}
_LEFTOVERS = ("checkpoint.tmp*", f"{CHECKPOINT_PREFIX}-*temp*")


@contextlib.contextmanager
def claimed(path):
  """Keeps other runs out of a directory while the `with` block lasts.

  The claim is a lock on the directory itself: it leaves no file behind, and
  that of a killed run is gone with its process. Remote directories (gs://...)
  and file systems without such locks can't be claimed: there, two runs are the
  user's to keep apart.

  Args:
    path: str, the directory; made if need be.

  Raises:
    ValueError: another run has claimed it.
  """
  tf.io.gfile.makedirs(path)
  with contextlib.ExitStack() as stack:
    if "://" not in path:
      descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
      stack.callback(os.close, descriptor)
      _lock(descriptor, path)
    yield


def _lock(descriptor, path):
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise ValueError(
      f"Another run is training in --train_dir={path}: two would overwrite "
      "each other's checkpoints. Wait for its end, stop it (SIGTERM saves "
      "first; the same command then goes on), or give another directory."
    ) from None
  except OSError as error:
    logging.info(
      "%s can't be locked (%s): see to it that no other run trains there.",
      path,
      error.strerror,
    )


def prepare(path, values, start_new_model):
  """Makes a directory ready for a run, and says where the run goes on.

  Args:
    path: str, the directory; made if need be.
    values: the run's model flags.
    start_new_model: bool, delete what an earlier run left.

  Returns:
    Path prefix of the checkpoint to resume from, or None for a new model.

  Raises:
    ValueError: the directory holds another model, or is none of ours.
  """
  tf.io.gfile.makedirs(path)
  flags_path = os.path.join(path, model_flags.FILE_NAME)
  has_flags = tf.io.gfile.exists(flags_path)
  if start_new_model and tf.io.gfile.listdir(path):
    if not has_flags:
      raise ValueError(
        f"--start_new_model would delete what is in --train_dir={path}, but "
        f"that has no {model_flags.FILE_NAME}: it is not a directory that "
        "train.py wrote. Give another directory, or empty it yourself."
      )
    _clear(path)
    has_flags = False
  checkpoint = latest_checkpoint(path)
  if checkpoint and not has_flags:
    raise ValueError(
      f"--train_dir={path} has checkpoints, but no {model_flags.FILE_NAME}: "
      "they are of another program. Give another directory."
    )
  if checkpoint:
    _check_same_model(path, values)
  if has_flags:
    _remove_leftovers(path)
  model_flags.save(path, values)
  return checkpoint


def latest_checkpoint(path):
  """Path prefix of the newest checkpoint, or None.

  Raises:
    ValueError: the newest checkpoint that `checkpoint` names is not there, or
      that file is damaged.
  """
  state = tf.train.get_checkpoint_state(path)
  if state is None or not state.model_checkpoint_path:
    if tf.io.gfile.exists(os.path.join(path, "checkpoint")):
      raise ValueError(
        f"{path}/checkpoint is damaged: it names no checkpoint. Write "
        f'model_checkpoint_path: "{CHECKPOINT_PREFIX}-N" into it, of one that '
        "is there; to start afresh, give --start_new_model."
      )
    return None
  # A directory that was moved still finds its checkpoints.
  name = os.path.basename(state.model_checkpoint_path)
  checkpoint = os.path.join(path, name)
  if not tf.io.gfile.exists(f"{checkpoint}.index"):
    raise ValueError(
      f"{path}/checkpoint names {name}, which is not there. If an older "
      "checkpoint is, name it in that file; to start afresh, give "
      "--start_new_model."
    )
  return checkpoint


def known_checkpoints(path):
  """[(path prefix, time written)] of the checkpoints that still are there."""
  state = tf.train.get_checkpoint_state(path)
  if state is None:
    return []
  found = []
  for name in state.all_model_checkpoint_paths:
    checkpoint = os.path.join(path, os.path.basename(name))
    index = f"{checkpoint}.index"
    if tf.io.gfile.exists(index):
      found.append((checkpoint, tf.io.gfile.stat(index).mtime_nsec / 1e9))
  return found


def _own_entries(path, patterns):
  """(what matches, what does not) of a directory's entries, as paths."""
  own, others = [], []
  for name in sorted(tf.io.gfile.listdir(path)):
    name = name.rstrip("/")
    matches = any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    (own if matches else others).append(os.path.join(path, name))
  return own, others


def _clear(path):
  """Deletes what is recognisably ours; names what it leaves."""
  own, others = _own_entries(path, _OWN)
  for name, patterns in _OWN_WITHIN.items():
    directory = os.path.join(path, name)
    if directory not in others or not tf.io.gfile.isdir(directory):
      continue
    if os.path.islink(directory):
      own.append(directory)
      others.remove(directory)
      continue
    within, foreign = _own_entries(directory, patterns)
    others.remove(directory)
    others += foreign
    # Emptied first: a directory goes only if nothing is left in it.
    own += within if foreign else [*within, directory]
  # The flags go last: an interrupted deletion can be taken up again.
  own.sort(key=lambda entry: entry.endswith(model_flags.FILE_NAME))
  for entry in own:
    _remove(entry)
  logging.info("--start_new_model: deleted %d entries of %s.", len(own), path)
  if others:
    left = [os.path.relpath(entry, path) for entry in others]
    logging.warning("Left alone in %s: %s.", path, ", ".join(left))


def _check_same_model(path, values):
  saved = model_flags.load(path)
  forbidden, allowed = model_flags.differences(saved, values)
  if forbidden:
    width = max(len(name) for name, _, _ in forbidden) + 2
    rows = [f"  {'flag':{width}}  {'trained with':20}  now"] + [
      f"  {'--' + name:{width}}  {before!s:20}  {now}"
      for name, before, now in forbidden
    ]
    raise ValueError(
      f"--train_dir={path} holds another model:\n"
      + "\n".join(rows)
      + "\nGive those flags as they were, another --train_dir, or "
      "--start_new_model to delete the old one."
    )
  for name, before, now in allowed:
    logging.info("--%s changes from %s to %s.", name, before, now)


def _remove_leftovers(path):
  """Deletes what a run that was killed while saving left half written."""
  for name in tf.io.gfile.listdir(path):
    name = name.rstrip("/")
    if any(fnmatch.fnmatch(name, pattern) for pattern in _LEFTOVERS):
      _remove(os.path.join(path, name))


def _remove(entry):
  """Deletes a file, a directory, or a link, but not what a link points to."""
  if not os.path.islink(entry) and tf.io.gfile.isdir(entry):
    tf.io.gfile.rmtree(entry)
  else:
    tf.io.gfile.remove(entry)
