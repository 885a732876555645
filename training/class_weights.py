"""Weights of classes in the training loss, from a file."""

import numpy as np
import tensorflow.compat.v1 as tf

from console import messages, program

_MAX_WEIGHT = float(np.finfo(np.float32).max)


def read(path: str, num_classes: int) -> np.ndarray:
  """Reads the weights.

  Args:
    path: the file. A weight a line, one for each class in order; or lines
      "class,weight", of each class once at most, the others having weight 1.
      Empty lines are passed over.
    num_classes: int, C.

  Returns:
    float32 [C], finite, >= 0 and not all 0.

  Raises:
    program.UserError: no such file, or another content; it names the line.
  """
  if not tf.io.gfile.exists(path):
    raise program.UserError(f"--class_weights={path} does not exist.")
  try:
    with tf.io.gfile.GFile(path) as stream:
      text = stream.read()
  except UnicodeDecodeError as error:
    raise program.UserError(
      f"--class_weights={path} is no text: {error}."
    ) from None
  numbered = enumerate(map(str.strip, text.splitlines()), start=1)
  lines = [(number, line) for number, line in numbered if line]
  by_class = bool(lines) and "," in lines[0][1]
  weights: dict[int, float] = {}
  for number, line in lines:
    try:
      label, weight = _parse(line if by_class else f"{len(weights)},{line}")
      if label in weights:
        raise ValueError(f"class {label} has a weight above")
      if label >= num_classes:
        raise ValueError(f"class {label} of --num_classes={num_classes}")
    except ValueError as error:
      raise program.UserError(
        f"--class_weights={path}, line {number}: {error}."
      ) from None
    weights[label] = weight
  if not by_class and len(weights) != num_classes:
    raise program.UserError(
      f"--class_weights={path} has {len(weights)} weights for "
      f"--num_classes={num_classes}: give one a line, or lines 'class,weight'."
    )
  found = np.ones(num_classes, np.float32)
  found[list(weights)] = list(weights.values())
  if not found.any():
    raise program.UserError(f"--class_weights={path}: all weights are 0.")
  return found


def _parse(line: str) -> tuple[int, float]:
  """(class, weight) of a line "class,weight", or ValueError."""
  label, comma, text = line.partition(",")
  label = label.strip()
  try:
    weight = float(text)
  except ValueError:
    weight = np.nan
  is_class = label.isascii() and label.isdigit() and len(label) < 10
  if not (comma and is_class and 0.0 <= weight <= _MAX_WEIGHT):
    raise ValueError(
      "need a finite weight >= 0, with or without a class and a comma before "
      f"it, got {messages.short(line)}"
    )
  return int(label), weight
