"""XLA's step of training is the plain one's, on the CPU's XLA."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
from console import program
from tests import runs
from tests.models import building

# Of tiny code what takes least time to compile. XLA reads them once a process.
_FLAGS = (
  "--xla_backend_optimization_level=0",
  "--xla_cpu_parallel_codegen_split_count=1",
  "--xla_cpu_use_fusion_emitters=false",
)
_LENGTHS = [4, 1, 9]


@pytest.fixture(autouse=True, scope="module")
def _compiles_soon():
  with pytest.MonkeyPatch.context() as patch:
    given = os.environ.get("XLA_FLAGS", "")
    patch.setenv("XLA_FLAGS", " ".join([given, *_FLAGS]))
    yield


def _step(training, session, videos):
  """A step's label loss, the model's variables after it, types of what ran."""
  built, ran = training.built, tf.RunMetadata()
  loss, _ = session.run(
    [built.loss, built.step_fetches],
    {training.batch[name]: value for name, value in videos.items()},
    tf.RunOptions(output_partition_graphs=True),
    ran,
  )
  ops = {node.op for graph in ran.partition_graphs for node in graph.node}
  return loss, session.run(built.model_variables), ops


@pytest.mark.slow
@pytest.mark.parametrize("name", model_flags.model_names())
def test_a_compiled_step_is_the_plain_one(name):
  is_frame_level = model_flags.is_frame_level(name)
  values = building.values(
    name,
    # One, as a step of two compiles for twice as long.
    feature_names="rgb" if is_frame_level else "mean_rgb",
    feature_sizes=str(building.D),
    gating=False,
    # The mixture of experts is compiled as a model.
    video_level_classifier_model="LogisticModel",
  )
  config = runs.train_config(
    "not written",
    "not read",
    optimizer="GradientDescentOptimizer",
    base_learning_rate=1.0,
    clip_gradient_norm=0.0,
  )
  lengths = _LENGTHS if is_frame_level else [1] * len(_LENGTHS)
  videos = {
    "features": np.concatenate(building.stored(lengths)),
    "num_frames": lengths,
    "labels": np.random.default_rng(0).random([3, building.C]) < 0.5,
  }
  with building.Training(values, config) as training:
    variables = training.built.model_variables
    start = training.session.run(variables)
    loss, plain, ops = _step(training, training.session, videos)
    assert "Mul" in ops
    with tf.Session(
      graph=training.graph, config=program.session_config(xla=True)
    ) as session:
      session.run(
        [variable.initializer for variable in training.built.variables],
        {v.initial_value: value for v, value in zip(variables, start)},
      )
      compiled_loss, compiled, ops = _step(training, session, videos)
    assert "_XlaRun" in ops and "Mul" not in ops
  assert compiled_loss == pytest.approx(loss, rel=1e-5)
  # All variables together. Of one alone the two may differ by more than its
  # update: where batch norm has centred before, the mean of assignments is
  # rounding (6.0e-8 here, 3.8e-8 there). Gradients are 1e-6 apart, those of
  # SecondOrderModel 1e-5 to 1e-3: the slope of its signed square root is the
  # steeper the nearer a sum is to 0.
  update, apart = (
    np.concatenate([np.ravel(a - b) for a, b in zip(plain, others)])
    for others in (start, compiled)
  )
  assert np.linalg.norm(apart) < 1e-3 * np.linalg.norm(update)
