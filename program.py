"""What the programs share: how they start, and how they fail."""

import os
import sys

# Spares the user most of TensorFlow's own chatter. Read when TensorFlow is
# loaded: programs import this module first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow.compat.v1 as tf
import tqdm
from absl import app, flags, logging

import read_report

# Exit statuses, besides 0 for success.
FAILED = 1
INCOMPLETE = 3  # inference.py: rows written, but some records were unreadable.
STOPPED = 130  # By Ctrl-C, or by SIGTERM where that raises KeyboardInterrupt.


class UserError(Exception):
  """Something that the user can mend; its message says how."""


def run(main):
  """Parses flags, runs a program, and exits with its status.

  What a user can mend is shown as one line, without a traceback;
  --verbosity=1 shows it with one.

  Args:
    main: called without arguments; returns None or an exit status.
  """

  def guarded(argv):
    if len(argv) > 1:
      raise app.UsageError(
        f"Unexpected arguments {argv[1:]}: flags start with --, and a glob "
        "needs quotes, so that the shell leaves it alone."
      )
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.INFO)
    # TensorFlow's Python code says in its log what our own lines say.
    tf.logging.set_verbosity(tf.logging.ERROR)
    name = os.path.basename(sys.argv[0])
    try:
      return main()
    except KeyboardInterrupt as error:
      logging.flush()
      print(f"{name}: stopped by {str(error) or 'Ctrl-C'}.", file=sys.stderr)
      return STOPPED
    except (
      OSError,
      UserError,
      ValueError,
      read_report.StrictRecordError,
      tf.errors.OpError,
    ) as error:
      if logging.level_debug():
        raise
      logging.flush()
      print(f"{name}: error: {error}", file=sys.stderr)
      return FAILED

  app.run(guarded)


def session_config(num_cpus=1, log_device_placement=False, xla=False):
  """The session's configuration.

  Args:
    num_cpus: int, CPU devices, for towers on a machine without GPUs.
    log_device_placement: bool, log which device runs each operation.
    xla: bool, let XLA compile what it can.

  Returns:
    `tf.ConfigProto`.
  """
  config = tf.ConfigProto(
    allow_soft_placement=True,
    log_device_placement=log_device_placement,
    device_count={"CPU": num_cpus},
  )
  config.gpu_options.allow_growth = True
  if xla:
    config.graph_options.optimizer_options.global_jit_level = (
      tf.OptimizerOptions.ON_1
    )
  return config


def progress_bar(total, unit):
  """A progress bar on stderr; in a log file, a line now and then.

  Args:
    total: int, about how many there will be; 0 if unknown.
    unit: str, of what.

  Returns:
    `tqdm.tqdm`.
  """
  is_terminal = sys.stderr.isatty()
  return tqdm.tqdm(
    total=total or None,
    unit=f" {unit}",
    smoothing=0.05,
    mininterval=0.2 if is_terminal else 10.0,
  )
