"""XLA's step of training is the plain one's, on the CPU's XLA."""

import numpy as np
import pytest

from tests import runs
from tests.models import building, walk_test


def _step(name, videos, start, xla):
  """(label loss, {name: value} of the variables) after a step.

  Args:
    name: str, a model.
    videos: {name: array}.
    start: {name: value} of the variables before; filled if it is empty.
    xla: bool.
  """
  changes = {"model": name, "frame_sampling": "uniform"}
  level = {} if name != "MoeModel" else runs.VIDEO_LEVEL
  values = runs.model_values(**{**walk_test.VALUES, **changes, **level})
  config = runs.train_config(
    "not written",
    "not read",
    optimizer="GradientDescentOptimizer",
    base_learning_rate=1.0,
    clip_gradient_norm=0.0,
    xla=xla,
  )
  with building.Training(values, config) as training:
    variables = {v.op.name: v for v in training.built.model_variables}
    if not start:
      start |= training.session.run(variables)
    with training.graph.as_default():
      for key, variable in variables.items():
        variable.load(start[key], training.session)
    loss, _ = training.step(videos)
    return loss, training.session.run(variables)


# Each compiles for seconds. Of all models these hold: a loop, products of
# ragged frames, neither.
@pytest.mark.slow
@pytest.mark.rewritten  # It is when XLA finds its parts.
@pytest.mark.parametrize("name", ["MoeModel", "NetVLADModelLF", "GruModel"])
def test_a_compiled_step_is_the_plain_one(name):
  videos = walk_test.random_batch(name != "MoeModel", [4, 1, 9])
  start = {}
  (loss, plain), (compiled_loss, compiled) = (
    _step(name, videos, start, xla) for xla in (False, True)
  )
  assert compiled_loss == pytest.approx(loss, rel=1e-5)
  update, apart = (
    np.concatenate([np.ravel(plain[key] - values[key]) for key in plain])
    for values in (start, compiled)
  )
  # Of the gradient, which is the update.
  assert np.linalg.norm(apart) < 1e-4 * np.linalg.norm(update)
