"""Makes the goldens anew, where a format changes on purpose.

  python -m tests.goldens.make [CASE ...] [rest]

Without arguments: each of `CASES` that has no folder yet, and the defaults of
models that have none stored. Cases that are named
get new weights and predictions. Only the word "rest" writes anew what the tests
of training, of CSV files and of flags compare with.

`goldens_test.py` says what each file is for. A stored checkpoint is a promise
to users' checkpoints: a change that needs its golden made anew breaks theirs.
"""

import json
import os
import shutil
import sys

import numpy as np
import tensorflow.compat.v1 as tf

import model_flags
from predictions import predictor
from tests import goldens_test as goldens
from tests import layers, record_data, runs

SIZES = {"rgb": 6, "audio": 5}
C = 7
# Shorter and longer than --iterations, beyond --max_frames, and empty.
LENGTHS = {"aaaa": 9, "bbbb": 1, "cccc": 0, "dddd": 13, "eeee": 3, "ffff": 6}
VALUES = {
  "feature_sizes": "6,5",
  "num_classes": C,
  "max_frames": 12,
  "iterations": 5,
  "frame_sampling": "uniform",
  "netvlad_cluster_size": "5,3",
  "netvlad_hidden_size": 8,
  "gating": True,
  "nextvlad_cluster_size": "4",
  "nextvlad_hidden_size": 8,
  "groups": 2,
  "dbof_cluster_size": 9,
  "dbof_hidden_size": 8,
  "fv_cluster_size": "4",
  "fv_hidden_size": 8,
  "lstm_cells": 6,
  "gru_cells": 6,
  "deep_chain_layers": 2,
  "deep_chain_relu_cells": 4,
  "transformer_head_size": 2,
  "transformer_feed_forward_factor": 2,
  "attention_size": 4,
  "attention_queries": 2,
  "pma_inducing_points": 3,
  "boq_row_size": 5,
  "whitening_group_size": 4,
  "second_order_cluster_size": "3,2",
  "second_order_projection_size": 3,
}
# A folder, and the changes to the flags: each model, and what takes another
# path through its code.
CASES = {
  "LogisticModel": {},
  "MoeModel": {"moe_prob_gating": True, "moe_low_rank_gating": 3},
  "ChainMoeModel": {},
  "FrameLevelLogisticModel": {},
  "MeanModel": {},
  "MaxModel": {},
  "GemModel": {},
  "AttentionMeanModel": {},
  "AttentionClustersModel": {"attention_clusters_hidden_size": 3},
  "PmaModel": {},
  "AttentiveProbeModel": {},
  "BoqModel": {},
  "DbofModel": {},
  "DbofModel-average": {
    "dbof_pooling_method": "average",
    "dbof_activation": "relu",
    "dbof_add_batch_norm": False,
    "video_level_classifier_model": "LogisticModel",
  },
  "DbofModelLF": {},
  "SoftDbofModelLF": {"softdbof_maxpool": True},
  "SoftDbofModelLF-direct": {"fc_dimred": False},
  "GatedDbofModelLF": {"dbof_relu": False},
  "LstmModel": {},
  "LstmModel-random": {
    "lstm_random_sequence": True,
    "lstm_backward": True,
    "lstm_output": "last",
  },
  "GruModel": {},
  "BiLstmModel": {},
  "BiGruModel": {},
  "NetVLADModelLF": {"moe_prob_gating": True, "netvlad_cluster_size": "5"},
  "NetVLADModelLF-light": {
    "lightvlad": True,
    "democratic_weights": True,
    "netvlad_relu": False,
    "gating_remove_diag": True,
  },
  "NetVLADModelLF-parts": {"temporal_parts": 2},
  "NetVLADModelLF-vlagd": {"vlagd": True},
  "NetVLADModelLF-bottleneck": {"gating_reduction": 2},
  "NetVLADModelLF-mixture": {"mixture": 2},
  "NetFVModelLF": {},
  "NetFVModelLF-uncoupled": {"fv_couple_weights": False, "fv_relu": False},
  "NeXtVLADModel": {},
  "NeXtVLADModel-sinkhorn": {"assignment": "sinkhorn"},
  "NetVLADModelLF-sinkhorn": {"assignment": "sinkhorn"},
  "MixNeXtVladModel": {},
  "AttentionEnhancedNetVLADModel": {},
  "AttentionEnhancedNetVLADModel-post_norm": {
    "transformer_residual": "post_norm",
    "attention_batch_norm": "logits",
    "netvlad_relu": True,
  },
  "AttentionNetVLADModel": {},
  "AttentionNetVLADModel-relu": {
    "cluster_similarity": "relu",
    "transformer_residual": "post_norm",
    "attention_batch_norm": "none",
    "democratic_weights": True,
  },
  "AttentionNetVLADModel-sinkhorn": {"assignment": "sinkhorn"},
  "SecondOrderModel": {"netvlad_cluster_size": "4"},
  "SecondOrderModel-sketch": {
    "second_order_sketch_size": 8,
    "residual_whitening": "diagonal",
    "signed_square_root": False,
    "democratic_weights": True,
    "democratic_projection_size": 4,
    "netvlad_add_batch_norm": False,
  },
}

_SCALES = {"beta": 0.3, "moving_mean": 0.1, "moving_variance": 0.1}


def write_records():
  """Frame-level records, some with rated segments, and video-level ones."""
  rng = np.random.default_rng(0)
  frame, video = [], []
  for i, (video_id, length) in enumerate(LENGTHS.items()):
    labels = [i % C, (3 * i + 1) % C]
    id_key = "video_id" if i == 1 else "id"
    ratings = [(0, i, 1.0), (5, (i + 2) % C, 0.0)] if length > 8 else None
    frames = record_data.random_frames(rng, length, SIZES)
    frame.append(
      record_data.frame_record(
        video_id.encode(), labels, frames, id_key, ratings
      )
    )
    means = {f"mean_{name}": rng.normal(size=n) for name, n in SIZES.items()}
    video.append(
      record_data.video_record(video_id.encode(), labels, means, id_key)
    )
  os.makedirs(goldens.RECORDS, exist_ok=True)
  record_data.write(goldens.FRAME_RECORDS, frame)
  record_data.write(goldens.VIDEO_RECORDS, video)


def write_case(name):
  """A checkpoint of random weights, its flags and its predictions."""
  directory = str(goldens.HERE / name)
  shutil.rmtree(directory, ignore_errors=True)
  os.makedirs(directory)
  model = name.partition("-")[0]
  level = {} if model_flags.is_frame_level(model) else runs.VIDEO_LEVEL
  values = runs.model_values(
    **{"model": model, **VALUES, **level, **CASES[name]}
  )
  model_flags.save(directory, values)
  reader = model_flags.build_reader(values)
  with tf.Graph().as_default(), tf.Session() as session:
    batch = reader.parse_serialized(tf.placeholder(tf.string, [None]))
    predictor.predict(
      model_flags.build_model(values), batch, reader.num_classes
    )
    # Neither zeros nor ones anywhere: no term hides.
    values = layers.randomize(session, seed=len(name))
    # Nor so large beside the data that all videos look alike.
    layers.load(
      session,
      {
        key: value * _SCALES[key.rpartition("/")[2]]
        for key, value in values.items()
        if key.rpartition("/")[2] in _SCALES
      },
    )
    for variable, value in (
      (tf.train.create_global_step(), goldens.STEP),
      (tf.get_variable("epoch", [], tf.int64, trainable=False), 0),
    ):
      session.run(variable.initializer, {variable.initial_value: value})
    tf.train.Saver(tf.global_variables()).save(
      session,
      os.path.join(directory, "model.ckpt"),
      global_step=goldens.STEP,
      write_meta_graph=False,
      write_state=False,
    )
  found = goldens.predict(name)
  write_json(
    os.path.join(directory, "predictions.json"),
    {key: [float(f"{p:.8g}") for p in row] for key, row in found.items()},
  )


def write_json(path, value):
  """Short lines: one for each entry of the outermost dict."""
  lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
  with open(path, "w") as stream:
    stream.write("{\n" + ",\n".join(lines) + "\n}\n")


def main(names):
  """Writes the cases that are missing or named, and "rest" if named."""
  if not os.path.exists(goldens.FRAME_RECORDS):
    write_records()
  for name in CASES:
    if name in names or not (goldens.HERE / name).exists():
      write_case(name)
      print(f"Wrote {goldens.HERE / name}.")
  with open(goldens.MODEL_DEFAULTS) as stream:
    stored = json.load(stream)
  if missing := set(model_flags.model_names()) - set(stored):
    write_json(goldens.MODEL_DEFAULTS, {**goldens.model_defaults(), **stored})
    print(f"Wrote the defaults of {', '.join(sorted(missing))}.")
  if "rest" in names:
    write_rest()
    print("Wrote the rest: CSV files, trainings, flags, all models' defaults.")


def write_rest():
  """CSV files, trainings, flags and defaults."""
  for path, kind in goldens.CSV_FILES.items():
    goldens.infer(path, kind)
  write_json(
    goldens.TRAINING,
    {name: goldens.train(name) for name in goldens.TRAININGS},
  )
  write_json(
    goldens.FLAGS, {name: goldens.flags_of(name) for name in goldens.PROGRAMS}
  )
  write_json(goldens.MODEL_DEFAULTS, goldens.model_defaults())


if __name__ == "__main__":
  main(sys.argv[1:])
