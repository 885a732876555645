"""Tests for NeXtVLADModel. Axes: B videos, T frames, D features, C classes."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
from console import messages
from tests import layers, runs
from tests.models import building
from tests.references import layers as references
from tests.references import nextvlad as loops

_NAME = "NeXtVLADModel"


def test_the_aggregation_has_the_published_number_of_parameters():
  # Without biases and batch norm: W_e, W_a, W_c, centres, hidden layer.
  expansion, depth, clusters, groups, hidden = 2, 1024, 128, 8, 2048
  expected = expansion * depth * (depth + groups)
  expected += expansion * depth * clusters * groups
  expected += expansion * depth * clusters * (hidden + 1) // groups
  assert round(expected / 1e6, 1) == 71.4
  model = model_flags.build_model(
    runs.model_values(
      model=_NAME,
      feature_names="rgb",
      feature_sizes=str(depth),
      expansion=expansion,
      groups=groups,
      nextvlad_cluster_size=str(clusters),
      nextvlad_hidden_size=hidden,
    )
  )
  with tf.Graph().as_default():
    model.create_model(tf.zeros([2, 3, depth]), 4, tf.constant([3, 1]))
    counts = {
      v.op.name: v.shape.num_elements() for v in tf.trainable_variables()
    }
  assert expected == sum(
    counts[name]
    for name in (
      "nextvlad_rgb/expand/weights",
      "nextvlad_rgb/attention/weights",
      "nextvlad_rgb/assign/weights",
      "nextvlad_rgb/centres",
      "hidden1/weights",
    )
  )


def test_refuses_groups_that_do_not_fit_a_feature_by_name():
  with pytest.raises(ValueError, match=r"--groups .*D=5, groups=2"):
    building.make(_NAME, expansion=1)


@pytest.mark.parametrize("is_training", [True, False])
def test_matches_the_loops_from_frames_to_predictions(is_training):
  videos = layers.random_videos(building.LENGTHS, building.D)
  with building.Built(building.make(_NAME), is_training) as built:
    actual = built.run(built.predictions, videos)
    variables = built.initial
  descriptors = [[] for _ in videos]
  start = 0
  for (name, size), groups in zip(building.SIZES.items(), (2, 1)):
    part = [[x[start : start + size] for x in video] for video in videos]
    start += size
    rows = loops.nextvlad(
      part, variables, f"nextvlad_{name}", groups, is_training
    )
    rows = references.batch_norm(
      rows, variables, f"vlad_bn_{name}", is_training
    )
    for descriptor, row in zip(descriptors, rows):
      descriptor += row
  hidden = references.linear(descriptors, variables, "hidden1", is_training)
  hidden = loops.bottleneck_gating(hidden, variables, "gating", is_training)
  logits = references.linear(hidden, variables, "logistic", is_training)
  expected = [[references.sigmoid(x) for x in row] for row in logits]
  layers.assert_close(actual, expected, rtol=5e-5, atol=5e-6)


@pytest.fixture
def eigenvalues(tmp_path):
  """(path of a file, what is in it): longer than rgb, as the published one."""
  values = np.arange(9.0)
  np.save(tmp_path / "eigenvals.npy", values)
  return str(tmp_path / "eigenvals.npy"), values


@pytest.mark.parametrize("goes_on", [True, False])
def test_reverse_whitening_is_as_published_and_needs_its_file_once(
  eigenvalues, goes_on
):
  path, values = eigenvalues
  videos = building.stored([4, 0, 1])
  model = building.make(_NAME, reverse_whitening=path, iterations=0)
  with building.Built(model, is_training=True) as built:
    built.initialize()
    frames = built.run_stored(built.model_input, videos)
    stored = built.values()["reverse_whitening"]
    assert "reverse_whitening" not in built.trainable
  for b, video in enumerate(videos):
    for t, frame in enumerate(video):
      expected = [x * 4 / 255 + 4 / 512 - 2 for x in map(float, frame)]
      for d in range(building.SIZES["rgb"]):
        expected[d] = (expected[d] - 4 / 512) * (values[d] ** 0.5 + 1e-4)
      layers.assert_close(frames[b, t], expected)
  # Later there is only the checkpoint, in training too.
  moved = building.make(_NAME, reverse_whitening="/gone.npy", iterations=0)
  with building.Built(moved, is_training=goes_on) as built:
    built.load({"reverse_whitening": stored})
    found = built.run_stored(built.model_input, videos)
  np.testing.assert_array_equal(found, frames)


@pytest.mark.parametrize(
  "content", [None, b"no array", np.arange(4.0), -np.arange(5.0), np.array("x")]
)
def test_names_the_file_that_it_can_not_use(content, tmp_path):
  path = tmp_path / "given.npy"
  if isinstance(content, bytes):
    path.write_bytes(content)
  elif content is not None:
    np.save(path, content)
  model = building.make(_NAME, reverse_whitening=str(path))
  with building.Built(model, is_training=True) as built:
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
      built.initialize()
  assert f"--reverse_whitening={path} " in messages.cause(str(raised.value))


def test_reverse_whitening_needs_the_feature_rgb(eigenvalues):
  with pytest.raises(ValueError, match=r"feature rgb, got .*'r', 'audio'"):
    building.make(
      _NAME, reverse_whitening=eigenvalues[0], feature_names="r,audio"
    )
