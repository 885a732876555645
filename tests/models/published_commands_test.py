"""Presets: commands of the repositories that published the models, and ours.

Each is parsed as train.py does it, its model is built at its sizes, and it
trains for two steps, with small sizes, on tiny data.
"""

import math

import pytest
import tensorflow.compat.v1 as tf
from absl import flags

import model_flags
import train
from console import flag_fields
from models import scopes
from tests import runs
from tests.models import building
from training import config as training_config
from training import placement, presets
from training.trainer import Trainer

# The flags of each file in recipes/: published commands, but for the paths of
# the data and of the run, and ours.
COMMANDS = {name: presets.describe(name).defaults for name in presets.names()}
# Published numbers of parameters, in millions, and how exact they are.
MILLIONS = {
  "nextvlad": (89.0, 0.5),
  # Three times the rounded 79 of one, in the paper.
  "mix-nextvlad": (237.0, 1.5),
}

# Sizes of a test, in place of those that are published and of large defaults.
_SMALL = {
  "feature_sizes": "16",
  "num_classes": 5,
  "batch_size": 4,
  "netvlad_cluster_size": "4",
  "netvlad_hidden_size": 8,
  "nextvlad_cluster_size": "4",
  "nextvlad_hidden_size": 8,
  "dbof_cluster_size": 9,
  "dbof_hidden_size": 8,
  "fv_cluster_size": "4",
  "fv_hidden_size": 8,
  "lstm_cells": 8,
  "gru_cells": 8,
}
# The run's own: two steps, without a GPU.
_RUN = {"max_steps": 2, "num_gpu": 0, "export_model_steps": 0, "seed": 1}


def parsed(name, **later):
  """(training's configuration, the model flags' values) of a command.

  Flags that come later win; a flag that has no effect is an error.
  """
  own = flags.FlagValues()
  train.define_flags(own)
  given = [*runs.flag_list(COMMANDS[name]), "--train_data_pattern=as-told"]
  own(["train.py", *given])
  values = model_flags.from_flags(own)
  names = set(values)
  unused = flag_fields.given(names - model_flags.effective_flags(values), own)
  assert not unused, f"{name} gives {sorted(unused)}, which have no effect."
  own(["train.py", *given, *runs.flag_list(later)])
  return (
    flag_fields.from_flags(training_config.Config, own),
    model_flags.from_flags(own),
  )


@pytest.mark.parametrize("name", COMMANDS)
def test_comments_tell_the_command_its_cost_its_result_and_their_source(name):
  text = presets.describe(name).text
  for told in ("Data", "Time and memory", "Result", "Source"):
    assert f"\n{told}: " in text
  assert f"Command: python train.py --preset={name} " in text
  # A path or a run of somebody's is no part of it.
  assert not {"train_data_pattern", "train_dir", "start_new_model"} & set(
    COMMANDS[name]
  )


def test_the_command_line_wins_wherever_it_stands():
  for words in (
    ["--batch_size=7", "--preset=nextvlad", "--groups=4"],
    ["--batch_size=7", "--groups=4", "--preset", "nextvlad"],
  ):
    own = flags.FlagValues()
    train.define_flags(own)
    own(presets.expand(["train.py", *words]))
    values = model_flags.from_flags(own)
    assert values["model"] == "NeXtVLADModel"
    assert (own["batch_size"].value, values["groups"]) == (7, 4)
    assert own["preset"].value == "nextvlad"
  # The flag itself refuses a name that is none.
  assert presets.expand(["train.py", "--preset=no"]) == [
    "train.py",
    "--preset=no",
  ]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_model_is_built_at_its_published_sizes(name):
  _, values = parsed(name)
  model = model_flags.build_model(values)
  reader = model_flags.build_reader(values)
  with tf.Graph().as_default():
    batch = reader.parse_serialized(tf.placeholder(tf.string, [None]))
    model_input, num_frames = model.prepare_input(
      batch["features"], batch["num_frames"], is_training=True
    )
    with tf.variable_scope(scopes.SCOPE):
      result = model.create_model(
        model_input,
        reader.num_classes,
        num_frames=num_frames,
        is_training=True,
        labels=batch["labels"],
      )
    assert result["predictions"].shape.as_list() == [
      None,
      values["num_classes"],
    ]
    count = sum(v.shape.num_elements() for v in scopes.trainable_variables())
  if name in MILLIONS:
    millions, tolerance = MILLIONS[name]
    assert count / 1e6 == pytest.approx(millions, abs=tolerance)


@pytest.mark.parametrize(
  "name",
  # One in the fast run.
  [
    pytest.param(each, marks=[pytest.mark.slow] if i else [])
    for i, each in enumerate(COMMANDS)
  ],
)
def test_the_command_trains(name, tmp_path):
  # One feature, as two are twice the graph.
  feature = COMMANDS[name]["feature_names"].partition(",")[0]
  config, values = parsed(
    name,
    **_SMALL,
    **_RUN,
    # Never more frames than a command asks for: 0 are all.
    **({"iterations": 5} if "iterations" in COMMANDS[name] else {}),
    feature_names=feature,
    train_data_pattern=runs.write_data(tmp_path / "data"),
    train_dir=tmp_path / "model",
  )
  # Raises where settings do not go together.
  Trainer(config, values, placement.from_environment("{}"))
  is_frame_level = not feature.startswith("mean_")
  _, videos = building.tiny_set(is_frame_level, (16,), _SMALL["num_classes"])
  with building.Training(values, config) as training:
    for step in (1, 2):
      loss, _ = training.step(videos)
      assert math.isfinite(loss)
      global_step = tf.train.get_global_step(training.graph)
      assert training.session.run(global_step) == step
