"""Tests for the models that pool around centres: what they build.

Their values against loops, sampling and padding are tested in
frame_level_models_test.py, training in models_walk_test.py.

Axes: B videos, T frames, D features, K centres, C classes.
"""

import pytest
import tensorflow.compat.v1 as tf

import model_flags
from tests import graphs, runs

B, T, K, D, C = 2, 64, 32, 256, 5

# Each model, and what the paper left open switched on, where it could matter.
_BUILT = {
  "NetVLADModelLF": {},
  "NetVLADModelLF democratic": {
    "democratic_weights": True,
    "democratic_gradients": True,
  },
  "NetVLADModelLF penalised": {
    "orthogonality_penalty": 1.0,
    "coding_penalty": 1.0,
    "locality_penalty": 1.0,
  },
  "AttentionEnhancedNetVLADModel": {},
  "AttentionEnhancedNetVLADModel logits": {
    "attention_batch_norm": "logits",
    "attention_dropout": 0.1,
  },
  "AttentionNetVLADModel": {},
  "AttentionNetVLADModel relu": {
    "cluster_similarity": "relu",
    "democratic_weights": True,
  },
  "SecondOrderModel": {},
  # Fewer centres than features in a group.
  "SecondOrderModel few centres": {
    "netvlad_cluster_size": "8",
    "second_order_cluster_size": "8",
    "second_order_projection_size": 32,
  },
  "SecondOrderModel diagonal": {"residual_whitening": "diagonal"},
  "SecondOrderModel unwhitened": {"residual_whitening": "none"},
  "SecondOrderModel democratic": {
    "democratic_weights": True,
    "democratic_gradients": True,
    "democratic_projection_size": 16,
  },
  "SecondOrderModel sketched": {
    "second_order_sketch_size": 2048,
    "second_order_cluster_size": str(K),
    "democratic_weights": True,
  },
}


@pytest.mark.parametrize("name", _BUILT)
def test_no_tensor_is_as_large_as_the_residuals(name):
  values = runs.model_values(
    **{
      "model": name.split()[0],
      "feature_names": "rgb",
      "feature_sizes": str(D),
      "netvlad_cluster_size": str(K),
      **_BUILT[name],
    }
  )
  num_centres = int(values["netvlad_cluster_size"])
  model = model_flags.build_model(values)
  with tf.Graph().as_default() as graph:
    result = model.create_model(
      tf.placeholder(tf.float32, [B, T, D]),
      C,
      num_frames=tf.constant([T, T - 1]),
      is_training=True,
    )
    terms = result.get("regularization_losses", {}).values()
    loss = tf.reduce_sum(result["predictions"] ** 2) + sum(terms)
    gradients = tf.gradients(loss, tf.trainable_variables())
    assert None not in gradients
    known, unknown = graphs.sizes(graph)
  # Loops' stacks are handles, their conditions have arguments that they don't
  # look at, and batch norm's kernel keeps something for itself on a GPU.
  unknown = [
    tensor
    for tensor in unknown
    if tensor.dtype not in (tf.variant, tf.resource)
    and "redundant_placeholder" not in tensor.name
  ]
  kinds = {tensor.op.type for tensor in unknown}
  assert kinds <= {"FusedBatchNormV3", "ZerosLike"}, unknown
  largest = max(known, key=known.get)
  assert known[largest] < B * T * num_centres * D, (largest, known[largest])


@pytest.mark.parametrize(
  ("model", "changes", "message"),
  [
    (
      "AttentionNetVLADModel",
      {"transformer_residual": "post_norm", "netvlad_cluster_size": "4,2"},
      r"post_norm needs 3 centres .*--netvlad_cluster_size gives \[4, 2\]",
    ),
  ],
)
def test_refuses(model, changes, message):
  with pytest.raises(ValueError, match=message):
    model_flags.build_model(runs.model_values(model=model, **changes))
