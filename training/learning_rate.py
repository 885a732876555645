"""The learning rate as a function of the global step.

A schedule starts at the base rate; a warm-up multiplies whichever is chosen.
"""

import math

import tensorflow.compat.v1 as tf

SCHEDULES = ("exponential", "cosine")


def build(
  global_step,
  *,
  schedule,
  base_rate,
  batch_size,
  decay,
  decay_examples,
  total_steps,
  warmup_steps,
):
  """The rate of the update that follows `global_step` updates.

  With t = global_step:

  - "exponential", the starter code's stairs:
    base_rate * decay ** floor(t * batch_size / decay_examples).
  - "cosine", one period of Loshchilov & Hutter 2017 (arXiv:1608.03983, eq. 5
    with eta_min = 0): base_rate * (1 + cos(pi * t / total_steps)) / 2, and 0
    from total_steps on. The run's last update, t = total_steps - 1, is the
    last one to have a rate above 0.
  - The warm-up (Goyal et al. 2017, arXiv:1706.02677, section 2.2) multiplies
    by min(1, (t + 1) / warmup_steps). The schedule does not wait for its end.

  Args:
    global_step: int64 scalar, t.
    schedule: one of `SCHEDULES`.
    base_rate: float >= 0.
    batch_size: int, examples of one step, of all towers.
    decay: float >= 0; "exponential" alone reads it and decay_examples.
    decay_examples: float >= 1.
    total_steps: int >= 1, the step at which the run ends, or None if unknown;
      "cosine" alone reads it.
    warmup_steps: int; 0 for no warm-up.

  Returns:
    float32 scalar, >= 0.

  Raises:
    ValueError: no such schedule, or "cosine" without the run's end.
  """
  # Read once: schedule and warm-up are to be of one step.
  step = tf.convert_to_tensor(global_step)
  if schedule == "exponential":
    rate = tf.train.exponential_decay(
      base_rate, step * batch_size, decay_examples, decay, staircase=True
    )
  elif schedule == "cosine":
    rate = _cosine(step, base_rate, total_steps)
  else:
    raise ValueError(f"Unknown schedule {schedule!r}; there are {SCHEDULES}.")
  if warmup_steps:
    share = tf.cast(step + 1, tf.float64) / warmup_steps
    rate *= tf.cast(tf.minimum(share, 1.0), tf.float32)
  return rate


def _cosine(step, base_rate, total_steps):
  """float32 scalar, see `build`."""
  if not total_steps:
    raise ValueError(f"cosine needs total_steps >= 1, got {total_steps}.")
  left = tf.cast(tf.maximum(total_steps - step, 0), tf.float64) / total_steps
  # (1 + cos(pi x)) / 2 = sin(pi (1 - x) / 2)^2, which no rounding makes
  # negative, and which is 0 at the end to the last digit.
  share = tf.square(tf.sin(0.5 * math.pi * left))
  return tf.cast(base_rate * share, tf.float32)
