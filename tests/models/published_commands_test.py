"""Commands as they stand in the repositories that published the models.

Each is parsed as train.py does it, its model is built at its sizes, and it
trains for two steps, with small sizes, on tiny data.
"""

import shlex

import pytest
import tensorflow.compat.v1 as tf
from absl import flags

import flag_fields
import model_flags
import train
from models import scopes
from tests import runs
from training import config as training_config
from training import placement
from training.trainer import Trainer

_FRAMES = (
  '--frame_features=True --feature_names="rgb,audio" '
  '--feature_sizes="1024,128" --base_learning_rate=0.0002 '
)
_NETVLAD = _FRAMES + (
  "--model=NetVLADModelLF --batch_size=80 --netvlad_cluster_size=256 "
  "--netvlad_hidden_size=1024 --moe_l2=1e-6 --iterations=300 "
  "--learning_rate_decay=0.8 --netvlad_relu=False --gating=True "
  "--moe_prob_gating=True "
)
_NEXTVLAD = _FRAMES + (
  "--groups=8 --nextvlad_hidden_size=2048 --expansion=2 --drop_rate=0.5 "
  "--video_level_classifier_model=LogisticModel --label_loss=CrossEntropyLoss "
  "--batch_size=80 --learning_rate_decay=0.8 --l2_penalty=1e-5 "
  "--max_step=700000 --num_gpu=2 "
)
_PAPER = _FRAMES + (
  "--batch_size=80 --netvlad_cluster_size=256 --netvlad_hidden_size=512 "
  "--iterations=256 --learning_rate_decay=0.85 "
)
# As they are written there, but for the paths of the data and of the run.
COMMANDS = {
  # github.com/google/youtube-8m
  "starter-video": (
    "--feature_names='mean_rgb,mean_audio' --feature_sizes='1024,128' "
    "--start_new_model"
  ),
  "starter-frames": (
    "--frame_features --model=FrameLevelLogisticModel "
    "--feature_names='rgb,audio' --feature_sizes='1024,128' --start_new_model"
  ),
  # github.com/antoine77340/Youtube-8M-WILLOW
  "NetVLADModelLF": _NETVLAD + "--max_step=700000",
  "NetVLADModelLF-light": _NETVLAD + "--lightvlad=True --max_step=600000",
  "NetFVModelLF": _FRAMES
  + "--model=NetFVModelLF --batch_size=80 --fv_cluster_size=128 "
  "--fv_hidden_size=1024 --moe_l2=1e-6 --iterations=300 "
  "--learning_rate_decay=0.8 --fv_relu=False --gating=True "
  "--moe_prob_gating=True --fv_couple_weights=False --max_step=600000",
  "GatedDbofModelLF": _FRAMES
  + "--model=GatedDbofModelLF --batch_size=80 --dbof_cluster_size=4096 "
  "--dbof_hidden_size=1024 --moe_l2=1e-6 --iterations=300 --dbof_relu=False "
  "--max_step=1000000",
  "SoftDbofModelLF": _FRAMES
  + "--model=SoftDbofModelLF --batch_size=80 --dbof_cluster_size=8000 "
  "--dbof_hidden_size=1024 --iterations=300 --dbof_relu=False "
  "--max_step=800000",
  "GruModel": _FRAMES + "--model=GruModel --batch_size=128 --gru_cells=1200 "
  "--learning_rate_decay=0.9 --moe_l2=1e-6 --max_step=300000",
  "LstmModel": _FRAMES + "--model=LstmModel --batch_size=128 --iterations=150 "
  "--lstm_random_sequence=True --max_step=400000",
  # github.com/linrongc/youtube-8m
  "NeXtVLADModel": _NEXTVLAD
  + "--model=NeXtVLADModel --nextvlad_cluster_size=128 --gating_reduction=8 "
  "--learning_rate_decay_examples 2000000",
  "MixNeXtVladModel": _NEXTVLAD
  + "--model=MixNeXtVladModel --nextvlad_cluster_size=112 "
  "--gating_reduction=16 --mix_number=3 --cl_temperature=3 --cl_lambda=9 "
  "--learning_rate_decay_examples 2500000 --num_epochs=15",
  # github.com/wangheda/youtube-8m
  "DeepCombineChainModel": (
    "--model=DeepCombineChainModel --multitask=True "
    "--label_loss=MultiTaskCrossEntropyLoss --support_type="
    '"label,label,label,label,label,label,label,label" '
    "--support_loss_percent=0.025 --moe_num_mixtures=2 --deep_chain_layers=8 "
    "--deep_chain_relu_cells=128 --frame_features=False "
    '--feature_names="mean_rgb,mean_audio" --feature_sizes="1024,128" '
    "--batch_size=512 --base_learning_rate=0.004"
  ),
  # PaddlePaddle's settings, which are a file there.
  "AttentionClustersModel": _FRAMES
  + "--model=AttentionClustersModel --batch_size=2048 "
  "--netvlad_cluster_size=32,32 --iterations=100 --frame_sampling=uniform "
  "--base_learning_rate=0.001 --learning_rate_decay=1.0",
  # The paper's authors.
  "NetVladV1": _PAPER + "--model=NetVladV1",
  "NetVladV2": _PAPER + "--model=NetVladV2",
}
# Published numbers of parameters, in millions, and how exact they are.
MILLIONS = {
  "NeXtVLADModel": (89.0, 0.5),
  # Three times the rounded 79 of one, in the paper.
  "MixNeXtVladModel": (237.0, 1.5),
}

# Sizes of a test, in place of those that are published and of large defaults.
_SMALL = {
  "feature_sizes": "16,8",
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
  given = [*shlex.split(COMMANDS[name]), "--train_data_pattern=as-told"]
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
    assert result["predictions"].shape.as_list() == [None, 3862]
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
  level = "video" if "mean_rgb" in COMMANDS[name] else "frame"
  pattern = runs.write_data(
    tmp_path / "data",
    level=level,
    feature_sizes=(16, 8),
    num_classes=_SMALL["num_classes"],
  )
  directory = tmp_path / "model"
  config, values = parsed(
    name,
    **_SMALL,
    **_RUN,
    # Never more frames than a command asks for: 0 are all.
    **({"iterations": 5} if "--iterations" in COMMANDS[name] else {}),
    train_data_pattern=pattern,
    train_dir=directory,
  )
  Trainer(config, values, placement.from_environment("{}")).run()
  assert runs.step_of(directory) == 2
