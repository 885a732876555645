"""Walks the registered models.

Each is counted, split over towers, trained until it has learnt a few videos,
evaluated, inferred and exported. To add a model, add its number of parameters
to `PARAMETERS`. What holds for frame-level models is in frame_walk_test.py.

Axes: B videos, D features, C classes.
"""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import eval_util
import losses
import model_flags
import predictor
import readers
import submission
from tests import layers, runs
from training import placement, towers

RGB, AUDIO, C = 16, 6, 5
D = RGB + AUDIO
CENTRES, CLUSTERS, HIDDEN, GROUPS = 4, 9, 8, 4
LINKS, LINK_UNITS = 2, 3
HEAD, SECOND_CENTRES, PROJECTION = 4, 8, 7
WIDTH, QUERIES, POINTS, ROWS = 8, 2, 3, 5

VALUES = {
  "feature_sizes": f"{RGB},{AUDIO}",
  "num_classes": C,
  "iterations": 7,
  "netvlad_cluster_size": str(CENTRES),
  "netvlad_hidden_size": HIDDEN,
  "dbof_cluster_size": CLUSTERS,
  "dbof_hidden_size": HIDDEN,
  "fv_cluster_size": str(CENTRES),
  "fv_hidden_size": HIDDEN,
  "lstm_cells": HIDDEN,
  "gru_cells": HIDDEN,
  "gating": True,
  "descriptor_dropout": 0.0,
  "nextvlad_cluster_size": str(CENTRES),
  "nextvlad_hidden_size": HIDDEN,
  "groups": GROUPS,
  "moe_prob_gating": True,
  "deep_chain_layers": LINKS,
  "deep_chain_relu_cells": LINK_UNITS,
  "transformer_head_size": HEAD,
  "transformer_feed_forward_factor": 2,
  "attention_size": WIDTH,
  "attention_queries": QUERIES,
  "pma_inducing_points": POINTS,
  "pma_frame_blocks": 1,
  "pma_seed_blocks": 1,
  "boq_layers": 1,
  "boq_row_size": ROWS,
  "whitening_group_size": 4,
  "second_order_cluster_size": str(SECOND_CENTRES),
  "second_order_projection_size": PROJECTION,
}


def batch_norm(size):
  return 2 * size  # beta and gamma


def moe(size):
  """Two experts and the dummy's gate, no bias at the gates; their own gates."""
  experts = 2 * C * (size + 1)
  return experts + 3 * C * size + C * C + batch_norm(C)


def netvlad(size, centres):
  """Assignments and centres."""
  return 2 * size * centres + batch_norm(centres)


def nextvlad(size, centres, groups):
  """Of a feature, expanded twice, with the batch norm of its descriptor."""
  width = 2 * size
  descriptor = centres * (width // groups)
  parameters = (
    (size * width + width)
    + (width * groups + groups)
    + (width * groups * centres + batch_norm(groups * centres))
    + descriptor  # As many numbers as the centres have.
    + batch_norm(descriptor)
  )
  return parameters, descriptor


def encoder(size, output_size=None):
  """Attention, inner layer of twice the size, two layer norms, their gains."""
  heads = max(1, size // HEAD) * HEAD
  gains = 1 if output_size else 2
  output_size = output_size or size
  return (
    gains
    + size * 3 * heads
    + batch_norm(3 * heads)
    + heads * size
    + batch_norm(size)
    + 2 * size
    + size * 2 * size
    + 2 * size
    + 2 * size * output_size
    + output_size
    + 2 * size
  )


def linear(size, units):
  return (size + 1) * units


def attention_clusters(size, clusters):
  """Scores, and two numbers that shift each unit."""
  return size * clusters + batch_norm(clusters) + 2 * clusters


def attention(queries=WIDTH, tokens=WIDTH):
  """Projections to queries, to keys and values, and of what was found."""
  return (
    linear(queries, WIDTH) + linear(tokens, 2 * WIDTH) + linear(WIDTH, WIDTH)
  )


def block(queries=WIDTH, tokens=WIDTH):
  """Attention and two layer norms: a Set Transformer's."""
  return attention(queries, tokens) + 4 * WIDTH


def induced(size):
  """Inducing points that look at tokens, and tokens that look back."""
  return POINTS * WIDTH + block(WIDTH, size) + block(size, WIDTH)


def feed_forward():
  return linear(WIDTH, 2 * WIDTH) + linear(2 * WIDTH, WIDTH)


def second_order(size, centres, second_centres):
  """Of a feature, and the size of its descriptor."""
  projected = min(PROJECTION, size)
  parameters = (
    netvlad(size, centres)
    + size * projected
    + netvlad(projected, second_centres)
  )
  descriptor = centres * (1 + size)
  descriptor += second_centres * (1 + projected * (projected + 1) // 2)
  return parameters, descriptor


def pooled(parameters, descriptor):
  """Input, pooling, hidden layer, its gates, classifier."""
  return (
    batch_norm(D)
    + parameters
    + (descriptor * HIDDEN + batch_norm(HIDDEN))
    + (HIDDEN * HIDDEN + batch_norm(HIDDEN))
    + moe(HIDDEN)
  )


def bag(parameters, descriptor):
  """`pooled` without gates."""
  return pooled(parameters, descriptor) - HIDDEN * HIDDEN - batch_norm(HIDDEN)


def units(size, clusters):
  """Of a layer on frames."""
  return size * clusters + batch_norm(clusters)


def lstm(size, cells):
  """Four gates of a frame, the state and a constant."""
  return 4 * cells * (size + cells + 1)


def gru(size, cells):
  """Two gates and the candidate, likewise."""
  return 3 * cells * (size + cells + 1)


# Of a bag: an eighth of the widest feature's for the others.
UNITS = units(RGB, CLUSTERS) + units(AUDIO, CLUSTERS // 8)
BAG = CLUSTERS + CLUSTERS // 8


def probed(parameters):
  """Input, pooling, logistic regression."""
  return batch_norm(D) + parameters + linear(QUERIES * WIDTH, C)


VLAD_RGB, VLAD_AUDIO = RGB * CENTRES, AUDIO * (CENTRES // 4)
NEXT_RGB = nextvlad(RGB, CENTRES, GROUPS)
NEXT_AUDIO = nextvlad(AUDIO, CENTRES // 2, GROUPS // 2)
SECOND_RGB = second_order(RGB, CENTRES, SECOND_CENTRES)
SECOND_AUDIO = second_order(AUDIO, CENTRES // 4, SECOND_CENTRES // 4)

NEXTVLAD = (
  NEXT_RGB[0]
  + NEXT_AUDIO[0]
  + ((NEXT_RGB[1] + NEXT_AUDIO[1]) * HIDDEN + batch_norm(HIDDEN))
  # HIDDEN / 8 units of the gates' bottleneck.
  + (HIDDEN * 1 + batch_norm(1) + 1 * HIDDEN)
  + (HIDDEN * C + C)
)

# Of each model, the trainable parameters with the flags above.
PARAMETERS = {
  "LogisticModel": D * C + C,
  "MoeModel": moe(D),
  "ChainMoeModel": sum(moe(D + i * LINK_UNITS) for i in range(LINKS + 1))
  + LINKS * (C * LINK_UNITS + LINK_UNITS),
  "FrameLevelLogisticModel": D * C + C,
  "MeanModel": pooled(0, D),
  "MaxModel": pooled(0, D),
  "GemModel": pooled(2, D),  # The powers.
  "AttentionMeanModel": pooled(D, D),
  "AttentionClustersModel": pooled(
    attention_clusters(RGB, CENTRES) + attention_clusters(AUDIO, CENTRES // 4),
    VLAD_RGB + VLAD_AUDIO,
  ),
  "PmaModel": probed(induced(D) + QUERIES * WIDTH + 2 * block()),
  "AttentiveProbeModel": probed(
    linear(D, WIDTH)
    + QUERIES * WIDTH
    + attention()
    + feed_forward()
    + 3 * 2 * WIDTH  # Layer norms.
  ),
  # An encoder with two gains and layer norms, then two attentions.
  "BoqModel": pooled(
    linear(D, WIDTH)
    + 2 * WIDTH
    + (3 * attention() + feed_forward() + 2 + 4 * WIDTH)
    + (QUERIES * WIDTH + 4 * WIDTH)
    + linear(QUERIES, ROWS),
    WIDTH * ROWS,
  ),
  "DbofModel": (
    batch_norm(D)
    + (D * CLUSTERS + batch_norm(CLUSTERS))
    + (CLUSTERS * HIDDEN + batch_norm(HIDDEN))
    + moe(HIDDEN)
  ),
  "NetVLADModelLF": pooled(
    netvlad(RGB, CENTRES) + netvlad(AUDIO, CENTRES // 2),
    RGB * CENTRES + AUDIO * (CENTRES // 2),
  ),
  "NetFVModelLF": pooled(
    # Deviations in place of centres, which are the assignments' weights.
    netvlad(RGB, CENTRES) + netvlad(AUDIO, CENTRES // 2),
    2 * (RGB * CENTRES + AUDIO * (CENTRES // 2)),
  ),
  "DbofModelLF": bag(UNITS, 2 * BAG),
  "SoftDbofModelLF": bag(UNITS, BAG),
  "GatedDbofModelLF": bag(UNITS + CLUSTERS * RGB + units(RGB, CLUSTERS), BAG),
  "LstmModel": lstm(D, HIDDEN) + lstm(HIDDEN, HIDDEN) + moe(4 * HIDDEN),
  "GruModel": gru(D, HIDDEN) + gru(HIDDEN, HIDDEN) + moe(2 * HIDDEN),
  "BiLstmModel": (
    2 * lstm(D, HIDDEN // 2) + lstm(HIDDEN, HIDDEN) + moe(HIDDEN)
  ),
  "BiGruModel": 2 * gru(D, HIDDEN // 2) + gru(HIDDEN, HIDDEN) + moe(HIDDEN),
  "NeXtVLADModel": NEXTVLAD,
  "MixNeXtVladModel": 3 * NEXTVLAD + batch_norm(D) + (D * 3 + 3),
  "AttentionEnhancedNetVLADModel": pooled(
    2 * encoder(RGB)
    + netvlad(RGB, CENTRES)
    + 2 * encoder(AUDIO)
    + netvlad(AUDIO, CENTRES // 4),
    VLAD_RGB + VLAD_AUDIO,
  ),
  "AttentionNetVLADModel": pooled(
    encoder(RGB)
    + encoder(RGB, CENTRES)
    + VLAD_RGB
    + encoder(AUDIO)
    + encoder(AUDIO, CENTRES // 4)
    + VLAD_AUDIO,
    VLAD_RGB + VLAD_AUDIO,
  ),
  "SecondOrderModel": pooled(
    SECOND_RGB[0] + SECOND_AUDIO[0], SECOND_RGB[1] + SECOND_AUDIO[1]
  ),
}

# That learn a tiny set soonest, where it is not 0.05. Attention can't stand the
# steps that the other models learn fastest with.
_LEARNING_RATES = {
  "AttentionEnhancedNetVLADModel": 0.02,
  "AttentionNetVLADModel": 0.02,
  "PmaModel": 0.02,
  "FrameLevelLogisticModel": 0.1,
  "LogisticModel": 0.1,
  "MoeModel": 0.1,
  "ChainMoeModel": 0.1,
}


def values_of(name):
  """Changes to the model flags, for one model."""
  kind = {} if model_flags.is_frame_level(name) else runs.VIDEO_LEVEL
  return {"model": name, **VALUES, **kind}


def write_data(directory, name, **changes):
  level = "frame" if model_flags.is_frame_level(name) else "video"
  return runs.write_data(
    directory,
    **{
      "level": level,
      "feature_sizes": (RGB, AUDIO),
      "num_classes": C,
      **changes,
    },
  )


def build_towers(values, batch, num_towers):
  """Towers in training mode, as train.py builds them."""
  return towers.build(
    towers.split_batch(batch, num_towers),
    model_flags.build_model(values),
    towers.Objective(losses.get_loss(values["label_loss"])),
    placement.Devices(
      "/cpu:0", [f"/cpu:{i}" for i in range(num_towers)], "/cpu:0"
    ),
    num_classes=values["num_classes"],
  )


def gap_of_a_guess(labels):
  """GAP of predicting each class's frequency for every video."""
  actual = np.array([[c in those for c in range(C)] for those in labels])
  guess = np.tile(actual.mean(axis=0), (len(actual), 1))
  return eval_util.calculate_gap(guess, actual)


def served(directory, pattern):
  """(video id, classes, scores) of each video, by a SavedModel."""
  records = [
    record
    for path in readers.expand_data_pattern(pattern)
    for record in tf.python_io.tf_record_iterator(path)
  ]
  with tf.Graph().as_default(), tf.Session() as session:
    meta_graph = tf.saved_model.loader.load(session, ["serve"], str(directory))
    signature = meta_graph.signature_def["serving_default"]
    outputs = [
      signature.outputs[key].name
      for key in ("video_id", "class_indexes", "predictions")
    ]
    fed = {signature.inputs["example_bytes"].name: records}
    return list(zip(*session.run(outputs, fed), strict=True))


def test_every_model_has_its_number_of_parameters_here():
  missing = sorted(set(model_flags.model_names()) - set(PARAMETERS))
  assert not missing, (
    f"Add the number of parameters of {', '.join(missing)} to PARAMETERS in "
    "tests/models/walk_test.py, worked out by hand from the paper."
  )
  gone = sorted(set(PARAMETERS) - set(model_flags.model_names()))
  assert not gone, f"PARAMETERS has models that do not exist: {gone}."


def random_batch(is_frame_level, lengths):
  """{name: array} of random videos, as a reader gives them."""
  rng = np.random.default_rng(0)
  if is_frame_level:
    features = rng.integers(0, 256, [sum(lengths), D], dtype=np.uint8)
  else:
    features = rng.normal(size=[len(lengths), D])
    lengths = [1] * len(lengths)
  return {
    "features": features,
    "num_frames": lengths,
    "labels": rng.random([len(lengths), C]) < 0.5,
  }


@pytest.mark.slow
@pytest.mark.parametrize("name", model_flags.model_names())
def test_has_exactly_these_parameters_however_many_towers_share_them(name):
  values = runs.model_values(**values_of(name))
  is_frame_level = model_flags.is_frame_level(name)
  with tf.Graph().as_default():
    kind = tf.uint8 if is_frame_level else tf.float32
    batch = {
      "features": tf.placeholder(kind, [None, D]),
      "num_frames": tf.placeholder(tf.int32, [None]),
      "labels": tf.placeholder(tf.bool, [None, C]),
    }
    built = build_towers(values, batch, num_towers=2)
    variables = tf.trainable_variables()
    # None is left out of training.
    assert [v.name for _, v in built.gradients] == [v.name for v in variables]
    count = sum(v.shape.num_elements() for v in variables)
    listing = "\n".join(f"  {v.op.name} {v.shape}" for v in variables)
    assert count == PARAMETERS.get(name), f"{name} has {count}:\n{listing}"

    gradients = {v.op.name: g for g, v in built.gradients}
    config = tf.ConfigProto(device_count={"CPU": 2})
    with tf.Session(config=config) as session:
      session.run(tf.global_variables_initializer())
      # Towers of two videos and one, of one and none, of two empty ones.
      for lengths in ([4, 1, 9], [3], [0, 0]):
        fed = random_batch(is_frame_level, lengths)
        found, predictions, loss, _ = session.run(
          (gradients, built.predictions, built.label_loss, built.update_ops),
          {batch[key]: value for key, value in fed.items()},
        )
        assert predictions.shape == (len(lengths), C)
        assert 0.0 < loss < 100.0
        layers.assert_all_finite(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", model_flags.model_names())
def test_overfits_a_tiny_set_and_serves_what_it_has_learnt(name, tmp_path):
  pattern = write_data(tmp_path / "data", name)
  labels = runs.labels_of(pattern, model_flags.is_frame_level(name))
  assert gap_of_a_guess(labels.values()) < 0.8
  checkpoint = runs.run_train(
    tmp_path / "model",
    pattern,
    batch_size=12,
    max_steps=80,
    log_steps=80,
    base_learning_rate=_LEARNING_RATES.get(name, 0.05),
    **{**values_of(name), "transformer_dropout": 0.0},
  )
  assert checkpoint.endswith("model.ckpt-80")

  results = runs.run_eval(tmp_path / "model", pattern)
  assert results["num_videos"] == 12
  assert results["gap"] > 0.95

  csv = tmp_path / "out.csv"
  assert runs.run_infer(tmp_path / "model", pattern, csv) == (12, [])
  rows = submission.read_submission(csv)
  assert sorted(rows) == sorted(labels)
  hits = [classes[0] in labels[video] for video, (classes, _) in rows.items()]
  assert sum(hits) / 12 == pytest.approx(results["avg_hit_at_one"])
  # %g keeps six digits, which may make or break ties.
  assert runs.gap_of_csv(csv, labels) == pytest.approx(results["gap"], abs=1e-3)

  # A SavedModel, which holds loops and hashes of its own, says the same.
  values = model_flags.load(str(tmp_path / "model"))
  predictor.export(checkpoint, values, str(tmp_path / "served"))
  for video_id, classes, scores in served(tmp_path / "served", pattern):
    expected_classes, expected_scores = rows[video_id.decode()]
    np.testing.assert_array_equal(classes, expected_classes)
    # Six digits are written.
    np.testing.assert_allclose(scores, expected_scores, rtol=2e-5, atol=1e-9)
