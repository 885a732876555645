"""Tests of model_flags.py."""

import json
import logging

import pytest
from absl import flags

import losses
import model_flags
import readers

_FRAME_LEVEL = {
  "frame_features": True,
  "feature_names": "rgb,audio",
  "feature_sizes": "8,4",
}
_VIDEO_LEVEL = {
  "frame_features": False,
  "feature_names": "mean_rgb,mean_audio",
  "feature_sizes": "8,4",
}
# Of the data, the loss, and the model's name.
_EVERY_MODEL = {
  "feature_names",
  "feature_sizes",
  "frame_features",
  "holdout_fraction",
  "label_loss",
  "max_frames",
  "model",
  "num_classes",
  "segment_labels",
}
_MOE = {
  "batch_norm_decay",
  "gating_remove_diag",
  "moe_l2",
  "moe_low_rank_gating",
  "moe_num_mixtures",
  "moe_prob_gating",
  "moe_prob_gating_input",
}
_SAMPLED = {
  "frame_sampling",
  "iterations",
  "sample_random_frames",
  "video_level_classifier_model",
}
# Besides those of every model.
_POOLED = (
  _MOE
  | _SAMPLED
  | {
    "coding_penalty",
    "democratic_gradients",
    "democratic_projection_size",
    "democratic_weights",
    "descriptor_dropout",
    "gating",
    "locality_penalty",
    "netvlad_add_batch_norm",
    "netvlad_cluster_size",
    "netvlad_hidden_batch_norm",
    "netvlad_hidden_size",
    "netvlad_relu",
    "orthogonality_penalty",
  }
)
_ENCODER = {
  "attention_batch_norm",
  "attention_dropout",
  "transformer_dropout",
  "transformer_feed_forward_factor",
  "transformer_head_size",
  "transformer_residual",
}
_USED = {
  "DbofModel": _MOE
  | _SAMPLED
  | {
    "dbof_activation",
    "dbof_add_batch_norm",
    "dbof_cluster_size",
    "dbof_hidden_size",
    "dbof_pooling_method",
  },
  "FrameLevelLogisticModel": set(),
  "LogisticModel": set(),
  "MoeModel": _MOE,
  "NetVLADModelLF": _POOLED | {"lightvlad"},
  "AttentionEnhancedNetVLADModel": _POOLED | _ENCODER,
  "AttentionNetVLADModel": _POOLED | _ENCODER | {"cluster_similarity"},
  "SecondOrderModel": _POOLED
  | {
    "residual_whitening",
    "second_order_cluster_size",
    "second_order_projection_size",
    "second_order_sketch_size",
    "signed_square_root",
    "whitening_group_size",
  },
}


def _parse(*args):
  """Flags as of a command line."""
  own = flags.FlagValues()
  model_flags.define(own)
  own(["prog", *args])
  return own


def _values(*args):
  return model_flags.from_flags(_parse(*args))


def _values_of(model, *args):
  """Values that suit the model's kind of input."""
  kind = _FRAME_LEVEL if model_flags.is_frame_level(model) else _VIDEO_LEVEL
  given = [f"--{name}={value}" for name, value in kind.items()]
  return _values(f"--model={model}", *given, *args)


@pytest.fixture
def constructed(monkeypatch):
  """A function of values: (class name, constructor's arguments).

  A classifier among the arguments is such a pair too.
  """
  for name, (cls, sources) in list(model_flags._MODELS.items()):

    def record(cls=cls, **arguments):
      return cls.__name__, arguments

    monkeypatch.setitem(model_flags._MODELS, name, (record, sources))
  return model_flags.build_model


def _every_model(function):
  return pytest.mark.parametrize("model", model_flags.model_names())(function)


# What is defined.


@pytest.mark.parametrize(
  ("name", "default"),
  [
    ("feature_names", "mean_rgb"),
    ("feature_sizes", "1024"),
    ("frame_features", False),
    ("model", "LogisticModel"),
    ("label_loss", "CrossEntropyLoss"),
    ("iterations", 30),
    ("sample_random_frames", True),
    ("segment_labels", False),
    ("dbof_add_batch_norm", True),
    ("dbof_cluster_size", 8192),
    ("dbof_hidden_size", 1024),
    ("dbof_pooling_method", "max"),
    ("video_level_classifier_model", "MoeModel"),
    ("moe_num_mixtures", 2),
    # WILLOW's.
    ("netvlad_cluster_size", "64"),
    ("netvlad_hidden_size", 1024),
    ("netvlad_relu", True),
    ("netvlad_add_batch_norm", True),
    ("gating", False),
    ("gating_remove_diag", False),
    ("lightvlad", False),
    ("moe_l2", 1e-8),
    ("moe_low_rank_gating", -1),
    ("moe_prob_gating", False),
    ("moe_prob_gating_input", "prob"),
  ],
)
def test_defaults_are_those_of_the_older_code(name, default):
  value = _values()[name]
  assert value == default
  assert type(value) is type(default)


def test_every_flag_has_a_help_text():
  own = _parse()
  for name in _values():
    assert own[name].help


@pytest.mark.parametrize("flag", ["model", "video_level_classifier_model"])
def test_a_typo_in_a_model_lists_the_models(flag):
  with pytest.raises(flags.IllegalFlagValueError) as caught:
    _parse(f"--{flag}=MoeModle")
  for text in (f"--{flag}", "MoeModle", "LogisticModel", "MoeModel"):
    assert text in str(caught.value)
  if flag == "model":
    for name in model_flags.model_names():
      assert name in str(caught.value)


def test_a_typo_in_a_loss_lists_the_losses():
  with pytest.raises(flags.IllegalFlagValueError) as caught:
    _parse("--label_loss=CrossEntropy")
  for text in ("--label_loss", *losses.LOSSES):
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
  built = model_flags.build_model(_values_of(model))
  assert type(built) is model_flags._MODELS[model][0]


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
  ("arg", "argument", "value"),
  [
    ("--iterations=0", "iterations", 0),
    (
      "--sample_random_frames=False",
      "frame_sampling_method",
      "random_sequence",
    ),
    ("--sample_random_frames=True", "frame_sampling_method", "random_frames"),
    ("--frame_sampling=uniform", "frame_sampling_method", "uniform"),
    ("--batch_norm_decay=0", "batch_norm_decay", 0.0),
  ],
)
def test_sampling_flags_reach_the_model(
  constructed, model, arg, argument, value
):
  _, arguments = constructed(_values_of(model, arg))
  assert arguments[argument] == value
  assert type(arguments[argument]) is type(value)


@pytest.mark.parametrize(
  ("arg", "argument", "value"),
  [
    ("--netvlad_relu=False", "relu", False),
    ("--nonetvlad_relu", "relu", False),
    ("--netvlad_add_batch_norm=False", "add_batch_norm", False),
    ("--gating=True", "gating", True),
    ("--gating_remove_diag=True", "gating_remove_diag", True),
    ("--lightvlad=True", "residuals", False),
    ("--lightvlad=False", "residuals", True),
    ("--netvlad_hidden_size=7", "hidden_size", 7),
    ("--netvlad_cluster_size=5", "cluster_sizes", [5]),
    ("--netvlad_cluster_size=5,3", "cluster_sizes", [5, 3]),
    ("--netvlad_cluster_size= 5 , 3 ", "cluster_sizes", [5, 3]),
    ("--feature_names= rgb , audio", "feature_names", ["rgb", "audio"]),
    ("--feature_sizes=6,2", "feature_sizes", [6, 2]),
  ],
)
def test_flags_reach_netvlad(constructed, arg, argument, value):
  name, arguments = constructed(_values_of("NetVLADModelLF", arg))
  assert name == "NetVLADModelLF"
  assert arguments[argument] == value
  assert type(arguments[argument]) is type(value)


@pytest.mark.parametrize(
  ("arg", "argument", "value"),
  [
    ("--dbof_add_batch_norm=False", "add_batch_norm", False),
    ("--dbof_cluster_size=5", "cluster_size", 5),
    ("--dbof_hidden_size=3", "hidden_size", 3),
    ("--dbof_pooling_method=average", "pooling_method", "average"),
    ("--dbof_activation=relu", "activation", "relu"),
  ],
)
def test_flags_reach_dbof(constructed, arg, argument, value):
  _, arguments = constructed(_values_of("DbofModel", arg))
  assert arguments[argument] == value
  assert type(arguments[argument]) is type(value)


@pytest.mark.parametrize("model", ["MoeModel", "DbofModel", "NetVLADModelLF"])
@pytest.mark.parametrize(
  ("arg", "argument", "value"),
  [
    ("--moe_num_mixtures=1", "num_mixtures", 1),
    ("--moe_l2=0", "l2_penalty", 0.0),
    ("--moe_low_rank_gating=0", "low_rank_gating", 0),
    ("--moe_prob_gating=True", "prob_gating", True),
    ("--moe_prob_gating_input=input", "prob_gating_input", "input"),
    ("--gating_remove_diag=True", "remove_diag", True),
    ("--batch_norm_decay=0", "batch_norm_decay", 0.0),
  ],
)
def test_flags_reach_the_mixture_of_experts(
  constructed, model, arg, argument, value
):
  name, arguments = constructed(_values_of(model, arg))
  if model != "MoeModel":
    name, arguments = arguments["classifier"]
  assert name == "MoeModel"
  assert arguments[argument] == value
  assert type(arguments[argument]) is type(value)


def test_another_classifier_is_built(constructed):
  values = _values_of(
    "NetVLADModelLF", "--video_level_classifier_model=LogisticModel"
  )
  assert constructed(values)[1]["classifier"] == ("LogisticModel", {})


@pytest.mark.parametrize("size", ["64.5", "a", "64;32"])
def test_a_bad_cluster_size_names_its_flag(size):
  values = _values_of("NetVLADModelLF", f"--netvlad_cluster_size={size}")
  with pytest.raises(ValueError) as caught:
    model_flags.build_model(values)
  assert repr(size) in str(caught.value)
  assert "--netvlad_cluster_size" in str(caught.value)


@pytest.mark.parametrize("size", ["0", "8,0", "-1"])
def test_a_cluster_size_below_1_is_refused(size):
  values = _values_of("NetVLADModelLF", f"--netvlad_cluster_size={size}")
  with pytest.raises(ValueError, match="cluster sizes >= 1") as caught:
    model_flags.build_model(values)
  assert str(model_flags.parse_ints(size)) in str(caught.value)


def test_cluster_sizes_for_another_number_of_features_are_refused():
  values = _values_of("NetVLADModelLF", "--netvlad_cluster_size=8,4,2")
  with pytest.raises(ValueError, match=r"3 cluster sizes .*2 features"):
    model_flags.build_model(values)


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
  values = _values_of("NetVLADModelLF", arg)
  with pytest.raises(ValueError) as caught:
    model_flags.build_reader(values)
  assert arg.split("=")[0] in str(caught.value)


# Lists.


@pytest.mark.parametrize(
  ("text", "names"),
  [
    ("rgb", ["rgb"]),
    ("rgb,audio", ["rgb", "audio"]),
    (" rgb , audio,", ["rgb", "audio"]),
    ("", []),
  ],
)
def test_names_are_parsed(text, names):
  assert model_flags.parse_names(text) == names


@pytest.mark.parametrize(
  ("text", "numbers"),
  [("64", [64]), ("1024,128", [1024, 128]), (" 1, -2 ", [1, -2]), (64, [64])],
)
def test_numbers_are_parsed(text, numbers):
  assert model_flags.parse_ints(text) == numbers


@pytest.mark.parametrize(
  "text", ["64.0", "1024;128", "1024 128", "x", 6.5, "5,2147483648", "9" * 50]
)
def test_what_is_no_list_of_numbers_is_refused(text):
  with pytest.raises(ValueError, match="comma-separated integers") as caught:
    model_flags.parse_ints(text)
  assert repr(text) in str(caught.value)


# What a model uses.


@_every_model
def test_the_flags_that_a_model_uses(model):
  # A new model needs its line in _USED.
  expected = _EVERY_MODEL | _USED[model]
  assert model_flags.used_flags(_values_of(model)) == expected


def test_the_flags_of_another_classifier_are_used_instead():
  values = _values_of(
    "DbofModel", "--video_level_classifier_model=LogisticModel"
  )
  assert "moe_l2" not in model_flags.used_flags(values)
  # Dbof itself uses this one.
  assert "batch_norm_decay" in model_flags.used_flags(values)


def _other_values(flag, value):
  """Other values of a flag than this one."""
  choices = getattr(flag.parser, "enum_values", None)
  if choices:
    return [choice for choice in choices if choice != value]
  if isinstance(value, bool):
    return [not value]
  if isinstance(value, str):
    return ["9,5"]
  # Shares stay below 1.
  return [value + (0.5 if isinstance(value, float) else 1)]


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
def test_random_sampling_given_in_the_older_flag_wins(constructed, given):
  values = _values_of(
    "AttentionNetVLADModel", f"--sample_random_frames={given}"
  )
  _, arguments = constructed(values)
  expected = "random_frames" if given else "random_sequence"
  assert arguments["frame_sampling_method"] == expected


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
  constructed, model, relu, expected
):
  relu = f"--netvlad_relu={relu}"
  built = constructed(_values_of(model, relu))
  assert built[1]["hidden_batch_norm"] is expected
  for given in (True, False):
    given_flag = f"--netvlad_hidden_batch_norm={given}"
    built = constructed(_values_of(model, relu, given_flag))
    assert built[1]["hidden_batch_norm"] is given


def test_help_says_what_depends_on_the_model():
  own = _parse()
  assert own["iterations"].help.endswith(
    "Not given, 256 in AttentionEnhancedNetVLADModel, AttentionNetVLADModel, "
    "SecondOrderModel."
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


@_every_model
def test_used_are_the_flags_that_change_what_is_built(constructed, model):
  own = _parse()
  # Of the two flags of sampling, each is to have a say.
  values = _values_of(model, "--frame_sampling=auto")
  before = constructed(values)
  changing = {
    name
    for name in set(values) - _EVERY_MODEL
    for value in _other_values(own[name], values[name])
    if constructed({**values, name: value}) != before
  }
  assert changing == model_flags.used_flags(values) - _EVERY_MODEL


# Warnings.


def test_flags_that_the_model_does_not_use_are_named(caplog):
  model_flags.warn_unused(
    _parse("--model=MoeModel", "--moe_l2=0", "--netvlad_relu=False", "--gating")
  )
  assert [record.getMessage() for record in caplog.records] == [
    "MoeModel does not use --gating, --netvlad_relu."
  ]


@pytest.mark.parametrize(
  ("model", "args", "unused"),
  [
    ("NetVLADModelLF", ["--democratic_projection_size=8"], True),
    ("NetVLADModelLF", ["--democratic_gradients"], True),
    ("NetVLADModelLF", ["--coding_penalty=1", "--lightvlad"], True),
    ("NetVLADModelLF", ["--orthogonality_penalty=1", "--lightvlad"], True),
    ("NetVLADModelLF", ["--locality_penalty=1", "--lightvlad"], True),
    ("NetVLADModelLF", ["--gating_remove_diag"], True),
    ("NetVLADModelLF", ["--gating_remove_diag", "--gating"], False),
    ("MoeModel", ["--moe_prob_gating_input=input"], True),
    (
      "NetVLADModelLF",
      ["--sample_random_frames=False", "--frame_sampling=uniform"],
      True,
    ),
    (
      "SecondOrderModel",
      ["--second_order_projection_size=8", "--second_order_sketch_size=9"],
      True,
    ),
    (
      "SecondOrderModel",
      ["--whitening_group_size=8", "--residual_whitening=none"],
      True,
    ),
    ("SecondOrderModel", ["--whitening_group_size=8"], False),
  ],
)
def test_flags_that_others_put_out_of_use_are_named_first(
  caplog, model, args, unused
):
  model_flags.warn_unused(_parse(f"--model={model}", *args))
  name = args[0].partition("=")[0]
  assert (f"does not use {name}." in caplog.text) == unused


def test_what_has_no_effect_may_differ():
  saved = _values_of("NetVLADModelLF")
  current = _values_of("NetVLADModelLF", "--democratic_projection_size=8")
  assert model_flags.differences(saved, current) == ([], [])
  current = _values_of(
    "NetVLADModelLF", "--democratic_projection_size=8", "--democratic_weights"
  )
  forbidden, _ = model_flags.differences(saved, current)
  assert [name for name, _, _ in forbidden] == [
    "democratic_projection_size",
    "democratic_weights",
  ]


def test_gating_given_as_it_would_be_is_no_difference():
  for model in ("NetVLADModelLF", "SecondOrderModel"):
    saved = _values_of(model)
    current = _values_of(model, f"--gating={saved['gating']}")
    assert model_flags.differences(saved, current) == ([], [])


def test_no_warning_where_all_flags_are_used(caplog):
  model_flags.warn_unused(_parse("--model=MoeModel", "--moe_l2=0"))
  assert not caplog.records


@_every_model
def test_the_holdout_is_used_with_every_model(caplog, model):
  model_flags.warn_unused(_parse(f"--model={model}", "--holdout_fraction=0.02"))
  assert not caplog.records


def _parse_extra(*args):
  """Flags as of eval.py's command line, with one that is ignored there."""
  own = flags.FlagValues()
  model_flags.define(own)
  flags.DEFINE_float("base_learning_rate", None, "Ignored.", flag_values=own)
  flags.DEFINE_integer("num_gpu", None, "Ignored.", flag_values=own)
  own(["prog", *args])
  return own


def test_flags_that_give_way_to_the_saved_ones_are_named(caplog):
  saved = _values_of("NetVLADModelLF", "--netvlad_cluster_size=256")
  given = _parse_extra(
    "--model=NetVLADModelLF",
    "--netvlad_cluster_size=128",
    "--base_learning_rate=0.01",
    "--netvlad_relu=False",
  )
  model_flags.warn_ignored(saved, ["base_learning_rate", "num_gpu"], given)
  assert [record.getMessage() for record in caplog.records] == [
    "Ignored, as the model is rebuilt from its model_flags.json: --model, "
    "--netvlad_cluster_size, --netvlad_relu, --base_learning_rate.",
    "Of these differ: --netvlad_cluster_size=128 (trained with 256), "
    "--netvlad_relu=False (trained with True).",
  ]


def test_repeating_the_saved_flags_is_no_difference(caplog):
  saved = _values_of("MoeModel", "--moe_l2=0")
  model_flags.warn_ignored(saved, [], _parse_extra("--moe_l2=0"))
  assert [record.getMessage() for record in caplog.records] == [
    "Ignored, as the model is rebuilt from its model_flags.json: --moe_l2."
  ]


def test_what_is_asked_of_the_data_is_not_ignored(caplog):
  model_flags.warn_ignored(
    _values_of("NetVLADModelLF"), [], _parse_extra("--segment_labels")
  )
  assert not caplog.records


def test_no_warning_where_no_model_flag_is_given(caplog):
  model_flags.warn_ignored(
    _values_of("NetVLADModelLF"), ["base_learning_rate"], _parse_extra()
  )
  assert not caplog.records


# The file.


@_every_model
def test_what_is_saved_is_loaded(tmp_path, model):
  values = _values_of(
    model, "--iterations=0", "--moe_l2=0", "--netvlad_relu=False"
  )
  model_flags.save(str(tmp_path), values)
  assert model_flags.load(str(tmp_path)) == values


def test_the_file_is_json_that_people_can_read(tmp_path):
  model_flags.save(str(tmp_path), _values("--model=MoeModel"))
  text = (tmp_path / "model_flags.json").read_text()
  assert json.loads(text) == _values("--model=MoeModel")
  lines = text.splitlines()
  assert '  "model": "MoeModel",' in lines
  assert lines[1:-1] == sorted(lines[1:-1])


def test_flags_younger_than_the_file_have_their_defaults(tmp_path):
  (tmp_path / "model_flags.json").write_text(
    '{"model": "MoeModel", "moe_num_mixtures": 5}'
  )
  expected = _values("--model=MoeModel", "--moe_num_mixtures=5")
  assert model_flags.load(str(tmp_path)) == expected


def test_flags_older_than_this_code_are_named_and_left_out(tmp_path, caplog):
  (tmp_path / "model_flags.json").write_text(
    '{"model": "MoeModel", "old_flag": 5}'
  )
  assert model_flags.load(str(tmp_path)) == _values("--model=MoeModel")
  (record,) = caplog.records
  assert record.levelno == logging.WARNING
  assert "old_flag" in record.getMessage()
  assert str(tmp_path / "model_flags.json") in record.getMessage()


def test_a_directory_without_the_file_is_named(tmp_path):
  with pytest.raises(ValueError, match="does not exist") as caught:
    model_flags.load(str(tmp_path))
  assert str(tmp_path / "model_flags.json") in str(caught.value)
  assert f"--train_dir={tmp_path} " in str(caught.value)


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b'{"model": "MoeModel"',
    b"model: MoeModel",
    b"\xff\xfe{}",
    b"[" * 100_000,
    b'{"moe_num_mixtures": ' + b"9" * 5000 + b"}",
  ],
  ids=lambda content: str(content[:20]),
)
def test_a_file_that_is_not_json_is_named(tmp_path, content):
  path = tmp_path / "model_flags.json"
  path.write_bytes(content)
  with pytest.raises(ValueError, match="not JSON") as caught:
    model_flags.load(str(tmp_path))
  assert str(path) in str(caught.value)


@pytest.mark.parametrize(
  "content",
  [
    {},
    [],
    ["model"],
    "MoeModel",
    None,
    {"model": "MoeModle"},
    {"model": ["MoeModel"]},
  ],
)
def test_a_file_of_no_model_is_named_and_the_models_listed(tmp_path, content):
  path = tmp_path / "model_flags.json"
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match="names no model") as caught:
    model_flags.load(str(tmp_path))
  for text in (str(path), *model_flags.model_names()):
    assert text in str(caught.value)


_NOT_OF = {  # By a flag's type: values of JSON that no such flag has.
  "bool": [None, 0, 1.5, "", [True]],
  "int": [None, True, 2.5, -7, 10**400, "many", "", [3], {}],
  "float": [None, False, -2.0, float("nan"), float("inf"), "", [0.5]],
  "string": [None, True, ["rgb"], {"rgb": 8}],
  "string enum": [None, 3, "", "no such value", ["uniform"]],
}


@pytest.mark.parametrize("name", sorted(_values()))
def test_a_saved_value_that_its_flag_does_not_accept_is_named(tmp_path, name):
  flag = _parse()[name]
  for value in _NOT_OF[flag.flag_type()]:
    if value is None and flag.default is None:
      continue
    content = {"model": "MoeModel", name: value}
    (tmp_path / "model_flags.json").write_text(json.dumps(content))
    # Of another model, as a whole, where it is the model's name.
    with pytest.raises(ValueError, match=r"model_flags\.json") as caught:
      model_flags.load(str(tmp_path))
    if name != "model":
      assert f"--{name} needs " in str(caught.value)
      assert len(str(caught.value)) < 600


def test_what_a_flag_would_make_of_a_saved_value_is_loaded(tmp_path):
  content = {"model": "MoeModel", "moe_l2": 1, "netvlad_cluster_size": 64}
  (tmp_path / "model_flags.json").write_text(json.dumps(content))
  values = model_flags.load(str(tmp_path))
  assert repr(values["moe_l2"]) == "1.0"
  assert values["netvlad_cluster_size"] == "64"


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
  ("args", "expected"),
  [
    ((), None),
    (("--segment_labels=False",), False),
    (("--segment_labels=True",), True),
  ],
)
def test_of_the_data_the_command_line_decides(tmp_path, saved, args, expected):
  values = _values_of("NetVLADModelLF", f"--segment_labels={saved}")
  model_flags.save(str(tmp_path), values)
  # The rest of the command line gives way.
  given = _parse("--model=MoeModel", "--netvlad_relu=False", *args)
  assert model_flags.load_for_data(str(tmp_path), given) == {
    **values,
    "segment_labels": saved if expected is None else expected,
  }


# Comparison.


def test_equal_values_do_not_differ():
  values = _values_of("NetVLADModelLF")
  assert model_flags.differences(values, dict(values)) == ([], [])


def test_the_architecture_may_not_change():
  saved = _values_of("NetVLADModelLF")
  current = _values_of(
    "NetVLADModelLF",
    "--netvlad_relu=False",
    "--netvlad_cluster_size=32",
    "--feature_sizes=4,8",
    "--num_classes=7",
    "--moe_num_mixtures=3",
  )
  assert model_flags.differences(saved, current) == (
    [
      ("feature_sizes", "8,4", "4,8"),
      ("moe_num_mixtures", 2, 3),
      ("netvlad_cluster_size", "64", "32"),
      ("netvlad_hidden_batch_norm", True, False),
      ("netvlad_relu", True, False),
      ("num_classes", 3862, 7),
    ],
    [],
  )


def test_what_no_variable_depends_on_may_change():
  saved = _values_of("NetVLADModelLF")
  current = _values_of(
    "NetVLADModelLF",
    "--batch_norm_decay=0.9",
    "--frame_sampling=uniform",
    "--iterations=0",
    "--label_loss=HingeLoss",
    "--max_frames=9",
    "--moe_l2=0",
    "--sample_random_frames=False",
    "--segment_labels",
  )
  assert model_flags.differences(saved, current) == (
    [],
    [
      ("batch_norm_decay", 0.999, 0.9),
      ("frame_sampling", "auto", "uniform"),
      ("iterations", 30, 0),
      ("label_loss", "CrossEntropyLoss", "HingeLoss"),
      ("max_frames", 300, 9),
      ("moe_l2", 1e-8, 0.0),
      ("sample_random_frames", True, False),
      ("segment_labels", False, True),
    ],
  )


def test_flags_that_the_model_does_not_use_do_not_differ():
  saved = _values_of("LogisticModel")
  current = _values_of(
    "LogisticModel",
    "--netvlad_relu=False",
    "--moe_num_mixtures=3",
    "--iterations=5",
  )
  assert model_flags.differences(saved, current) == ([], [])


def test_another_model_is_a_difference_with_the_flags_of_either():
  saved = _values_of("DbofModel", "--dbof_cluster_size=5")
  current = _values_of("NetVLADModelLF", "--netvlad_relu=False", "--gating")
  forbidden, allowed = model_flags.differences(saved, current)
  assert forbidden == [
    ("dbof_cluster_size", 5, 8192),
    ("gating", False, True),
    ("model", "DbofModel", "NetVLADModelLF"),
    ("netvlad_hidden_batch_norm", True, False),
    ("netvlad_relu", True, False),
  ]
  assert allowed == []


def test_another_holdout_is_told():
  # Videos that were held out would be trained on, or the other way round.
  saved = _values_of("MoeModel", "--holdout_fraction=0.25")
  forbidden, allowed = model_flags.differences(saved, _values_of("MoeModel"))
  assert ("holdout_fraction", 0.25, 0.0) in forbidden + allowed
