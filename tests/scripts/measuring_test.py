"""Tests of scripts/measuring.py."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from scripts import measuring


# As programs run: branches become part of the graph.
@pytest.mark.rewritten
def test_products_are_counted_where_they_ran_in_loops_and_branches():
  with tf.Graph().as_default(), tf.Session() as session:
    left = tf.placeholder(tf.float32, [None, 3])
    right = tf.ones([3, 7])
    once = tf.matmul(left, right)  # 2 * 5 * 3 * 7 of 5 rows
    batch = tf.tile(left[tf.newaxis], [4, 1, 1])
    squares = tf.matmul(batch, batch, transpose_a=True)  # 4 * 2 * 3 * 5 * 3
    _, found = tf.while_loop(
      lambda i, _: i < 6,
      lambda i, x: (i + 1, tf.matmul(x, tf.ones([7, 7]))),  # 6 * 2 * 5 * 7 * 7
      [0, once],
    )
    # The product of the branch that is not taken does not count.
    seen, all_seen = tf.nn.relu(left), tf.tile(left, [1, 2])
    chosen = tf.cond(
      tf.shape(left)[0] > 9,
      lambda: tf.reduce_sum(tf.matmul(seen, all_seen, transpose_a=True)),
      lambda: tf.reduce_sum(seen),
    )
    feed = {left: np.ones([5, 3])}
    trace = measuring.traced(session, [found, squares, chosen], feed)
  flops = measuring.count_flops(trace)
  assert flops == 2 * 5 * 3 * 7 + 4 * 2 * 3 * 5 * 3 + 6 * 2 * 5 * 7 * 7


@pytest.mark.parametrize(("spent", "rounds"), [(1.0, 7), (100.0, 3)])
def test_rounds_follow_the_budget(monkeypatch, spent, rounds):
  class Clock:
    now = 0.0

    def perf_counter(self):
      return self.now

  def run():
    clock.now += spent

  clock = Clock()
  monkeypatch.setattr(measuring, "time", clock)
  found = measuring.measure({"a": run, "b": lambda: 7.0}, 6.5 * spent)
  if spent == 100.0:
    found = measuring.measure({"a": run, "b": lambda: 7.0}, 0.0)
  # A variant may have timed itself.
  assert found == {"a": [spent] * rounds, "b": [7.0] * rounds}


def test_ratios_are_those_within_rounds():
  assert measuring.ratio([1.0, 10.0, 1.0], [2.0, 30.0, 4.0]) == 3.0
