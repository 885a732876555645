"""Tests of training/learning_rate.py, against Python loops over the steps."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from training import learning_rate

BASE, BATCH = 0.3, 7
DECAY, DECAY_EXAMPLES = 0.5, 20.0
END = 11


def rates(steps, **changes):
  """float32 array of the rate at each step."""
  arguments = {
    "schedule": "exponential",
    "base_rate": BASE,
    "batch_size": BATCH,
    "decay": DECAY,
    "decay_examples": DECAY_EXAMPLES,
    "total_steps": END,
    "warmup_steps": 0,
    **changes,
  }
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    rate = learning_rate.build(step, **arguments)
    assert rate.dtype == tf.float32
    assert rate.shape.as_list() == []
    return np.array([session.run(rate, {step: n}) for n in steps])


def stairs(step):
  """Multiplies each time another 20 examples are over."""
  rate, left = BASE, step * BATCH
  while left >= DECAY_EXAMPLES:
    rate *= DECAY
    left -= DECAY_EXAMPLES
  return rate


def cosine(step):
  """Eq. 5 of arXiv:1608.03983 with eta_min = 0 and T_i = 11."""
  if step > END:
    return 0.0
  return 0.5 * BASE * (1 + math.cos(math.pi * step / END))


SCHEDULES = {"exponential": stairs, "cosine": cosine}


@pytest.mark.parametrize("schedule", learning_rate.SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 1, 4, END + 3])
def test_matches_python(schedule, warmup_steps):
  steps = range(END + 5)
  expected = []
  for step in steps:
    rate = SCHEDULES[schedule](step)
    if step + 1 < warmup_steps:
      rate = rate * (step + 1) / warmup_steps
    expected.append(rate)
  found = rates(steps, schedule=schedule, warmup_steps=warmup_steps)
  np.testing.assert_allclose(found, expected, 1e-5, 1e-7 * BASE)


def test_cosine_is_the_base_rate_first_and_zero_from_the_end_on():
  found = rates([0, END - 1, END, END + 1, 10**12], schedule="cosine")
  assert found[0] == np.float32(BASE)
  assert found[1] > 0
  assert found[2:].tolist() == [0.0, 0.0, 0.0]


def test_cosine_of_a_long_run_never_rises_nor_falls_below_zero():
  # Close to the end 1 + cos differs from 0 by less than float32 tells.
  end = 270000
  found = rates(range(end - 60, end + 3), schedule="cosine", total_steps=end)
  assert (np.diff(found) <= 0).all()
  assert (found[:60] > 0).all()
  assert found.min() == 0.0


def test_warmup_grows_linearly_and_ends_at_the_schedule():
  # Without decay: a quarter, a half, three quarters, all, and no more.
  found = rates(range(6), decay=1.0, warmup_steps=4)
  np.testing.assert_allclose(
    found / BASE, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1], rtol=1e-6
  )


def test_reads_a_variable_as_it_is_when_the_rate_is():
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.train.get_or_create_global_step()
    rate = learning_rate.build(
      step,
      schedule="cosine",
      base_rate=1.0,
      batch_size=1,
      decay=1.0,
      decay_examples=1.0,
      total_steps=2,
      warmup_steps=0,
    )
    session.run(step.initializer)
    found = []
    for _ in range(3):
      found.append(session.run(rate))
      session.run(tf.assign_add(step, 1))
  assert found == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize("total_steps", [None, 0])
def test_cosine_needs_the_end(total_steps):
  with pytest.raises(ValueError, match=f"total_steps >= 1, got {total_steps}"):
    rates([0], schedule="cosine", total_steps=total_steps)
  # The stairs go on for ever.
  assert rates([0], total_steps=total_steps) == [np.float32(BASE)]


def test_an_unknown_schedule_is_told_with_those_there_are():
  with pytest.raises(ValueError, match="'linear'.*exponential.*cosine"):
    rates([0], schedule="linear")
