"""Keeps TensorFlow's greetings off the terminal.

What its C++ says of processor and GPUs goes to the process's stderr, and while
the libraries are loaded and GPUs are looked for, it heeds no
TF_CPP_MIN_LOG_LEVEL (as of TensorFlow 2.21).
"""

import contextlib
import os
import subprocess

# Informations and warnings, plugins that are registered twice, and the missing
# driver of a machine without a GPU. Other errors stay, and fatal ones: they say
# why the process is about to end.
_GREETINGS = (
  r"^WARNING: All log messages before absl::InitializeLog"
  r"|^[IW][0-9]{4} .*\.cc:[0-9]+\] "
  r"|^To enable the following instructions: "
  r"|^[0-9: .-]+ [IW] .*\.cc:[0-9]+\] "
  r"|\.cc:[0-9]+\] Unable to register cu"
  r"|\.cc:[0-9]+\] failed call to cuInit: .*(ERROR \(303\)|NO_DEVICE)"
)


@contextlib.contextmanager
def without_keras():
  """TensorFlow, loaded within, leaves Keras: 0.05 GB, a fifth of the time.

  Nothing here uses it. Who does, beside our modules, still gets his own.
  """
  name = "TF_USE_LEGACY_KERAS"
  if name in os.environ:
    yield
    return
  os.environ[name] = "1"
  try:
    yield
  finally:
    del os.environ[name]


@contextlib.contextmanager
def hushed():
  """Leaves greetings out of what this process says on stderr meanwhile.

  Another process reads along, so that what is said last before a crash is
  seen. TF_CPP_MIN_LOG_LEVEL=0 shows everything.
  """
  # TensorFlow reads it when it is loaded.
  level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  try:
    if level in ("0", "1"):
      raise OSError
    own = os.dup(2)
    reading, writing = os.pipe()
    reader = subprocess.Popen(
      ["grep", "--line-buffered", "-vE", _GREETINGS],
      stdin=reading,
      stdout=own,
    )
  except OSError:  # No stderr, or no grep, or not wanted.
    yield
    return
  os.close(reading)
  os.dup2(writing, 2)
  os.close(writing)
  try:
    yield
  finally:
    os.dup2(own, 2)
    os.close(own)
    reader.wait()
