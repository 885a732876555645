"""What tf-slim is without the line in pooling/slim_compat.py, and with it."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling.slim_compat import slim


def _run(lines):
  """A Python of its own: importing slim_compat mends all of this one."""
  return subprocess.run(
    [sys.executable, "-c", textwrap.dedent(lines)],
    capture_output=True,
    text=True,
    timeout=120,
  )


@pytest.mark.slow
def test_batch_norm_fails_without_the_line():
  result = _run(
    """
    import tensorflow.compat.v1 as tf
    import tf_slim as slim
    with tf.Graph().as_default():
      slim.batch_norm(tf.zeros([2, 3]))
    """
  )
  assert result.returncode != 0
  last = result.stderr.strip().splitlines()[-1]
  # If this fails, tf-slim has mended itself: pooling/slim_compat.py can go.
  assert last.startswith("AttributeError")
  assert "'Tensor'" in last


@pytest.mark.parametrize("is_training", [True, False])
def test_batch_norm_works_with_the_line(is_training):
  rows = np.random.RandomState(0).randn(5, 3).astype(np.float32)
  with tf.Graph().as_default(), tf.Session() as session:
    outputs = slim.batch_norm(
      tf.constant(rows), is_training=is_training, epsilon=0.001
    )
    session.run(tf.global_variables_initializer())
    actual = session.run(outputs)
  for d in range(3):
    column = rows[:, d]
    # The averages start at 0 and 1.
    mean = sum(column) / 5 if is_training else 0.0
    variance = sum((x - mean) ** 2 for x in column) / 5 if is_training else 1.0
    for n in range(5):
      expected = (column[n] - mean) / (variance + 0.001) ** 0.5
      assert actual[n, d] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_learning_can_be_imported_with_the_line():
  assert callable(slim.learning.create_train_op)


def test_layers_that_need_no_mending_work():
  with tf.Graph().as_default(), tf.Session() as session:
    outputs = slim.fully_connected(
      tf.ones([2, 3]), 4, weights_initializer=tf.ones_initializer()
    )
    session.run(tf.global_variables_initializer())
    assert session.run(outputs).tolist() == [[3.0] * 4] * 2
