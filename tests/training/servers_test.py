"""Tests of training/servers.py; sessions of several tasks run elsewhere."""

import pytest
import tensorflow.compat.v1 as tf

from training import servers


def memory():
  """Bytes of this process's addresses, and of what is in memory."""
  with open("/proc/self/status") as status:
    found = dict(line.split(":") for line in status)
  return [int(found[name].split()[0]) << 10 for name in ("VmSize", "VmRSS")]


def test_memory_is_fetched_in_one_piece_and_not_used():
  with tf.Graph().as_default():
    variables = [tf.get_variable(name, [1 << 28]) for name in "ab"]
    try:
      size, used = memory()
    except OSError:
      pytest.skip("No /proc.")
    servers.reserve_memory(variables)
    new_size, new_used = memory()
  # Both of a gigabyte, and as much again.
  assert new_size - size >= 4 << 30
  assert new_used - used < 1 << 28
