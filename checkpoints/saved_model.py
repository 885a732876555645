"""SavedModels on disk: train_dir/export/step_N, or where the user says."""

import os

import tensorflow.compat.v1 as tf

import files
from checkpoints import parts, restore

# What is ours in a train_dir: regular expressions of whole names.
DIRECTORY = "export"
STEP = r"step_\d+"

_ENTRIES = {
  "saved_model.pb",
  "saved_model.pbtxt",
  "fingerprint.pb",
  "variables",
  "assets",
  "assets.extra",
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


def write(session, output_dir, *, inputs, outputs):
  """Writes a session's graph and variables, replacing an older export.

  Args:
    session: `tf.Session`.
    output_dir: str; it appears as a whole.
    inputs: dict of name to tensor, of the signature `serving_default`.
    outputs: likewise.

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
    files.replace_directory(
      new, output_dir.rstrip("/"), os.path.join(temporary, "old")
    )
