"""SavedModels on disk: train_dir/export/step_N, or where the user says.

Beside the model, `assets.extra` has what predict.py needs to make its input:
model_flags.json and the files of description.py.
"""

import os

import tensorflow.compat.v1 as tf

import files
import model_flags
from checkpoints import parts, restore

# What is ours in a train_dir: regular expressions of whole names.
DIRECTORY = "export"
STEP = r"step_\d+"
# Where TensorFlow leaves room for files of the user's.
_EXTRA = "assets.extra"

_ENTRIES = {
  "saved_model.pb",
  "saved_model.pbtxt",
  "fingerprint.pb",
  "variables",
  "assets",
  _EXTRA,
}


def default_dir(checkpoint, directory=None):
  """Where a checkpoint is exported to if nothing else is said.

  Args:
    checkpoint: path prefix.
    directory: str, the train_dir; where the checkpoint is if not given.
  """
  if directory is None:
    directory = os.path.dirname(checkpoint)
  step = restore.step_of(checkpoint)
  return os.path.join(directory, DIRECTORY, f"step_{step}")


def foreign(directory):
  """Names of what is in a directory and in no SavedModel's."""
  return sorted(set(parts.names_in(directory)) - _ENTRIES)


def is_one(directory):
  """Whether a directory holds a SavedModel."""
  return tf.io.gfile.exists(os.path.join(directory, "saved_model.pb"))


def facts_of(directory):
  """Where a SavedModel has its model_flags.json and what goes with it.

  Raises:
    ValueError: it has none.
  """
  path = os.path.join(directory, _EXTRA)
  if not tf.io.gfile.exists(os.path.join(path, model_flags.FILE_NAME)):
    raise ValueError(
      f"{path} has no {model_flags.FILE_NAME}: the SavedModel is of another "
      "program or an older export_model.py. Export it again, or give its "
      "train_dir."
    )
  return path


def check_replaceable(output_dir):
  """Raises ValueError if there is something that no export wrote."""
  if not tf.io.gfile.exists(output_dir):
    return
  # Of a file, this raises.
  found = tf.io.gfile.listdir(output_dir)
  others = foreign(output_dir)
  if others or (found and "saved_model.pb" not in found):
    raise ValueError(
      f"{output_dir} holds something else than a SavedModel: "
      f"{', '.join(others or sorted(found))}. Export to another directory."
    )


def write(session, output_dir, *, inputs, outputs, add_facts=None):
  """Writes a session's graph and variables, replacing an older export.

  Args:
    session: `tf.Session`.
    output_dir: str; it appears as a whole.
    inputs: dict of name to tensor, of the signature `serving_default`.
    outputs: likewise.
    add_facts: function of a directory, writes there what `facts_of` is to give.

  Raises:
    ValueError: output_dir holds something else than a SavedModel.
  """
  check_replaceable(output_dir)
  signature = tf.saved_model.predict_signature_def(inputs, outputs)
  with files.temporary_directory(output_dir) as temporary:
    new = os.path.join(temporary, "new")
    builder = tf.saved_model.Builder(new)
    builder.add_meta_graph_and_variables(
      session,
      [tf.saved_model.SERVING],
      signature_def_map={"serving_default": signature},
      clear_devices=True,
    )
    builder.save()
    if add_facts:
      extra = os.path.join(new, _EXTRA)
      tf.io.gfile.makedirs(extra)
      add_facts(extra)
    files.replace_directory(
      new, output_dir.rstrip("/"), os.path.join(temporary, "old")
    )
