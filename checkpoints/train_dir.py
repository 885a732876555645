"""What a training directory holds: finding, checking and clearing it.

train_dir/model_flags.json            the model (see model_flags.py)
train_dir/model.ckpt-N.*              checkpoints
train_dir/checkpoint                  their list, for other tools
train_dir/finished.json               left by a run that came to its end
train_dir/events.out.tfevents.*       TensorBoard, training
train_dir/eval/                       TensorBoard and metrics-STEP.json
train_dir/best/                       a copy of the best checkpoint
train_dir/export/                     SavedModels

Checkpoints are found by their files. The list may be missing, old or edited:
that is told, and nothing follows from it.
"""

import contextlib
import fcntl
import json
import os
import re

import tensorflow.compat.v1 as tf
from absl import logging

import files
import messages
import model_flags

CHECKPOINT_PREFIX = "model.ckpt"
_FINISHED = "finished.json"
_LIST = "checkpoint"
_DAMAGED = ".damaged"

_PART = re.compile(
  rf"({re.escape(CHECKPOINT_PREFIX)}-(?:0|[1-9]\d*))"
  r"\.(index|data-\d{5}-of-(\d{5}))"
)
# Names of what a run that was killed while saving leaves: TensorFlow's own.
_HALF_SAVED = (
  rf"{_PART.pattern}\.tempstate\d+",
  r"checkpoint\.tmp[0-9a-f]{32}",
)
# It ends in a host's name; copies are not ours.
_EVENTS = r"events\.out\.tfevents\.\d+\.[\w.-]+(?<!\.(bak|old))"
_EXPORT = r"step_\d+"
_MODEL_FLAGS = re.escape(model_flags.FILE_NAME)
_KIND = r"(-segments)?((-holdout)?-[0-9a-f]{8})?"
# All that the programs write to a train_dir: regular expressions of whole
# names, by that of the directory. Nothing else is ever deleted.
_OWN = {
  "": (
    _LIST,
    _FINISHED,
    _MODEL_FLAGS,
    _EVENTS,
    _PART.pattern,
    rf"{_PART.pattern}{re.escape(_DAMAGED)}(-\d+)?",
    *_HALF_SAVED,
  ),
  "eval": (
    _EVENTS,
    rf"(metrics-\d+|best_checkpoint){_KIND}\.json",
  ),
  rf"best{_KIND}": (_LIST, _MODEL_FLAGS, _PART.pattern),
  "export": (_EXPORT,),
}

# What a SavedModel's directory holds.
_SAVED_MODEL = {
  "saved_model.pb",
  "saved_model.pbtxt",
  "fingerprint.pb",
  "variables",
  "assets",
  "assets.extra",
}

# Errors of reading that say nothing about what is on the disk.
_NOT_THE_CHECKPOINT = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.PermissionDeniedError,
  tf.errors.ResourceExhaustedError,
  tf.errors.UnavailableError,
)


class DamagedCheckpointError(ValueError):
  """A checkpoint that is not there as a whole, or can't be read."""


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
  _refuse_glob(path)
  tf.io.gfile.makedirs(path)
  flags_path = os.path.join(path, model_flags.FILE_NAME)
  has_flags = tf.io.gfile.exists(flags_path)
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
  found = _steps(path)
  if found and not has_flags:
    raise ValueError(
      f"--train_dir={path} has checkpoints, but no {model_flags.FILE_NAME}: "
      "they are of another program, or half copied. Give another directory, "
      "or copy that file too."
    )
  checkpoint = None
  if any("index" in parts for parts in found.values()):
    _check_same_model(path, values)
    checkpoint = with_newest(path, verified)
    _check_name(checkpoint)
    _set_aside(path, step_of(checkpoint))
  elif found:
    # An index comes last: the first save was interrupted.
    logging.warning(
      "%s has data of a checkpoint, but no index: begun anew.", path
    )
    _set_aside(path, -1)
  model_flags.save(path, values)
  return checkpoint


def _names(path):
  """Names of a directory's entries; none if it is not there."""
  try:
    return [name.rstrip("/") for name in tf.io.gfile.listdir(path)]
  except tf.errors.NotFoundError:
    return []


def _steps(path):
  """{step: dict of part to file} of all checkpoints, whole or not."""
  found = {}
  for name in _names(path):
    if match := _PART.fullmatch(name):
      parts = found.setdefault(step_of(match[1]), {})
      parts[match[2]] = os.path.join(path, name)
  return found


def _is_whole(parts):
  shards = {part for part in parts if part != "index"}
  counts = {int(part.rpartition("-")[2]) for part in shards}
  if "index" not in parts or len(counts) != 1 or len(shards) != counts.pop():
    return False
  try:
    return all(tf.io.gfile.stat(file).length for file in parts.values())
  except tf.errors.NotFoundError:  # Deleted since it was listed.
    return False


def _prefix(path, step):
  return os.path.join(path, f"{CHECKPOINT_PREFIX}-{step}")


def step_of(checkpoint):
  """The global step in a checkpoint's name, or in it if it was renamed.

  Args:
    checkpoint: path prefix, such as .../model.ckpt-N.

  Raises:
    DamagedCheckpointError: there is no such checkpoint, or it can't be read.
  """
  start, _, step = os.path.basename(checkpoint).rpartition("-")
  if start == CHECKPOINT_PREFIX and re.fullmatch(r"[0-9]+", step):
    return int(step)
  with telling_damage(checkpoint):
    return int(tf.train.load_checkpoint(checkpoint).get_tensor("global_step"))


def checkpoints(path):
  """Path prefixes of a directory's whole checkpoints, the newest last.

  Whole are those of which all files are there, and none is empty.
  """
  found = _steps(path)
  return [
    _prefix(path, step) for step in sorted(found) if _is_whole(found[step])
  ]


def latest_checkpoint(path):
  """Path prefix of the newest whole checkpoint, or None."""
  return next(reversed(checkpoints(path)), None)


def with_newest(source, use):
  """Calls a function with the newest checkpoint that it can read.

  A damaged one is passed over, with a warning that names it and the one taken
  instead. Where training deletes the checkpoint first, the then newest is
  taken.

  Args:
    source: str, a train_dir; or the path prefix of the one checkpoint to take.
    use: function of a path prefix that raises DamagedCheckpointError.

  Returns:
    What the function returns.

  Raises:
    DamagedCheckpointError: the one checkpoint, or all of the train_dir, can't
      be read.
    ValueError: the train_dir has no checkpoint.
  """
  if not tf.io.gfile.isdir(source):
    return use(source)
  passed_over = {}  # {step: why}
  told = 0
  while True:
    steps = _steps(source)
    if not steps:
      raise ValueError(f"No checkpoint in --train_dir={source}.")
    for step in sorted(steps, reverse=True):
      if step in passed_over:
        continue
      if _is_whole(steps[step]):
        break
      passed_over[step] = f"{_prefix(source, step)} is not there as a whole."
    else:
      raise DamagedCheckpointError(
        f"--train_dir={source} has no checkpoint that can be read: "
        f"{' '.join(passed_over.values())} Put whole ones there, or give "
        "--start_new_model to train afresh."
      )
    checkpoint = _prefix(source, step)
    _tell_list(source, checkpoint)
    if len(passed_over) > told:
      told = len(passed_over)
      logging.warning(
        "%s Taking %s instead.", " ".join(passed_over.values()), checkpoint
      )
    try:
      return use(checkpoint)
    except DamagedCheckpointError as error:
      if checkpoint in checkpoints(source):
        passed_over[step] = str(error)
      else:
        logging.info("%s was deleted: taking the then newest.", checkpoint)


def _tell_list(path, checkpoint):
  """Says so if the list names another checkpoint than the one taken."""
  file, name = os.path.join(path, _LIST), os.path.basename(checkpoint)
  said = "is missing"
  if tf.io.gfile.exists(file):
    try:
      state = tf.train.get_checkpoint_state(path)
    except ValueError:
      state = None
    said = "is damaged"
    if state:
      said = f"names {os.path.basename(state.model_checkpoint_path)}"
  if said != f"names {name}":
    logging.info("%s %s; the newest there is %s.", file, said, name)


@contextlib.contextmanager
def telling_damage(checkpoint):
  """Turns errors of reading a checkpoint into a DamagedCheckpointError."""
  _refuse_glob(checkpoint)
  if not tf.io.gfile.exists(f"{checkpoint}.index"):
    raise DamagedCheckpointError(f"There is no checkpoint {checkpoint}.")
  try:
    yield
  except (
    FileNotFoundError,
    IndexError,
    RuntimeError,
    tf.errors.OpError,
  ) as error:
    # The checkpoint reader raises whatever Python type is nearest.
    if isinstance(error, _NOT_THE_CHECKPOINT):
      raise
    raise DamagedCheckpointError(
      f"{checkpoint} is damaged: {messages.cause(str(error))}"
    ) from None


def _refuse_glob(path):
  """TensorFlow takes a checkpoint's path for a glob, and finds no file."""
  if re.search(r"[*?[\]\\]", path):
    raise ValueError(
      f"{path} has one of the characters * ? [ ] \\, and TensorFlow finds no "
      "checkpoint by such a path: rename the directory."
    )


def verified(checkpoint):
  """The path prefix itself, once every tensor has been read and checked.

  Raises:
    DamagedCheckpointError: one can't be read.
  """
  with telling_damage(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)
  return checkpoint


def _check_name(checkpoint):
  """Refuses a checkpoint of an earlier step than its name says.

  A run that went on from that step would overwrite those in between, and find
  this one as the newest again. (A chief's may be of a later step: the workers
  go on while it saves.)
  """
  with telling_damage(checkpoint):
    reader = tf.train.load_checkpoint(checkpoint)
    step = int(reader.get_tensor("global_step"))
  if step < step_of(checkpoint):
    raise ValueError(
      f"{checkpoint} is of step {step}, not {step_of(checkpoint)}: it was "
      "renamed. Give it its own name again, or move it away. (To go on from an "
      "older checkpoint, move the newer ones away.)"
    )


def _set_aside(path, last_step):
  """Renames checkpoints of later steps than this, none of which can be read.

  So no checkpoint is overwritten that the run did not write itself.
  """
  for step, parts in _steps(path).items():
    if step <= last_step:
      continue
    for file in parts.values():
      target, number = f"{file}{_DAMAGED}", 1
      while tf.io.gfile.exists(target):
        number += 1
        target = f"{file}{_DAMAGED}-{number}"
      tf.io.gfile.rename(file, target)
      logging.info("Renamed %s to %s.", file, os.path.basename(target))


def prune(path, keep):
  """Deletes the oldest whole checkpoints beyond so many; 0 keeps all."""
  steps = _steps(path)
  for checkpoint in checkpoints(path)[:-keep] if keep else []:
    parts = steps[step_of(checkpoint)]
    # The index last: data without one would never be found again.
    for part in sorted(parts):
      tf.io.gfile.remove(parts[part])


def copy_checkpoint(checkpoint, directory):
  """Copies a checkpoint's files, and names them by its step if it was renamed.

  Returns:
    Path prefix of the copy.

  Raises:
    DamagedCheckpointError: it is not there as a whole.
  """
  folder, name = os.path.split(checkpoint)
  copy = _prefix(directory, step_of(checkpoint))
  own_name = os.path.basename(copy)
  with telling_damage(checkpoint):
    for file in _names(folder or "."):
      renamed = own_name + file.removeprefix(name)
      if file.startswith(f"{name}.") and _PART.fullmatch(renamed):
        target = os.path.join(directory, renamed)
        tf.io.gfile.copy(os.path.join(folder, file), target)
  if copy not in checkpoints(directory):
    raise DamagedCheckpointError(f"{checkpoint} is not there as a whole.")
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
  step, (folder, name) = step_of(checkpoint), os.path.split(checkpoint)
  model_flags.save(directory, values)
  # The index comes last: with it the checkpoint is there.
  for part, file in sorted(_steps(folder)[step].items()):
    target = os.path.join(directory, f"{name}.{part}")
    tf.io.gfile.rename(file, target, overwrite=True)
  moved = os.path.join(directory, name)
  tf.train.update_checkpoint_state(directory, moved, [moved])
  for other, parts in _steps(directory).items():
    for file in parts.values() if other != step else ():
      tf.io.gfile.remove(file)
  return moved


def mark_finished(path, step, reason):
  """Leaves a mark for a watching eval.py: no more checkpoints will come."""
  text = json.dumps({"step": step, "reason": reason}) + "\n"
  files.write_text(os.path.join(path, _FINISHED), text)


def unmark_finished(path):
  """Takes the mark away: training goes on."""
  if tf.io.gfile.exists(os.path.join(path, _FINISHED)):
    tf.io.gfile.remove(os.path.join(path, _FINISHED))


def is_finished(path):
  """Whether the last run came to its end, rather than being stopped."""
  return tf.io.gfile.exists(os.path.join(path, _FINISHED))


def foreign_to_export(path):
  """Names of what is in a directory and in no SavedModel's."""
  return sorted(set(_names(path)) - _SAVED_MODEL)


def _own_entries(path, patterns):
  """(what matches, what does not) of a directory's entries, as paths."""
  own, others = [], []
  for name in sorted(tf.io.gfile.listdir(path)):
    name = name.rstrip("/")
    entry = os.path.join(path, name)
    is_own = any(re.fullmatch(pattern, name) for pattern in patterns)
    if re.fullmatch(_EXPORT, name) and tf.io.gfile.isdir(entry):
      is_own &= not foreign_to_export(entry)
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
  """Deletes what a run that was killed left half written."""
  for name in _names(path):
    if any(re.fullmatch(pattern, name) for pattern in _HALF_SAVED):
      _remove(os.path.join(path, name))
  files.remove_abandoned(path, "|".join((*_OWN[""], "best")))
  for name in _names(path):
    if patterns := _patterns_within(name):
      files.remove_abandoned(os.path.join(path, name), "|".join(patterns))


def _patterns_within(name):
  """What is ours in a directory of that name; nothing in others'."""
  return [
    pattern
    for directory, patterns in _OWN.items()
    if directory and re.fullmatch(directory, name)
    for pattern in patterns
  ]


def _remove(entry):
  """Deletes a file, a directory, or a link, but not what a link points to."""
  if not os.path.islink(entry) and tf.io.gfile.isdir(entry):
    tf.io.gfile.rmtree(entry)
  else:
    tf.io.gfile.remove(entry)
