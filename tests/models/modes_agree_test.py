"""What a trained model predicts in evaluation is what it did in training."""

import pytest

import eval_util
import model_flags
from predictions import predictor
from tests import runs
from tests.models import building, walk_test

C = 20


def _gap(metrics):
  found = eval_util.EvaluationMetrics(C, C, None)
  found.accumulate_top_k(**metrics, loss=0.0)
  return found.get()["gap"]


# An older codebase had a GAP of 1.00 in training and 0.19 in evaluation after
# 800 steps. The learning rate falls, as it does in earnest: averages of a
# model that still moves fast lag behind it.
@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["NetVLADModelLF", "NeXtVLADModel", "DbofModel"]
)
def test_evaluates_as_it_trains_after_200_steps(name, tmp_path):
  values = runs.model_values(
    # No sampling: both modes see the same frames.
    **{**walk_test.VALUES, "model": name, "num_classes": C, "iterations": 0}
  )
  pattern = runs.write_data(
    tmp_path,
    feature_sizes=(walk_test.RGB, walk_test.AUDIO),
    num_videos=64,
    num_classes=C,
    labels_per_video=2.0,
    label_frames=0.4,
    noise=3.0,
  )
  _, videos = building.read(pattern, values)
  config = runs.train_config(
    tmp_path,
    pattern,
    batch_size=64,
    base_learning_rate=0.01,
    learning_rate_decay=0.8,
    learning_rate_decay_examples=640.0,
  )
  with building.Training(values, config) as training:
    for _ in range(200):
      training.step(videos)
    with training.graph.as_default():
      predictions = predictor.predict(
        model_flags.build_model(values), training.batch, C
      )
      evaluated = predictor.batch_metrics(
        predictions, training.batch["labels"], C
      )
    in_training, in_evaluation = (
      _gap(training.run(metrics, videos))
      for metrics in (training.built.metrics, evaluated)
    )
  assert in_training > 0.6  # It has learnt something.
  assert in_evaluation == pytest.approx(in_training, abs=0.02)
