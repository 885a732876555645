"""Tests of model_flags.py: what it warns of, saves, loads and compares."""

import json
import logging

import pytest
from absl import flags

import model_flags
from tests.parsed_flags import parse as _parse
from tests.parsed_flags import values as _values
from tests.parsed_flags import values_of as _values_of


def _every_model(function):
  return pytest.mark.parametrize("model", model_flags.model_names())(function)


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
    ("NetFVModelLF", ["--fv_coupling_factor=1"], False),
    (
      "NetFVModelLF",
      ["--fv_coupling_factor=1", "--fv_couple_weights=False"],
      True,
    ),
    ("SoftDbofModelLF", ["--dbof_hidden_size=8", "--fc_dimred=False"], True),
    ("SoftDbofModelLF", ["--dbof_relu=False", "--fc_dimred=False"], True),
    ("GruModel", ["--iterations=8"], True),
    ("GruModel", ["--iterations=8", "--gru_random_sequence"], False),
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


@pytest.mark.parametrize("name", sorted(_values()))
def test_a_saved_value_that_its_flag_does_not_accept_is_named(tmp_path, name):
  content = {"model": "MoeModel", name: {"rgb": 8}}
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
  args = ["--model=MoeModel", "--attention_memory_mb=8", *args]
  given = _parse("--netvlad_relu=False", *args)
  assert model_flags.load_for_data(str(tmp_path), given) == {
    **values,
    "attention_memory_mb": 8,  # Nor does it depend on the model.
    "segment_labels": saved if expected is None else expected,
  }


# Comparison.


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


def test_a_file_may_move_that_only_a_new_run_reads():
  name = "reverse_whitening"
  without, saved, moved = (
    _values_of("NeXtVLADModel", f"--{name}={path}") for path in ("", "a", "b")
  )
  assert model_flags.differences(saved, moved) == ([], [(name, "a", "b")])
  for pair in ((without, saved), (saved, without)):
    forbidden, _ = model_flags.differences(*pair)
    assert [flag for flag, _, _ in forbidden] == [name]


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
