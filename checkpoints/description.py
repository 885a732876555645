"""The files that say how a model's features are made and its classes called.

features.json, the pca-NAME.npz that it names, and vocabulary.csv: train.py
copies them from beside the data into its train_dir; from there they go into
archives and directories of checkpoints.
"""

import os
import re

import tensorflow.compat.v1 as tf

from checkpoints import parts
from records import features_file, vocabulary

# Regular expressions of the names that they have, whole ones.
FILES = (
  re.escape(features_file.FILE_NAME),
  re.escape(vocabulary.FILE_NAME),
  features_file.PCA_FILES,
)


def files_of(directory):
  """{name: path} of those that a directory has.

  Raises:
    ValueError: its features.json can't be understood, or names a file that is
      not there.
  """
  description = features_file.load(directory)
  names = [features_file.FILE_NAME] if description else []
  for feature in description.features if description else ():
    if feature.pca:
      path = os.path.join(directory, feature.pca)
      if not tf.io.gfile.exists(path):
        raise ValueError(
          f"{os.path.join(directory, features_file.FILE_NAME)} names "
          f"{feature.pca}, which is not there."
        )
      names.append(feature.pca)
  if vocabulary.find(directory):
    names.append(vocabulary.FILE_NAME)
  return {name: os.path.join(directory, name) for name in names}


def encoders_of(directory):
  """Names of the files of networks that made the features: set of str."""
  found = set()
  description = features_file.load(directory)
  for feature in description.features if description else ():
    encoders = (feature.extractor or {}).get("encoders")
    for encoder in encoders.values() if isinstance(encoders, dict) else ():
      if isinstance(encoder, dict) and "file" in encoder:
        found.add(str(encoder["file"]))
  return found


def forget(directory):
  """Removes features.json and its PCA; names of classes may be a user's own."""
  features = f"{FILES[0]}|{features_file.PCA_FILES}"
  for name in parts.names_in(directory):
    if re.fullmatch(features, name):
      tf.io.gfile.remove(os.path.join(directory, name))


def copy_names(source, target):
  """Copies the names of the classes to a directory that has none."""
  if not vocabulary.find(target):
    tf.io.gfile.copy(
      vocabulary.find(source), os.path.join(target, vocabulary.FILE_NAME)
    )


def copy(source, target, replace=True):
  """Copies them from a directory to another, which is made if need be.

  Args:
    source: str.
    target: str.
    replace: bool, replace those that are there.
  """
  found = files_of(source)
  if found:
    tf.io.gfile.makedirs(target)
  for name, path in found.items():
    copied = os.path.join(target, name)
    if replace or not tf.io.gfile.exists(copied):
      tf.io.gfile.copy(path, copied, overwrite=True)
