"""What the programs share: how they start, how they stop, how they fail."""

import contextlib
import functools
import os
import signal
import socket
import sys
import threading

import tqdm
from absl import app, flags, logging

from console import native_log

# Programs import this module first, so that TensorFlow is loaded here.
with (
  native_log.without_keras(),
  contextlib.nullcontext()
  if "tensorflow" in sys.modules
  else native_log.hushed(),
):
  import tensorflow.compat.v1 as tf

from console import flag_help, messages

# Exit statuses, besides 0 for success.
FAILED = 1
INCOMPLETE = 3  # inference.py: rows written, but some records were unreadable.
_BY_SIGNAL = 128  # Plus the signal's number, as in shells.
STOPPED = _BY_SIGNAL + signal.SIGINT  # By Ctrl-C.

# Longer than any message of ours; what a hostile file makes longer is cut.
_MAX_MESSAGE = 10000


class UserError(Exception):
  """Something that the user can mend; its message says how."""


def no_video(report, paths, flag, wanted="usable"):
  """What to raise where files hold no video.

  Args:
    report: `ReadReport` of records/report.py, of their reading.
    paths: list of str, the files.
    flag: str, that names them.
    wanted: str, what was looked for.

  Returns:
    UserError.
  """
  return UserError(
    f"No {wanted} video in the {len(paths)} files of {flag}: "
    f"{report.summary()}. " + " ".join(report.problems()[:1])
  )


# What a user can mend.
_TOLD = (
  MemoryError,
  OSError,
  UserError,
  ValueError,
  tf.errors.OpError,
)


def run(
  main, stops_on=(signal.SIGINT,), takes_arguments=False, expand=lambda x: x
):
  """Parses flags, runs a program, and exits with its status.

  What a user can mend is shown as one line, without a traceback;
  --verbosity=1 shows it with one. `flag_help` shows --help.

  Args:
    main: called without arguments; returns None or an exit status.
    stops_on: signals that interrupt main; a second one ends the program at
      once, wherever it is. () for a main that catches KeyboardInterrupt itself.
    takes_arguments: bool, call main with the list of the command line's words
      that are no flags, which are refused otherwise.
    expand: function of the command line, which returns another in its place.
  """

  def guarded(argv):
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.INFO)
    # TensorFlow's Python code says in its log what our own lines say, and of an
    # error what it then raises.
    tf.logging.set_verbosity(tf.logging.FATAL)
    threading.excepthook = _tell_thread_failure
    # A program in the background may have been told to ignore Ctrl-C.
    heard = [n for n in stops_on if signal.getsignal(n) != signal.SIG_IGN]
    interrupts = Signals(heard, "ending", signal.default_int_handler)
    try:
      with interrupts:
        if takes_arguments:
          return main(argv[1:])
        if len(argv) > 1:
          raise UserError(
            f"Unexpected arguments {argv[1:]}: flags start with --, and a glob "
            "needs quotes, so that the shell leaves it alone."
          )
        return main()
    except (Exception, KeyboardInterrupt) as error:
      # A call of TensorFlow's that was interrupted raises whatever it likes.
      if interrupts.name or isinstance(error, KeyboardInterrupt):
        # A second one ends the program at once, also while Python shuts down.
        for each in heard:
          signal.signal(each, signal.SIG_DFL)
        return _tell_stop(signal.Signals[interrupts.name or "SIGINT"])
      if logging.level_debug() or not isinstance(error, _TOLD):
        raise
      return _tell_failure(error)

  def parse(argv):
    words = flag_help.parse(expand(argv))
    # Else TensorFlow looks for them when absl starts, aloud.
    gpus()
    return words

  app.run(guarded, flags_parser=parse)


def _tell_stop(number):
  """Says which signal ended the program: its exit status."""
  name = "Ctrl-C" if number == signal.SIGINT else number.name
  say(f"stopped by {name}.")
  return _BY_SIGNAL + number


def _tell_failure(error):
  """Says in a line what the user can mend: the exit status."""
  logging.flush()
  text = str(error) or "out of memory"  # Python's own says nothing.
  if isinstance(error, tf.errors.OpError):
    text = messages.cause(text)
  say(f"error: {messages.cut(text, _MAX_MESSAGE)}")
  return FAILED


def say(text):
  """Shows a line of the program's own, beside the log."""
  print(f"{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr)


def _tell_thread_failure(args):
  """Shows what ended a thread, unless another thread is told and will."""
  # TensorBoard's writer hands its failure to whoever writes next.
  if args.thread is None or args.thread.name != "EventLoggerThread":
    threading.__excepthook__(args)


class Signals:
  """Answers signals at once, whatever the main thread is doing.

  Python's own handlers run between two steps of the main thread, which may be
  in TensorFlow for ever, say to read from a file system that stalls. So a
  thread hears of each signal: it logs the first, and at the second it ends the
  process.

  Attributes:
    name: str, the first signal's name; None as long as there was none.
  """

  def __init__(self, numbers, intention, handler):
    """Keeps what to do.

    Args:
      numbers: list of signals to answer.
      intention: str, what the first one leads to, for the log: "ending".
      handler: Python's handler of each, which the main thread runs when it can;
        it need not do anything.
    """
    self.name = None
    self._numbers = numbers
    self._intention = intention
    self._handler = handler

  def __enter__(self):
    self._heard, self._told = socket.socketpair()
    self._told.setblocking(False)
    self._old_descriptor = signal.set_wakeup_fd(self._told.fileno())
    self._old_handlers = {
      number: signal.signal(number, self._handler) for number in self._numbers
    }
    self._thread = threading.Thread(target=self._listen, daemon=True)
    self._thread.start()
    return self

  def __exit__(self, *unused_exc_info):
    for number, handler in self._old_handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._old_descriptor)
    self._told.close()
    self._thread.join()
    self._heard.close()

  def _listen(self):
    """Reads the numbers of signals, a byte each, until there is no sender."""
    while byte := self._heard.recv(1):
      number = signal.Signals(byte[0])
      if number not in self._numbers:
        continue
      if self.name:
        os._exit(_BY_SIGNAL + number)
      self.name = number.name
      logging.info(
        "%s: %s; a second one ends the program at once.",
        self.name,
        self._intention,
      )


@functools.cache
def gpus():
  """The machine's GPUs, looked for once and quietly: list of devices."""
  with native_log.hushed():
    return tf.config.list_physical_devices("GPU")


def session_config(num_cpus=1, log_device_placement=False, xla=False):
  """The session's configuration.

  Args:
    num_cpus: int, CPU devices, for towers on a machine without GPUs.
    log_device_placement: bool, log which device runs each operation.
    xla: bool, let XLA compile what it can, on a CPU too.

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
    options = config.graph_options.optimizer_options
    options.global_jit_level = tf.OptimizerOptions.ON_1
    options.cpu_global_jit = True
  return config


def progress_bar(total, unit, **options):
  """A progress bar on stderr; in a log file, a line now and then.

  On a terminal, what is logged from now on stands above the bars.

  Args:
    total: int, about how many there will be; 0 if unknown.
    unit: str, of what.
    **options: further ones of tqdm's.

  Returns:
    `tqdm.tqdm`.
  """
  is_terminal = sys.stderr.isatty()
  handler = logging.get_absl_handler().python_handler
  if is_terminal and handler.stream is sys.stderr:
    handler.setStream(_AboveBars())
  return tqdm.tqdm(
    total=total or None,
    unit=f" {unit}",
    # Some terminals, as of containers, do not know their width.
    dynamic_ncols=_has_width(),
    ncols=None if _has_width() or not is_terminal else 80,
    mininterval=0.2 if is_terminal else 10.0,
    **{"smoothing": 0.05, **options},
  )


def _has_width():
  """Whether stderr is a terminal that knows its width."""
  try:
    return os.get_terminal_size(sys.stderr.fileno()).columns > 0
  except (OSError, ValueError):  # No terminal, or no file.
    return False


class _AboveBars:
  """A terminal's stderr, of which progress bars keep the last line."""

  def write(self, text):
    """Writes text that ends with a newline, or is empty."""
    if text:
      tqdm.tqdm.write(text, file=sys.stderr, end="")

  def flush(self):
    """Nothing is kept."""

  def isatty(self):
    """Whether it is a terminal, which nobody closes."""
    return True
