"""Tests for frame-level models: their values and their variables.

What holds for every model is tested in frame_walk_test.py.

Axes: B videos, N frames of the batch, T frames a video, D features, C classes.
"""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import pooled
from tests import layers
from tests.models import building
from tests.models.building import LENGTHS, C, D
from tests.references import layers as references

_training_or_not = pytest.mark.parametrize(
  "is_training", [True, False], ids=["training", "evaluation"]
)
_SAMPLED = [
  "DbofModel",
  "NetVLADModelLF",
  "AttentionEnhancedNetVLADModel",
  "AttentionNetVLADModel",
  "SecondOrderModel",
]


def _build(name, is_training=True, **changes):
  return building.Built(building.make(name, **changes), is_training)


def _normalized(videos, variables, is_training):
  if "input_bn/beta" not in variables:
    return videos
  return references.per_frame(
    references.batch_norm, videos, variables, "input_bn", is_training
  )


def _dbof_reference(videos, variables, method, activation, is_training):
  bag = references.dbof(
    _normalized(videos, variables, is_training),
    variables,
    "dbof",
    method,
    activation,
    is_training,
  )
  hidden = references.linear(bag, variables, "hidden1", is_training)
  hidden = [
    [references.ACTIVATIONS[activation](x) for x in row] for row in hidden
  ]
  return references.mixture_of_experts(hidden, variables, C)


def _netvlad_reference(
  videos, variables, *, relu, residuals, gating, remove_diag, is_training
):
  videos = _normalized(videos, variables, is_training)
  descriptors = [[] for _ in videos]
  start = 0
  for name, size in (("rgb", 5), ("audio", 2)):
    feature = [[x[start : start + size] for x in video] for video in videos]
    start += size
    vlads = references.netvlad(
      feature, variables, f"netvlad_{name}", residuals, is_training
    )
    for descriptor, vlad in zip(descriptors, vlads):
      descriptor += vlad
  hidden = references.linear(descriptors, variables, "hidden1", is_training)
  if relu:
    hidden = [[references.relu6(x) for x in row] for row in hidden]
  if gating:
    hidden = references.context_gating(
      hidden, variables, "gating", remove_diag, is_training
    )
  return references.mixture_of_experts(hidden, variables, C)


@_training_or_not
class TestAgainstLoops:
  def test_logistic_sees_the_mean_of_the_real_frames(self, is_training):
    videos = layers.random_videos(LENGTHS, D)
    with _build("FrameLevelLogisticModel", is_training) as built:
      actual = built.run(built.predictions, videos)
      means = references.pool_frames(videos, D, "average")
      logits = references.linear(means, built.initial, "logistic", is_training)
    assert means[1] == [0.0] * D  # The empty video's.
    layers.assert_close(
      actual, [[references.sigmoid(x) for x in row] for row in logits]
    )

  @pytest.mark.parametrize("add_batch_norm", [True, False])
  @pytest.mark.parametrize(
    "method, activation", [("max", "sigmoid"), ("average", "relu")]
  )
  def test_dbof_matches(self, is_training, add_batch_norm, method, activation):
    videos = layers.random_videos(LENGTHS, D)
    with _build(
      "DbofModel",
      is_training,
      dbof_add_batch_norm=add_batch_norm,
      dbof_pooling_method=method,
      dbof_activation=activation,
    ) as built:
      actual = built.run(built.predictions, videos)
      expected = _dbof_reference(
        videos, built.initial, method, activation, is_training
      )
    # Five layers deep, of four videos' statistics.
    layers.assert_close(actual, expected, rtol=5e-5, atol=5e-6)

  @pytest.mark.parametrize(
    "add_batch_norm, relu, residuals, gating, remove_diag",
    [
      (True, True, True, True, False),
      (True, False, True, True, True),
      (True, False, False, False, False),
      (False, True, True, True, True),
      (False, False, False, True, False),
    ],
  )
  def test_netvlad_matches(
    self, is_training, add_batch_norm, relu, residuals, gating, remove_diag
  ):
    videos = layers.random_videos(LENGTHS, D)
    with _build(
      "NetVLADModelLF",
      is_training,
      netvlad_add_batch_norm=add_batch_norm,
      netvlad_relu=relu,
      lightvlad=not residuals,
      gating=gating,
      gating_remove_diag=remove_diag,
    ) as built:
      actual = built.run(built.predictions, videos)
      expected = _netvlad_reference(
        videos,
        built.initial,
        relu=relu,
        residuals=residuals,
        gating=gating,
        remove_diag=remove_diag,
        is_training=is_training,
      )
    # Six layers deep, of four videos' statistics.
    layers.assert_close(actual, expected, rtol=5e-5, atol=5e-6)

  @pytest.mark.parametrize("relu", [True, False])
  def test_netvlad_cuts_its_hidden_layer_at_0_and_6(self, is_training, relu):
    videos = layers.random_videos(LENGTHS, D)
    with _build(
      "NetVLADModelLF",
      is_training,
      netvlad_add_batch_norm=False,
      netvlad_relu=relu,
      gating=False,
    ) as built:
      # Of a descriptor of norm 2 ** 0.5 the layer makes numbers of size 1.5.
      built.load({"hidden1/biases": [-12.0, 3.0, 12.0]})
      actual = built.run(built.predictions, videos)
      expected = _netvlad_reference(
        videos,
        built.values(),
        relu=relu,
        residuals=True,
        gating=False,
        remove_diag=False,
        is_training=is_training,
      )
    layers.assert_close(actual, expected, rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize(
  "name",
  ["DbofModel", "NetVLADModelLF", "LstmModel", "FrameLevelLogisticModel"],
)
def test_the_classifier_it_is_given_sees_the_descriptor(name):
  changes = {"video_level_classifier_model": "LogisticModel"}
  with _build(name, is_training=False, **changes) as built:
    assert "logistic/weights" in built.trainable
    assert "experts/weights" not in built.trainable
    videos = layers.random_videos(LENGTHS, D)
    found, seen = built.run((built.predictions, built.descriptor), videos)
    variables = built.values()
    logits = seen @ variables["logistic/weights"] + variables["logistic/biases"]
    layers.assert_close(found, 1 / (1 + np.exp(-logits)))


class TestVariables:
  def test_logistic_has_these(self):
    with _build("FrameLevelLogisticModel") as built:
      assert built.trainable == ["logistic/biases", "logistic/weights"]
      assert built.num_trainable == 7 * 6 + 6
      weights = built.initial["logistic/weights"]
      (penalty,) = built.run(built.penalties, layers.random_videos([1], D))
    assert penalty == pytest.approx(
      1e-8 * sum(w * w / 2 for w in weights.ravel()), rel=1e-5
    )

  def test_a_hidden_layer_without_batch_norm_is_willows(self):
    # K = 16, and enough units to tell deviations by.
    with _build(
      "NetVLADModelLF",
      netvlad_hidden_batch_norm=False,
      netvlad_cluster_size="16",
      netvlad_hidden_size=97,
    ) as built:
      names = [n for n in built.initial if n.startswith("hidden1/")]
      assert sorted(names) == ["hidden1/biases", "hidden1/weights"]
      built.initialize()
      found = built.values()
      # Batch norm stays elsewhere.
      assert "gating/batch_norm/beta" in found
      assert "netvlad_rgb/assign/batch_norm/beta" in found
    for name, deviation in (("weights", 16**-0.5), ("biases", 0.01)):
      values = found[f"hidden1/{name}"]
      assert np.std(values) == pytest.approx(deviation, rel=0.2)
      assert abs(np.mean(values)) < 3.0 * deviation / math.sqrt(values.size)


class TestShareClusters:
  @pytest.mark.parametrize(
    "cluster_sizes, feature_sizes, divisor, expected",
    [
      ([8], [1024, 128], 2, [8, 4]),
      ([8], [1024, 128], 4, [8, 2]),
      ([9], [128, 1024, 64], 2, [4, 9, 4]),  # A whole number of centres.
      ([1], [5, 2], 2, [1, 1]),  # At least one.
      ([3], [5, 2], 4, [3, 1]),
      ([6], [7, 7], 2, [6, 3]),  # The first of the widest.
      ([6], [128], 2, [6]),  # Audio only.
      ([3, 7], [5, 2], 2, [3, 7]),
      ([7, 1, 2], [5, 2, 3], 4, [7, 1, 2]),
    ],
  )
  def test_gives_one_number_for_each_feature(
    self, cluster_sizes, feature_sizes, divisor, expected
  ):
    actual = pooled.share_clusters(cluster_sizes, feature_sizes, divisor)
    assert actual == expected
    assert all(isinstance(size, int) for size in actual)

  def test_returns_a_list_of_its_own(self):
    given = [3, 7]
    assert pooled.share_clusters(given, [5, 2], 2) is not given

  @pytest.mark.parametrize("sizes", [[], [0], [-1], [3, 0], [4, -2]])
  def test_refuses_sizes_below_one(self, sizes):
    with pytest.raises(ValueError, match=r"sizes >= 1, got \["):
      pooled.share_clusters(sizes, [5, 2], 2)
    with pytest.raises(ValueError, match=r"sizes >= 1, got \["):
      building.make(
        "NetVLADModelLF", netvlad_cluster_size=",".join(map(str, sizes))
      )

  @pytest.mark.parametrize(
    "sizes, features", [([1, 2], [5, 2, 3]), ([1, 2, 3], [5, 2]), ([1, 2], [5])]
  )
  def test_refuses_another_number_of_sizes(self, sizes, features):
    with pytest.raises(
      ValueError,
      match=rf"Got {len(sizes)} cluster sizes \[.*for {len(features)} features",
    ):
      pooled.share_clusters(sizes, features, 2)


class TestSplitFeatures:
  def test_cuts_in_order(self):
    frames = np.arange(2 * 3 * D, dtype=np.float32).reshape(2, 3, D)
    with tf.Graph().as_default(), tf.Session() as session:
      pieces = pooled.split_features(tf.constant(frames), [1, 4, 2])
      assert [piece.shape.as_list() for piece in pieces] == [
        [2, 3, 1],
        [2, 3, 4],
        [2, 3, 2],
      ]
      first, second, third = session.run(pieces)
    for b in range(2):
      for t in range(3):
        assert first[b, t].tolist() == frames[b, t].tolist()[:1]
        assert second[b, t].tolist() == frames[b, t].tolist()[1:5]
        assert third[b, t].tolist() == frames[b, t].tolist()[5:]

  @pytest.mark.parametrize("sizes", [[5, 1], [5, 3], [7, 7], []])
  def test_refuses_sizes_of_another_sum(self, sizes):
    with tf.Graph().as_default():
      with pytest.raises(
        ValueError,
        match=rf"sum to {sum(sizes)}, but the frames have 7 dimensions",
      ):
        pooled.split_features(tf.zeros([2, 3, D]), sizes)

  def test_the_model_refuses_them_too(self):
    with pytest.raises(ValueError, match="sum to 8, but"):
      _build("NetVLADModelLF", feature_sizes="5,3")


class TestFeatureScope:
  @pytest.mark.parametrize(
    "name, expected",
    [
      ("rgb", "netvlad_rgb"),
      ("mean_rgb", "netvlad_mean_rgb"),
      ("inception-v3.pool", "netvlad_inception-v3.pool"),
      ("my feature/v2:0", "netvlad_my_feature_v2_0"),
      ("caf\u00e9", "netvlad_caf_"),
      ("", "netvlad_"),
    ],
  )
  def test_replaces_what_a_scope_may_not_have(self, name, expected):
    assert pooled.feature_scope("netvlad", name) == expected

  @pytest.mark.parametrize("name", ["rgb", "a b/c:0", "\\_>", "caf\u00e9"])
  def test_is_a_scope_that_tensorflow_takes(self, name):
    scope = pooled.feature_scope("netvlad", name)
    with tf.Graph().as_default(), tf.variable_scope(scope):
      assert tf.get_variable("v", []).op.name == f"{scope}/v"

  def test_two_features_of_the_same_scope_are_refused(self):
    with pytest.raises(ValueError, match=r"got \['a b', 'a_b'\]"):
      building.make("NetVLADModelLF", feature_names="a b,a_b")

  def test_a_model_takes_features_of_any_name_and_number(self):
    with _build(
      "NetVLADModelLF",
      feature_names="my audio",
      feature_sizes="7",
      netvlad_cluster_size="3",
    ) as built:
      assert "netvlad_my_audio/centres" in built.trainable
      assert built.initial["netvlad_my_audio/centres"].shape == (3, 7)


class TestErrors:
  @pytest.mark.parametrize(
    "name, flag, value, message",
    [
      *((name, "frame_sampling", "some", "'some'") for name in _SAMPLED),
      *((name, "netvlad_hidden_size", 0, "0") for name in _SAMPLED[1:]),
      ("DbofModel", "dbof_hidden_size", 0, "0"),
      ("DbofModel", "dbof_hidden_size", -1, "-1"),
      ("DbofModel", "dbof_cluster_size", 0, "0"),
      ("DbofModel", "dbof_pooling_method", "sum", "'sum'"),
      ("DbofModel", "dbof_activation", "tanh", "'tanh'"),
    ],
  )
  def test_refuses(self, name, flag, value, message):
    # The flag refuses it too; here someone has built the values.
    with pytest.raises(ValueError, match=message):
      _build(name, **{flag: value})

  def test_refuses_two_kinds_of_netvlad_at_once(self):
    with pytest.raises(ValueError, match="--lightvlad and --vlagd"):
      building.make("NetVLADModelLF", lightvlad=True, vlagd=True)

  def test_refuses_centres_that_a_layer_norm_leaves_nothing_of(self):
    with pytest.raises(
      ValueError, match=r"post_norm needs 3 centres .* gives \[4, 2\]"
    ):
      building.make(
        "AttentionNetVLADModel",
        transformer_residual="post_norm",
        netvlad_cluster_size="4,2",
      )
