"""The paper's models through the programs: their open ends."""

import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
from console import flag_fields
from models import registry
from tests import layers, runs

_OPEN_ENDS = {
  "sketch": {
    "model": "SecondOrderModel",
    "second_order_sketch_size": 9,
    "second_order_cluster_size": "3",
    "whitening_group_size": 2,
    "democratic_weights": True,
    "orthogonality_penalty": 0.1,
    "coding_penalty": 0.1,
    "locality_penalty": 0.1,
    "descriptor_dropout": 0.1,
    "ema_decay": 0.9,
    "label_smoothing": 0.1,
    "learning_rate_schedule": "cosine",
    "learning_rate_warmup_steps": 3,
  },
  "similarities": {
    "model": "AttentionNetVLADModel",
    "cluster_similarity": "relu",
    "attention_batch_norm": "logits",
    "attention_dropout": 0.1,
    "transformer_head_size": 3,
    "democratic_weights": True,
    "democratic_gradients": True,
    "democratic_projection_size": 4,
  },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _OPEN_ENDS)
def test_open_ends_train_on_two_towers_and_evaluate(name, tmp_path):
  pattern = runs.write_data(tmp_path / "data")
  runs.run_train(
    tmp_path / "model",
    pattern,
    num_towers=2,
    max_steps=2,
    base_learning_rate=0.02,
    # Two features would be twice the graph.
    feature_names="rgb",
    feature_sizes=str(runs.SIZES["rgb"]),
    **_OPEN_ENDS[name],
  )
  assert runs.run_eval(tmp_path / "model", pattern)["num_videos"] == 12

  events = runs.events(tmp_path / "model")
  terms = {
    kind: events[f"reg_loss/{kind}"][2]
    for kind in ("orthogonality", "coding", "locality")
    if f"reg_loss/{kind}" in events
  }
  if name == "sketch":
    assert len(terms) == 3 and min(terms.values()) > 0.0
    # The rest is the mixture of experts' own.
    assert sum(terms.values()) <= events["reg_loss"][2] * (1.0 + 1e-6)
  else:
    assert not terms


def test_second_order_terms_lose_nothing_by_a_mean_far_from_zero():
  """Batch norm takes it off before anything is squared."""
  values = runs.model_values(
    model="SecondOrderModel",
    frame_features=True,
    feature_names="rgb",
    feature_sizes="16",
    netvlad_cluster_size="4",
  )
  # Whole numbers, so that adding another rounds nothing.
  frames = np.random.RandomState(0).randint(-4, 5, size=[4, 20, 16])
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.placeholder(tf.float32, [None, None, 16])
    outputs = model_flags.build_model(values).create_model(
      inputs, 3, num_frames=tf.constant([20] * 4), is_training=True
    )
    descriptor = outputs["descriptor"]
    layers.randomize(session)
    near, far = (
      session.run(descriptor, {inputs: frames + mean}) for mean in (0.0, 2e3)
    )
  assert np.linalg.norm(far - near) < 1e-4 * np.linalg.norm(near)


@pytest.mark.parametrize(
  ("saved", "expected"),
  [
    ({}, {1: 1, 50: 25, 100: 50, 128: 64, 1024: 64}),
    # The default of earlier trainings, whose checkpoints have such shapes.
    ({"second_order_projection_size": 0}, {3: 1, 50: 12, 128: 32, 1024: 64}),
    ({"second_order_projection_size": 16}, {3: 3, 16: 16, 1024: 16}),
  ],
)
def test_features_are_projected_as_a_train_dir_says(saved, expected, tmp_path):
  saved = {"model": "SecondOrderModel", **saved}
  (tmp_path / model_flags.FILE_NAME).write_text(json.dumps(saved))
  values = model_flags.load(str(tmp_path))
  config_class = registry.get("SecondOrderModel").Config
  config = flag_fields.from_values(config_class, values)
  found = {depth: config.projection_size(depth) for depth in expected}
  assert found == expected
