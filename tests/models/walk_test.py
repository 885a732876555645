"""Walks the registered models.

Each is counted, split over towers, trained until it has learnt a few videos,
and exported. To add a model, add its number of parameters
to `PARAMETERS`. What holds for frame-level models is in frame_walk_test.py.

Axes: B videos, D features, C classes.
"""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import eval_util
import model_flags
from console import flag_fields
from predictions import predictor
from tests import parsed_flags, placed, runs
from tests.models import building
from training import gradients

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
  "BoqModel": 0.02,
  "PmaModel": 0.02,
  "FrameLevelLogisticModel": 0.1,
  "LogisticModel": 0.1,
  "MoeModel": 0.1,
  "ChainMoeModel": 0.1,
}


# That see the same frames of a video in each step. A maximum and queries pick
# few of the frames, so that other ones each time are more noise than 80 steps
# get the better of: GAP comes to 0.91 or to 1, as the values at the start have
# it; with the same frames to 0.98 at least (seven seeds).
_SAME_FRAMES = ("BoqModel", "DbofModel")


def in_order(videos, order):
  """The same videos in another order."""
  ends = np.cumsum(videos["num_frames"])[:-1]
  frames = np.split(videos["features"], ends)
  return {
    "features": np.concatenate([frames[i] for i in order]),
    "num_frames": videos["num_frames"][order],
    "labels": videos["labels"][order],
  }


def gap_of_a_guess(labels):
  """GAP of predicting each class's frequency for every video."""
  guess = np.tile(labels.mean(axis=0), (len(labels), 1))
  return eval_util.calculate_gap(guess, labels)


def served(directory, records):
  """(video ids, predictions [B, C]) by a SavedModel."""
  with tf.Graph().as_default(), tf.Session() as session:
    meta_graph = tf.saved_model.loader.load(session, ["serve"], str(directory))
    signature = meta_graph.signature_def["serving_default"]
    ids, classes, scores = session.run(
      [
        signature.outputs[key].name
        for key in ("video_id", "class_indexes", "predictions")
      ],
      {signature.inputs["example_bytes"].name: records},
    )
  predictions = np.zeros([len(records), C], np.float32)
  np.put_along_axis(predictions, classes, scores, axis=1)
  return ids, predictions


def test_every_model_has_its_number_of_parameters_here():
  missing = sorted(set(model_flags.model_names()) - set(PARAMETERS))
  assert not missing, (
    f"Add the number of parameters of {', '.join(missing)} to PARAMETERS in "
    "tests/models/walk_test.py, worked out by hand from the paper."
  )
  gone = sorted(set(PARAMETERS) - set(model_flags.model_names()))
  assert not gone, f"PARAMETERS has models that do not exist: {gone}."


def watched(config, read):
  """A configuration that adds the names of what is read of it to a set."""

  class Watched(type(config)):
    def __getattribute__(self, name):
      read.add(name)
      return super().__getattribute__(name)

  copy = object.__new__(Watched)
  copy.__dict__.update(config.__dict__)
  return copy


@pytest.mark.parametrize("name", model_flags.model_names())
def test_has_its_parameters_and_reads_its_flags(name, monkeypatch):
  values = model_values(name, frame_sampling="auto")
  used = model_flags.effective_flags(values) - parsed_flags.EVERY_MODEL
  build, read = flag_fields.from_values, set()
  monkeypatch.setattr(
    flag_fields, "from_values", lambda *args: watched(build(*args), read)
  )
  model = model_flags.build_model(values)
  with tf.Graph().as_default():
    raw = tf.ones([2, D], tf.uint8 if model.is_frame_level else tf.float32)
    frames, _ = model.prepare_input(raw, tf.constant([1, 1]), is_training=True)
    num_frames = tf.constant([1, 1])
    model.create_model(frames, C, num_frames=num_frames, is_training=True)
    trainable = tf.trainable_variables()
  count = sum(v.shape.num_elements() for v in trainable)
  listing = "\n".join(f"  {v.op.name} {v.shape}" for v in trainable)
  assert count == PARAMETERS.get(name), f"{name} has {count}:\n{listing}"
  # None is defined, saved and forgotten.
  assert used - read <= {"video_level_classifier_model"}


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


def model_values(name, **changes):
  """The model flags' values of a small model."""
  level = {} if model_flags.is_frame_level(name) else runs.VIDEO_LEVEL
  return runs.model_values(**{"model": name, **level, **VALUES, **changes})


def check_slots(training):
  """Whether all parameters are trained."""
  trainable = training.graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)
  names = {v.op.name for v in training.built.variables}
  assert {n for n in names if n.endswith("/Adam")} == {
    f"{v.op.name}/Adam" for v in trainable
  }


def check_places(training):
  """Whether GPUs can do all of a step, and leave it there till it is logged."""
  for op in placed.operations(training.graph):
    if placed.is_on_host(op):
      # What towers ask of the host is whether shapes agree.
      assert not op.name.startswith("tower_") or "/assert_" in op.name, op.name
    elif not any(output.dtype == tf.string for output in op.outputs):
      assert placed.kernel(op), f"{op.name}: {op.type} has no kernel for GPUs."
  copied = placed.copies_to_host([*training.built.step_fetches.values()])
  # The gradient of a sum works out a shape on the GPU, of a few whole numbers.
  assert not [each for each in copied if "/DynamicStitch:" not in each[0]]


@pytest.mark.slow
@pytest.mark.parametrize("name", model_flags.model_names())
def test_learns_a_tiny_set_on_two_towers_and_serves_what_it_has_learnt(
  name, tmp_path, monkeypatch
):
  # All weights of enough columns for two videos are.
  monkeypatch.setattr(gradients, "_WIDE", 1)
  is_frame_level = model_flags.is_frame_level(name)
  values = model_values(
    name,
    # One, as two are twice the graph.
    feature_names="rgb" if is_frame_level else "mean_rgb",
    feature_sizes=str(D),
    transformer_dropout=0.0,
    **({"frame_sampling": "uniform"} if name in _SAME_FRAMES else {}),
  )
  config = runs.train_config(
    tmp_path,
    "not read",
    base_learning_rate=_LEARNING_RATES.get(name, 0.05),
    batch_size=1,
    num_towers=2,
    num_gpu=2,
    seed=1,
  )
  with placed.pretended(2):
    training = building.Training(values, config)
  with training:
    check_slots(training)
    check_places(training)

    # Towers of two videos and one, of one and none, of two empty ones. A step
    # whose gradients are not finite fails.
    for lengths in ([4, 1, 9], [3], [0, 0]):
      loss, metrics = training.step(random_batch(is_frame_level, lengths))
      assert metrics["classes"].shape == (len(lengths), C)
      assert 0.0 < loss < 100.0

    records, videos = building.tiny_set(is_frame_level, (D,), C)
    rng = np.random.default_rng(0)
    for _ in range(80):
      # Averages of batch norm are those of the first tower's videos.
      training.step(in_order(videos, rng.permutation(len(records))))
    with training.graph.as_default():
      checkpoint = tf.train.Saver(training.built.variables).save(
        training.session, str(tmp_path / "model.ckpt")
      )

  predictor.export(checkpoint, values, str(tmp_path / "served"))
  ids, predictions = served(tmp_path / "served", records)
  assert ids.tolist() == videos["video_ids"].tolist()
  assert gap_of_a_guess(videos["labels"]) < 0.8
  assert eval_util.calculate_gap(predictions, videos["labels"]) > 0.95
