"""Tests of training/collectives.py that need no other task."""

import pytest
import tensorflow.compat.v1 as tf

from training import collectives


@pytest.mark.parametrize(
  ("nccl", "device", "expected"),
  [
    (True, "/device:GPU:0", ("/device:GPU:0", 2, b"nccl")),
    (True, "/device:GPU:3", ("/device:GPU:3", 5, b"nccl")),
    (True, "/device:CPU:0", ("/device:CPU:0", 1, b"ring")),
    (False, "/device:GPU:3", ("/device:CPU:0", 1, b"ring")),
  ],
)
def test_nccl_sums_what_lies_on_gpus(nccl, device, expected):
  group = collectives.Group(2, 1)
  group.nccl = nccl
  with tf.Graph().as_default():
    op = group.sum(tf.zeros([3]), device).op
  names = ("group_key", "communication_hint")
  assert (op.device, *map(op.get_attr, names)) == expected


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ((True, True, 1), ""),
    ((True, True, 2), "failed twice"),
    ((False, True, 1), "as of --nonccl"),
    ((False, False, 1), "no GPU"),
  ],
)
def test_the_log_says_why_it_is_not_nccl(arguments, expected):
  found = collectives.why_not_nccl(*arguments)
  assert expected in found and bool(found) == bool(expected)
