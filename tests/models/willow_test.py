"""Tests for the models of WILLOW's code beside NetVLAD.

What holds for every model is tested in frame_walk_test.py.

Axes: B videos, T frames, D features, C classes.
"""

import numpy as np
import pytest

from tests import layers
from tests.models import building
from tests.models.building import LENGTHS, C, D
from tests.references import layers as references
from tests.references import recurrent as recurrent_references


def _build(name, is_training=False, **changes):
  return building.Built(building.make(name, **changes), is_training)


def _features(videos, variables):
  """Batch-normalised frames, cut into rgb and audio."""
  frames = references.per_frame(
    references.batch_norm, videos, variables, "input_bn", False
  )
  return [
    [[x[start:end] for x in video] for video in frames]
    for start, end in ((0, 5), (5, 7))
  ]


def _classified(bags, variables, relu):
  hidden = references.linear(
    [a + b for a, b in zip(*bags)], variables, "hidden1", False
  )
  if relu:
    hidden = [[references.relu6(x) for x in row] for row in hidden]
  return references.mixture_of_experts(hidden, variables, C)


# Of rgb and audio.
_BAGS = {
  "SoftDbofModelLF": ("soft", "soft"),
  "GatedDbofModelLF": ("gated", "soft"),
}


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("name", _BAGS)
def test_bags_are_fused_late(name, relu):
  videos = layers.random_videos(LENGTHS, D)
  with _build(name, dbof_relu=relu, dbof_cluster_size=17) as built:
    actual = built.run(built.predictions, videos)
    variables = built.initial
  assert variables["dbof_rgb/cluster/weights"].shape == (5, 17)
  assert variables["dbof_audio/cluster/weights"].shape == (2, 2)
  bags = []
  for kind, feature, scope in zip(
    _BAGS[name], _features(videos, variables), ("dbof_rgb", "dbof_audio")
  ):
    if kind == "gated":
      bags.append(references.gated_bags(feature, variables, scope, False))
    else:
      sums, _ = references.soft_bags(feature, variables, scope, False)
      bags.append([references.unit(row) for row in sums])
  expected = _classified(bags, variables, relu)
  layers.assert_close(actual, expected, rtol=5e-5, atol=5e-6)


def test_bags_may_go_to_the_classifier_as_they_are():
  with _build("SoftDbofModelLF", fc_dimred=False, softdbof_maxpool=True) as it:
    # 4 and 1 units, sums and maxima.
    assert it.initial["experts/weights"].shape == (10, C)
    assert not [name for name in it.initial if name.startswith("hidden1")]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
  ("name", "flag"), [("NetFVModelLF", "fv_relu"), ("DbofModelLF", "dbof_relu")]
)
def test_a_hidden_layer_has_batch_norm_only_with_relu(name, flag, relu):
  with _build(name, **{flag: relu}) as built:
    assert ("hidden1/batch_norm/beta" in built.initial) == relu
    assert ("hidden1/biases" in built.initial) != relu


def test_coupled_centres_are_the_assignments_weights():
  videos = layers.random_videos(LENGTHS, D)
  with (
    _build("NetFVModelLF", fv_coupling_factor=0.5) as coupled,
    _build("NetFVModelLF", fv_couple_weights=False) as free,
  ):
    own = {f"netfv_{name}/centres" for name in ("rgb", "audio")}
    assert set(free.initial) - set(coupled.initial) == own
    free.load(coupled.initial)
    free.load(
      {
        f"netfv_{name}/centres": 0.5
        * coupled.initial[f"netfv_{name}/assign/weights"].T
        for name in ("rgb", "audio")
      }
    )
    layers.assert_close(
      coupled.run(coupled.predictions, videos),
      free.run(free.predictions, videos),
    )


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("output", ["states", "last"])
def test_an_lstm_classifies_the_states_of_its_layers(output, backward):
  videos = layers.random_videos(LENGTHS, D)
  with _build("LstmModel", lstm_backward=backward, lstm_output=output) as built:
    actual = built.run(built.predictions, videos)
    variables = built.initial
  rows = []
  for video in videos:
    frames, states = video[:: -1 if backward else 1], []
    for layer in ("lstm0", "lstm1"):
      frames, c, h = recurrent_references.lstm(
        frames, *(variables[f"rnn/{layer}/{x}"] for x in ("weights", "biases"))
      )
      states += c + h
    rows.append(states if output == "states" else h)
  expected = references.mixture_of_experts(rows, variables, C)
  layers.assert_close(actual, expected, rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize("name", ["LstmModel", "GruModel"])
def test_random_sequences_are_frames_in_any_order(name):
  kind = "lstm" if name == "LstmModel" else "gru"
  model = building.make(name, iterations=5, **{f"{kind}_random_sequence": True})
  videos = building.stored([40, 3, 0])
  expected = building.prepared(videos)
  for is_training in (True, False):
    with building.Prepared(model, is_training) as built:
      (frames, real), (others, _) = (
        built.run_stored([built.model_input, built.num_real], videos)
        for _ in range(2)
      )
    # As many as there are; WILLOW's code does not repeat a short video.
    assert real.tolist() == [5, 3, 0]
    drawn = [
      int(np.abs(expected[0] - frame).max(axis=1).argmin())
      for frame in frames[0]
    ]
    layers.assert_close(frames[0], expected[0][drawn])
    if is_training:
      assert not np.allclose(frames[0], others[0])
    else:
      # Evenly spread, but not in this order.
      assert sorted(drawn) == [0, 8, 16, 24, 32] != drawn
      assert np.array_equal(frames, others)


def test_directions_have_half_of_the_units_each():
  with _build("BiGruModel", gru_cells=6) as built:
    shapes = {name: value.shape for name, value in built.initial.items()}
  assert shapes["rnn/gru_forward/gates/weights"] == (D + 3, 6)
  assert shapes["rnn/gru_backward/gates/weights"] == (D + 3, 6)
  assert shapes["rnn/gru/gates/weights"] == (6 + 6, 12)
  assert shapes["experts/weights"] == (6, C)
