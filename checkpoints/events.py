"""TensorBoard's files."""

import contextlib
import time

import tensorflow.compat.v1 as tf

from console import messages

# Their names: a regular expression. They end in a host's name; copies made by
# hand are not ours.
FILES = r"events\.out\.tfevents\.\d+\.[\w.-]+(?<!\.(bak|old))"


def scalar_summary(values):
  """A `tf.Summary` of a dict of tag to number."""
  return tf.Summary(
    value=[
      tf.Summary.Value(tag=tag, simple_value=float(value))
      for tag, value in values.items()
    ]
  )


def common(values, kind=""):
  """Scalars under the tags that training and evaluation share.

  So that TensorBoard shows both in one chart; their own, older tags stand
  beside these.

  Args:
    values: dict of `GAP`, `MAP`, `Hit@1`, `PERR`, `loss`, or some of them, to
      number.
    kind: str, of the data: "", or "-segments", or as `evaluations.kind_of`.

  Returns:
    dict of tag to number.
  """
  return {f"{name}{kind}": value for name, value in values.items()}


class EventWriter:
  """Writes TensorBoard's file of a directory."""

  def __init__(self, directory, graph=None):
    """Opens the file.

    Args:
      directory: str, made if need be.
      graph: `tf.Graph` to show, or None.

    Raises:
      OSError: here and below: the file can't be written, the disk being full
        for instance.
    """
    # TensorFlow's name has the second: a run that begins in the same one would
    # replace the file. Of two in a second, the later comes later by name.
    suffix = f".{time.time_ns() % 10**9:09d}"
    with _telling_the_cause():
      self._writer = tf.summary.FileWriter(
        directory, graph=graph, filename_suffix=suffix
      )

  def add_summary(self, summary, step=None):
    """Adds a `tf.Summary`, serialised or not."""
    with _telling_the_cause():
      self._writer.add_summary(summary, step)

  def flush(self):
    """Writes out what was added."""
    with _telling_the_cause():
      self._writer.flush()

  def close(self):
    """Writes out what was added, and ends."""
    with _telling_the_cause():
      self._writer.close()


@contextlib.contextmanager
def _telling_the_cause():
  """Makes an OSError of what a `tf.summary.FileWriter` raises."""
  try:
    yield
  except (IndexError, RuntimeError, tf.errors.OpError) as error:
    # Its thread raises whatever Python type is nearest.
    raise OSError(messages.cause(str(error))) from None
