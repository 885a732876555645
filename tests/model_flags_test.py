"""Tests of model_flags.py."""

import pytest
from absl import flags

import losses
import model_flags
import readers
from models import registry
from tests.parsed_flags import EVERY_MODEL
from tests.parsed_flags import parse as _parse
from tests.parsed_flags import values as _values
from tests.parsed_flags import values_of as _values_of


def _config(model, *args):
  """The configuration that a model is built with."""
  return model_flags.build_model(_values_of(model, *args)).config


def _every_model(function):
  return pytest.mark.parametrize("model", model_flags.model_names())(function)


# What is defined.


def test_every_flag_has_a_help_text():
  own = _parse()
  for name in _values():
    assert own[name].help


@pytest.mark.parametrize(
  ("flag", "choices"),
  [
    ("model", model_flags.model_names()),
    ("video_level_classifier_model", ["LogisticModel", "MoeModel"]),
    ("label_loss", losses.LOSSES),
  ],
)
def test_a_typo_in_a_choice_lists_the_choices(flag, choices):
  with pytest.raises(flags.IllegalFlagValueError) as caught:
    _parse(f"--{flag}=MoeModle")
  for text in (f"--{flag}", "MoeModle", *choices):
    assert text in str(caught.value)


@pytest.mark.parametrize(
  "arg",
  [
    "--batch_norm_decay=1.5",
    "--dbof_cluster_size=0",
    "--dbof_hidden_size=0",
    "--iterations=many",
    "--iterations=-5",
    "--max_frames=0",
    "--moe_l2=-1",
    "--moe_l2=nan",
    "--moe_l2=1e39",
    "--moe_low_rank_gating=-2",
    "--moe_num_mixtures=0",
    "--num_classes=1",
    "--netvlad_hidden_size=0",
    "--netvlad_hidden_size=2.5",
    "--netvlad_relu=maybe",
  ],
)
def test_a_value_out_of_range_names_its_flag(arg):
  with pytest.raises(flags.IllegalFlagValueError) as caught:
    _parse(arg)
  name, value = arg.split("=")
  assert name in str(caught.value)
  assert value in str(caught.value)


# What is built.


@_every_model
def test_every_model_builds_from_default_flags(model):
  built = model_flags.build_model(_values_of(model, "--mixture=1"))
  assert type(built) is registry.get(model)
  assert type(built.config) is built.Config


@_every_model
def test_a_model_of_the_wrong_level_is_refused(model):
  is_frame_level = model_flags.is_frame_level(model)
  wrong = _values_of(model, f"--frame_features={not is_frame_level}")
  with pytest.raises(ValueError) as caught:
    model_flags.build_model(wrong)
  for text in (
    f"--model={model} is a {'frame' if is_frame_level else 'video'}-level",
    f"--frame_features={not is_frame_level}:",
    f"give --frame_features={is_frame_level}",
    "--feature_names",
    "--feature_sizes",
  ):
    assert text in str(caught.value)


@pytest.mark.parametrize("model", ["DbofModel", "NetVLADModelLF"])
@pytest.mark.parametrize(
  ("arg", "method"),
  [
    ("--sample_random_frames=False", "random_sequence"),
    ("--sample_random_frames=True", "random_frames"),
    ("--frame_sampling=uniform", "uniform"),
  ],
)
def test_how_frames_are_sampled_reaches_the_model(model, arg, method):
  assert _config(model, arg).sampling_in_training == method


@pytest.mark.parametrize(
  ("model", "args"),
  [
    ("NetVLADModelLF", {"netvlad_relu": False, "lightvlad": True}),
    ("NetVLADModelLF", {"iterations": 0, "batch_norm_decay": 0.0}),
    ("DbofModel", {"dbof_cluster_size": 5, "dbof_activation": "relu"}),
    ("MoeModel", {"moe_l2": 0.0, "moe_prob_gating_input": "input"}),
    ("SecondOrderModel", {"signed_square_root": False}),
  ],
)
def test_flags_reach_the_model(model, args):
  given = [f"--{name}={value}" for name, value in args.items()]
  config = _config(model, *given)
  for name, value in args.items():
    assert getattr(config, name) == value
    assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize("model", ["DbofModel", "NetVLADModelLF"])
def test_a_classifier_is_built_with_its_own_flags(model):
  values = _values_of(model, "--moe_num_mixtures=3", "--batch_norm_decay=0")
  classifier = model_flags.build_model(values).classifier
  assert type(classifier) is registry.get("MoeModel")
  assert classifier.config.moe_num_mixtures == 3
  assert classifier.config.batch_norm_decay == 0.0
  values["video_level_classifier_model"] = "LogisticModel"
  classifier = model_flags.build_model(values).classifier
  assert type(classifier) is registry.get("LogisticModel")


def test_features_reach_the_model():
  built = model_flags.build_model(
    _values_of("NetVLADModelLF", "--feature_names= rgb , audio")
  )
  assert built.features == [("rgb", 8, -2.0, 2.0), ("audio", 4, -2.0, 2.0)]


@pytest.mark.parametrize(
  ("sizes", "expected"), [("5", [5, 2]), (" 5 , 3 ", [5, 3])]
)
def test_sizes_of_clusters_reach_netvlad(sizes, expected):
  built = model_flags.build_model(
    _values_of("NetVLADModelLF", f"--netvlad_cluster_size={sizes}")
  )
  assert [*built.clusters.values()] == expected


@pytest.mark.parametrize("size", ["64.5", "a", "64;32"])
def test_a_bad_cluster_size_names_its_flag(size):
  with pytest.raises(flags.IllegalFlagValueError) as caught:
    _values_of("NetVLADModelLF", f"--netvlad_cluster_size={size}")
  assert repr(size) in str(caught.value)
  assert "--netvlad_cluster_size" in str(caught.value)


def test_a_model_without_features_is_refused_in_plain_words():
  # The programs build the model before the reader, or after it.
  values = _values_of("NetVLADModelLF", "--feature_names=", "--feature_sizes=")
  with pytest.raises(ValueError, match="feature"):
    model_flags.build_model(values)


def test_the_reader_of_frames_is_built():
  reader = model_flags.build_reader(
    _values_of("NetVLADModelLF", "--num_classes=5", "--max_frames=9")
  )
  assert isinstance(reader, readers.YT8MFrameFeatureReader)
  assert reader.feature_names == ["rgb", "audio"]
  assert reader.feature_sizes == [8, 4]
  assert reader.num_classes == 5
  assert reader.max_frames == 9


def test_the_reader_of_video_level_features_is_built():
  reader = model_flags.build_reader(_values_of("MoeModel"))
  assert isinstance(reader, readers.YT8MAggregatedFeatureReader)
  assert reader.feature_names == ["mean_rgb", "mean_audio"]
  assert reader.feature_sizes == [8, 4]
  assert reader.num_classes == 3862


def test_segments_are_read_if_asked_for():
  for asked in (True, False):
    reader = model_flags.build_reader(
      _values_of("NetVLADModelLF", f"--segment_labels={asked}")
    )
    assert reader.segment_labels == asked


def test_segments_need_frames():
  values = _values_of("MoeModel", "--segment_labels")
  with pytest.raises(ValueError, match="--segment_labels needs") as caught:
    model_flags.build_reader(values)
  assert "--frame_features=True" in str(caught.value)


@pytest.mark.parametrize(
  "arg",
  [
    "--feature_sizes=8",
    "--feature_sizes=8,4,2",
    "--feature_sizes=8,0",
    "--feature_sizes=8,x",
    "--feature_sizes=",
    "--feature_names=rgb",
    "--feature_names=rgb,rgb",
    "--feature_names=",
  ],
)
def test_what_the_reader_refuses_names_the_flag(arg):
  with pytest.raises((ValueError, flags.IllegalFlagValueError)) as caught:
    model_flags.build_reader(_values_of("NetVLADModelLF", arg))
  assert arg.split("=")[0] in str(caught.value)


# What a model uses.


def test_the_flags_that_a_model_uses():
  used = model_flags.used_flags(_values_of("MoeModel")) - EVERY_MODEL
  assert used == {
    "batch_norm_decay",
    "gating_remove_diag",
    "moe_l2",
    "moe_low_rank_gating",
    "moe_num_mixtures",
    "moe_prob_gating",
    "moe_prob_gating_input",
  }
  used = model_flags.used_flags(_values_of("FrameLevelLogisticModel"))
  assert used == EVERY_MODEL


def test_the_flags_of_another_classifier_are_used_instead():
  values = _values_of(
    "DbofModel", "--video_level_classifier_model=LogisticModel"
  )
  assert "moe_l2" not in model_flags.used_flags(values)
  # Dbof itself uses this one.
  assert "batch_norm_decay" in model_flags.used_flags(values)


_WILLOWS = {
  "frame_sampling": "auto",
  "gating": False,
  "iterations": 30,
  "netvlad_relu": True,
}
_PAPERS = {
  "frame_sampling": "uniform",
  "gating": True,
  "iterations": 256,
  "netvlad_relu": False,
}


@pytest.mark.parametrize(
  ("model", "expected"),
  [
    ("NetVLADModelLF", _WILLOWS),
    ("AttentionEnhancedNetVLADModel", _PAPERS),
    ("AttentionNetVLADModel", _PAPERS),
    ("SecondOrderModel", _PAPERS),
    # The names in the authors' commands.
    ("NetVladV1", _PAPERS),
    ("NetVladV2", _PAPERS),
  ],
)
def test_flags_not_given_are_what_the_model_was_published_with(model, expected):
  values = _values(f"--model={model}")
  assert {name: values[name] for name in expected} == expected
  # Given, also as they would be or as they are by default, they win.
  for given in (_WILLOWS, _PAPERS):
    args = [f"--{name}={value}" for name, value in given.items()]
    values = _values(f"--model={model}", *args)
    assert {name: values[name] for name in given} == given


@pytest.mark.parametrize("given", [True, False])
def test_random_sampling_given_in_the_older_flag_wins(given):
  config = _config("AttentionNetVLADModel", f"--sample_random_frames={given}")
  expected = "random_frames" if given else "random_sequence"
  assert config.sampling_in_training == expected


@pytest.mark.parametrize(
  ("model", "relu", "expected"),
  [
    # WILLOW's rule: batch norm only with ReLU.
    ("NetVLADModelLF", True, True),
    ("NetVLADModelLF", False, False),
    ("AttentionNetVLADModel", True, True),
    ("AttentionNetVLADModel", False, True),
  ],
)
def test_batch_norm_on_the_hidden_layer_is_willows_in_its_model_alone(
  model, relu, expected
):
  relu = f"--netvlad_relu={relu}"
  assert _config(model, relu).netvlad_hidden_batch_norm is expected
  for given in (True, False):
    given_flag = f"--netvlad_hidden_batch_norm={given}"
    assert _config(model, relu, given_flag).netvlad_hidden_batch_norm is given


def test_help_says_what_depends_on_the_model():
  own = _parse()
  assert (
    "Not given, 256 in AttentionEnhancedNetVLADModel, AttentionNetVLADModel, "
    "SecondOrderModel." in own["iterations"].help
  )
  assert own["netvlad_hidden_batch_norm"].help.endswith(
    "Not given, what --netvlad_relu is in NetVLADModelLF."
  )


def test_a_flag_younger_than_the_saved_model_is_what_the_model_was_built_with(
  tmp_path,
):
  values = _values_of("NetVLADModelLF", "--netvlad_relu=False")
  assert values.pop("netvlad_hidden_batch_norm") is False
  model_flags.save(str(tmp_path), values)
  # Before there was the flag, there was batch norm.
  loaded = model_flags.load(str(tmp_path))
  assert loaded["netvlad_hidden_batch_norm"] is True


@pytest.mark.parametrize(
  ("alias", "model"),
  [
    ("NetVladV1", "AttentionEnhancedNetVLADModel"),
    ("NetVladV2", "AttentionNetVLADModel"),
  ],
)
def test_an_alias_is_saved_as_the_model_it_names(
  tmp_path, caplog, alias, model
):
  values = _values(f"--model={alias}", "--frame_features=True")
  assert values == _values(f"--model={model}", "--frame_features=True")
  model_flags.save(str(tmp_path), values)
  assert model_flags.load(str(tmp_path))["model"] == model
  model_flags.warn_ignored(values, [], _parse(f"--model={alias}"))
  assert "differ" not in caplog.text
  model_flags.warn_unused(
    _parse(f"--model={alias}", "--frame_features=True", "--lightvlad")
  )
  assert "does not use --lightvlad." in caplog.text
