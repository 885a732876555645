"""What a training directory holds: claiming, checking and clearing it.

train_dir/model_flags.json            the model (see model_flags.py)
train_dir/model.ckpt-N.*              checkpoints (see parts.py)
train_dir/checkpoint                  their list, for other tools
train_dir/features.json, vocabulary.csv, pca-NAME.npz  see description.py
train_dir/finished.json               left by a run that came to its end
train_dir/events.out.tfevents.*       TensorBoard, training
train_dir/eval/                       TensorBoard and evaluations.py's files
train_dir/best/                       a copy of the best checkpoint
train_dir/export/                     SavedModels
"""

import contextlib
import fcntl
import json
import os
import re

import tensorflow.compat.v1 as tf
from absl import logging

import files
import model_flags
from checkpoints import (
  description,
  evaluations,
  events,
  parts,
  restore,
  saved_model,
)

_FINISHED = "finished.json"
_DAMAGED = ".damaged"
_MODEL_FLAGS = re.escape(model_flags.FILE_NAME)
# All that the programs write to a train_dir: regular expressions of whole
# names, by that of the directory. Nothing else is ever deleted.
_OWN = {
  "": (
    parts.LIST,
    _FINISHED,
    _MODEL_FLAGS,
    *description.FILES,
    events.FILES,
    parts.FILE,
    rf"{parts.FILE}{re.escape(_DAMAGED)}(-\d+)?",
    *parts.HALF_SAVED,
  ),
  evaluations.DIRECTORY: (events.FILES, evaluations.FILES),
  evaluations.BEST_DIRECTORIES: (
    parts.LIST,
    _MODEL_FLAGS,
    *description.FILES,
    parts.FILE,
  ),
  saved_model.DIRECTORY: (saved_model.STEP,),
}


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
  restore.refuse_glob(path)
  tf.io.gfile.makedirs(path)
  has_flags = tf.io.gfile.exists(os.path.join(path, model_flags.FILE_NAME))
  if has_flags:
    _remove_leftovers(path)
  if start_new_model and tf.io.gfile.listdir(path):
    if not has_flags:
      raise ValueError(
        f"--start_new_model would delete what is in --train_dir={path}, but "
        f"that has no {model_flags.FILE_NAME}: it is not a directory that "
        "train.py wrote. Give another directory, or empty it yourself."
      )
    _clear(path)
    has_flags = False
  found = parts.by_step(path)
  if found and not has_flags:
    raise ValueError(
      f"--train_dir={path} has checkpoints, but no {model_flags.FILE_NAME}: "
      "they are of another program, or half copied. Give another directory, "
      "or copy that file too."
    )
  checkpoint = None
  if any("index" in of_step for of_step in found.values()):
    _check_same_model(path, values)
    checkpoint = restore.with_newest(path, restore.verified)
    _check_name(checkpoint)
    _set_aside(path, restore.step_of(checkpoint))
  elif found:
    # An index comes last: the first save was interrupted.
    logging.warning(
      "%s has data of a checkpoint, but no index: begun anew.", path
    )
    _set_aside(path, -1)
  if has_flags and not checkpoint:
    # Of a run that ended before its first checkpoint, maybe on other data.
    description.forget(path)
  model_flags.save(path, values)
  return checkpoint


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


def _check_name(checkpoint):
  """Refuses a checkpoint of an earlier step than its name says.

  A run that went on from that step would overwrite those in between, and find
  this one as the newest again. (A chief's may be of a later step: the workers
  go on while it saves.)
  """
  with restore.telling_damage(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    step = int(reader.get_tensor("global_step"))
  if step < restore.step_of(checkpoint):
    raise ValueError(
      f"{checkpoint} is of step {step}, not {restore.step_of(checkpoint)}: it "
      "was renamed. Give it its own name again, or move it away. (To go on "
      "from an older checkpoint, move the newer ones away.)"
    )


def _set_aside(path, last_step):
  """Renames checkpoints of later steps than this, none of which can be read.

  So no checkpoint is overwritten that the run did not write itself.
  """
  for step, of_step in parts.by_step(path).items():
    if step <= last_step:
      continue
    for file in of_step.values():
      target, number = f"{file}{_DAMAGED}", 1
      while tf.io.gfile.exists(target):
        number += 1
        target = f"{file}{_DAMAGED}-{number}"
      tf.io.gfile.rename(file, target)
      logging.info("Renamed %s to %s.", file, os.path.basename(target))


def prune(path, keep):
  """Deletes the oldest whole checkpoints beyond so many; 0 keeps all."""
  steps = parts.by_step(path)
  for checkpoint in restore.known_checkpoints(path)[:-keep] if keep else []:
    of_step = steps[restore.step_of(checkpoint)]
    # The index last: data without one would never be found again.
    for part in sorted(of_step):
      tf.io.gfile.remove(of_step[part])


def copy_checkpoint(checkpoint, directory):
  """Copies a checkpoint's files, and names them by its step if it was renamed.

  Returns:
    Path prefix of the copy.

  Raises:
    DamagedCheckpointError: it is not there as a whole.
  """
  copy = parts.prefix(directory, restore.step_of(checkpoint))
  with restore.telling_damage(checkpoint):
    for part, file in parts.of(checkpoint).items():
      tf.io.gfile.copy(file, f"{copy}.{part}")
  if copy not in restore.known_checkpoints(directory):
    raise restore.DamagedCheckpointError(
      f"{checkpoint} is not there as a whole."
    )
  return copy


def move_checkpoint(checkpoint, directory, values):
  """Makes a directory hold a checkpoint, with its model's flags, and no other.

  Args:
    checkpoint: path prefix; it is moved.
    directory: str, made if need be. Other checkpoints in it are deleted.
    values: dict of the model flags.

  Returns:
    Path prefix of the checkpoint there.
  """
  tf.io.gfile.makedirs(directory)
  moved = os.path.join(directory, os.path.basename(checkpoint))
  model_flags.save(directory, values)
  # The index comes last: with it the checkpoint is there.
  for part, file in sorted(parts.of(checkpoint).items()):
    tf.io.gfile.rename(file, f"{moved}.{part}", overwrite=True)
  parts.write_list(directory, moved)
  for step, of_step in parts.by_step(directory).items():
    if step != restore.step_of(moved):
      for file in of_step.values():
        tf.io.gfile.remove(file)
  return moved


def mark_finished(path, step, reason):
  """Leaves a mark for a watching eval.py: no more checkpoints will come."""
  text = json.dumps({"step": step, "reason": reason}) + "\n"
  files.write_text(os.path.join(path, _FINISHED), text)


def unmark_finished(path):
  """Takes the mark away: training goes on."""
  if is_finished(path):
    tf.io.gfile.remove(os.path.join(path, _FINISHED))


def is_finished(path):
  """Whether the last run came to its end, rather than being stopped."""
  return tf.io.gfile.exists(os.path.join(path, _FINISHED))


def _patterns_within(name):
  """What is ours in a directory of that name; nothing in others'."""
  return [
    pattern
    for directory, patterns in _OWN.items()
    if directory and re.fullmatch(directory, name)
    for pattern in patterns
  ]


def _own_entries(path, patterns):
  """(what matches, what does not) of a directory's entries, as paths."""
  own, others = [], []
  for name in sorted(parts.names_in(path)):
    entry = os.path.join(path, name)
    is_own = any(re.fullmatch(pattern, name) for pattern in patterns)
    if re.fullmatch(saved_model.STEP, name) and tf.io.gfile.isdir(entry):
      is_own &= not saved_model.foreign(entry)
    (own if is_own else others).append(entry)
  return own, others


def _clear(path):
  """Deletes what is recognisably ours; names what it leaves."""
  own, others = _own_entries(path, _OWN[""])
  for directory in list(others):
    patterns = _patterns_within(os.path.basename(directory))
    if not patterns or not tf.io.gfile.isdir(directory):
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
  own.sort(key=os.path.join(path, model_flags.FILE_NAME).__eq__)
  for entry in own:
    _remove(entry)
  logging.info("--start_new_model: deleted %d entries of %s.", len(own), path)
  if others:
    left = [os.path.relpath(entry, path) for entry in others]
    logging.warning("Left alone in %s: %s.", path, ", ".join(left))


def _remove_leftovers(path):
  """Deletes what a run that was killed left half written."""
  names = parts.names_in(path)
  for name in names:
    if any(re.fullmatch(pattern, name) for pattern in parts.HALF_SAVED):
      _remove(os.path.join(path, name))
  files.remove_abandoned(path, "|".join((*_OWN[""], evaluations.BEST)))
  for name in names:
    if patterns := _patterns_within(name):
      files.remove_abandoned(os.path.join(path, name), "|".join(patterns))


def _remove(entry):
  """Deletes a file, a directory, or a link, but not what a link points to."""
  if not os.path.islink(entry) and tf.io.gfile.isdir(entry):
    tf.io.gfile.rmtree(entry)
  else:
    tf.io.gfile.remove(entry)
