"""Walks the frame-level models: padding, empty videos, sampling, sizes.

Each is built once in training and once in evaluation; nothing here knows a
model by name, but for variants that take another path.
"""

import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
from models import registry
from pooling import whitening
from tests import graphs, layers, runs
from tests.models import building
from tests.references import layers as references

D, C, LENGTHS = building.D, building.C, building.LENGTHS
NAMES = [
  name for name in model_flags.model_names() if model_flags.is_frame_level(name)
]
_CASES = {
  **{name: {"model": name} for name in NAMES},
  "sketched": {"model": "SecondOrderModel", "second_order_sketch_size": 9},
  "transported": {"model": "NetVLADModelLF", "assignment": "sinkhorn"},
  "in parts": {"model": "NetVLADModelLF", "temporal_parts": 2},
}
SAMPLED = [
  name
  for name in NAMES
  if "frame_sampling" in model_flags.used_flags(building.values(name))
]

# Audio has one centre or unit, NeXtVLAD's gates one unit, which may be off.
# Shifts are undone where batch norm, a softmax or Sinkhorn's rounds follow.
_MAY_VANISH = re.compile("_audio/|gating/|beta$|dustbin$")


def _one_of_each_way(names):
  """Of the models that prepare their input by the same code, the first."""
  ways = {}
  for name in names:
    cls = registry.get(name)
    select_frames = getattr(cls, "select_frames", None)
    way = (cls.choose_input, cls.scale_input, select_frames)
    ways.setdefault(way, name)
  return list(ways.values())


def _build(case, is_training):
  changes = dict(_CASES[case])
  # Evaluation does not sample at random, whatever the flag says.
  changes["frame_sampling"] = "uniform" if is_training else "random_frames"
  if not is_training:  # One feature: two are twice the graph.
    changes |= {"feature_names": "rgb", "feature_sizes": str(D)}
  model = building.make(changes.pop("model"), **changes)
  return building.Built(model, is_training)


@pytest.fixture(scope="module", params=_CASES)
def training(request):
  """A model in training, its variables random."""
  with _build(request.param, is_training=True) as built:
    yield built


@pytest.fixture(scope="module", params=_CASES)
def evaluation(request):
  """A model in evaluation."""
  with _build(request.param, is_training=False) as built:
    yield built


def _assert_padding_changes_nothing(built):
  videos = layers.random_videos(LENGTHS, D)
  fetches = [built.predictions, built.gradients, built.updates]
  expected = None
  for poison, length in ((layers.POISON, 6), (0.0, 6), (-1e3, 7)):
    built.load(built.initial)
    outputs, gradients, _ = built.run(fetches, videos, poison, length)
    actual = {"predictions": outputs, **built.values()}
    if expected is None:
      expected, expected_gradients = actual, gradients
    for name in expected:
      layers.assert_close(actual[name], expected[name])
    for name in expected_gradients:
      layers.assert_close(
        gradients[name], expected_gradients[name], rtol=1e-4, atol=1e-5
      )


def _assert_finite(built):
  """Whatever videos come, from the reader or otherwise, or if none comes."""
  built.load(built.initial)
  fetches = [built.predictions, built.gradients]
  for lengths in (LENGTHS, [0, 3], [0, 0], [1]):
    videos = layers.random_videos(lengths, D)
    outputs, gradients = built.run(fetches, videos)
    assert outputs.shape == (len(lengths), C)
    layers.assert_all_finite({"predictions": outputs, **gradients})
  for lengths in ([], [0], [0, 0, 0], [3, 0], [0, 2, 0]):
    outputs, gradients = built.run_stored(fetches, building.stored(lengths))
    assert outputs.shape == (len(lengths), C)
    layers.assert_all_finite({"predictions": outputs, **gradients})
  built.run_stored([*fetches, built.updates], [])
  for name, value in built.values().items():
    if name.endswith(("moving_mean", "moving_variance")):
      assert value.tolist() == built.initial[name].tolist(), name


def _assert_probabilities(built):
  built.load(built.initial)
  videos = [1e3 * v for v in layers.random_videos(LENGTHS, D)]
  outputs = built.run(built.predictions, videos)
  assert outputs.min() >= 0.0
  assert outputs.max() <= 1.0 + 2e-7  # Shares that sum to 1, rounded.


@pytest.mark.slow
class TestTraining:
  def test_every_variable_has_a_gradient(self, training):
    assert sorted(training.gradients) == training.trainable
    training.load(training.initial)
    videos = layers.random_videos(LENGTHS, D)
    fetches = [training.predictions, training.gradients]
    _, gradients = training.run(fetches, videos)
    vanishing = [n for n, g in gradients.items() if np.abs(g).max() < 1e-6]
    assert [n for n in vanishing if not _MAY_VANISH.search(n)] == []

  def test_padding_changes_neither_videos_nor_averages(self, training):
    _assert_padding_changes_nothing(training)

  def test_empty_videos_and_batches_are_finite(self, training):
    _assert_finite(training)

  def test_predicts_probabilities(self, training):
    _assert_probabilities(training)

  def test_an_empty_video_is_in_no_statistic_of_frames(self, training):
    after = []
    for lengths in ([4, 0, 6], [4, 6]):
      training.load(training.initial)
      videos = layers.random_videos(lengths, D)
      training.run([training.predictions, training.updates], videos)
      after.append(training.values())
    for name, value in after[0].items():
      # These see videos.
      if re.search("(^|/)(hidden1|gating|vlad_bn_.*|mixture)/", name):
        continue
      if name.endswith(("moving_mean", "moving_variance", "moving_covariance")):
        assert np.any(value != training.initial[name]), name
        # Layer norm over audio's two features takes rounding up to 1,000 times.
        layers.assert_close(value, after[1][name], rtol=1e-4, atol=1e-5)

  def test_uniform_sampling_is_the_same_at_each_step(self, training):
    training.load(training.initial)
    videos = building.stored([40, 44, 3])
    first, second = (
      training.run_stored(training.predictions, videos) for _ in range(2)
    )
    assert np.array_equal(first, second)


class TestEvaluation:
  def test_padding_changes_nothing(self, evaluation):
    _assert_padding_changes_nothing(evaluation)

  def test_empty_videos_and_batches_are_finite(self, evaluation):
    _assert_finite(evaluation)

  def test_predicts_probabilities(self, evaluation):
    _assert_probabilities(evaluation)

  def test_a_video_is_evaluated_alike_in_any_company(self, evaluation):
    evaluation.load(evaluation.initial)
    videos = layers.random_videos(LENGTHS, D)
    together = evaluation.run(evaluation.predictions, videos)
    for row, video in zip(together, videos):
      alone = evaluation.run(evaluation.predictions, [video])
      layers.assert_close(alone, [row])

  def test_gives_the_same_answer_twice(self, evaluation):
    evaluation.load(evaluation.initial)
    videos = building.stored([40, 44, 3])
    first, second = (
      evaluation.run_stored(evaluation.predictions, videos) for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert evaluation.updates == []


def _uniform(length):
  return [i * length // 5 for i in range(5)]


def _check_prepared(model, is_training, choose, num_real):
  """Compares with the frames `choose(n)` of each video."""
  videos = building.stored(LENGTHS)
  with building.Prepared(model, is_training) as built:
    frames, real = built.run_stored([built.model_input, built.num_real], videos)
  assert real.tolist() == num_real
  for b, video in enumerate(building.prepared(videos)):
    for t in range(num_real[b]):
      # A byte near the middle is what is left of two numbers of size 2.
      layers.assert_close(frames[b, t], video[choose(len(video))[t]])
      length = references.dot(frames[b, t], frames[b, t])
      assert length == pytest.approx(1.0, rel=1e-5)
  # Padding too, so that it cannot overflow.
  assert np.abs(frames).max() <= 1.0 + 1e-6
  return frames


class TestPrepareInput:
  @pytest.mark.parametrize("name", _one_of_each_way(SAMPLED))
  def test_evaluation_is_uniform_whatever_training_is(self, name):
    for method in ("uniform", "random_frames", "random_sequence"):
      frames = _check_prepared(
        building.make(name, frame_sampling=method),
        False,
        _uniform,
        [5, 0, 5, 5],  # A short video's frames are repeated.
      )
      assert frames.shape == (4, 5, D)

  @pytest.mark.parametrize("name", _one_of_each_way(SAMPLED))
  def test_training_is_uniform_if_asked_for(self, name):
    model = building.make(name, frame_sampling="uniform")
    _check_prepared(model, True, _uniform, [5, 0, 5, 5])

  @pytest.mark.parametrize("name", _one_of_each_way(NAMES))
  def test_no_iterations_are_all_frames(self, name):
    for is_training in (True, False):
      for method in ("uniform", "random_frames", "random_sequence"):
        frames = _check_prepared(
          building.make(name, iterations=0, frame_sampling=method),
          is_training,
          lambda n: list(range(n)),
          LENGTHS,
        )
        assert frames.shape == (4, 6, D)

  @pytest.mark.parametrize("name", _one_of_each_way(SAMPLED))
  def test_random_frames_are_others_of_the_same_video_each_time(self, name):
    videos = building.stored([*LENGTHS, 40])
    model = building.make(name, frame_sampling="random_frames")
    with building.Prepared(model, is_training=True) as built:
      (frames, real), (others, _) = (
        built.run_stored([built.model_input, built.num_real], videos)
        for _ in range(2)
      )
    assert real.tolist() == [5, 0, 5, 5, 5]
    for b, video in enumerate(building.prepared(videos)):
      for t in range(real[b]):
        assert min(np.abs(video - frames[b, t]).max(axis=1)) < 1e-6
    assert not np.allclose(frames[4], others[4])

  def test_random_frames_of_parts_in_time_are_in_order(self):
    [video] = building.stored([40])
    model = building.make(
      "NetVLADModelLF",
      frame_sampling="random_frames",
      iterations=9,
      temporal_parts=2,
    )
    with building.Prepared(model, is_training=True) as built:
      [frames] = built.run_stored(built.model_input, [video])
    [known] = building.prepared([video])
    places = [np.abs(known - frame).sum(axis=1).argmin() for frame in frames]
    assert places == sorted(places)
    assert len(set(places)) > 1

  @pytest.mark.parametrize("name", _one_of_each_way(SAMPLED))
  def test_a_random_sequence_is_another_run_of_frames_each_time(self, name):
    # 36 runs of five frames of the last one to choose from.
    videos = building.stored([*LENGTHS, 40, 40, 40])
    model = building.make(name, frame_sampling="random_sequence")
    with building.Prepared(model, is_training=True) as built:
      (frames, real), (others, _) = (
        built.run_stored([built.model_input, built.num_real], videos)
        for _ in range(2)
      )
    assert real.tolist() == [4, 0, 1, 5, 5, 5, 5]  # Short ones are masked.
    for b, video in enumerate(building.prepared(videos)):
      if len(video):
        distance = np.abs(video - frames[b, 0]).max(axis=1)
        start = int(distance.argmin())
        for t in range(real[b]):
          layers.assert_close(frames[b, t], video[start + t])
    assert not np.allclose(frames[4:], others[4:])


# Each model, and what the paper left open switched on, where it could matter.
_LARGE = {
  **{name: {} for name in NAMES},
  "NetVLADModelLF democratic": {
    "democratic_weights": True,
    "democratic_gradients": True,
  },
  "NetVLADModelLF sinkhorn": {"assignment": "sinkhorn"},
  "NetVLADModelLF penalised": {
    "orthogonality_penalty": 1.0,
    "coding_penalty": 1.0,
    "locality_penalty": 1.0,
  },
  "AttentionEnhancedNetVLADModel logits": {
    "attention_batch_norm": "logits",
    "attention_dropout": 0.1,
  },
  "AttentionNetVLADModel relu": {
    "cluster_similarity": "relu",
    "democratic_weights": True,
  },
  # Fewer centres than features in a group.
  "SecondOrderModel few centres": {
    "netvlad_cluster_size": "8",
    "second_order_cluster_size": "8",
    "second_order_projection_size": 32,
  },
  "SecondOrderModel diagonal": {"residual_whitening": "diagonal"},
  "SecondOrderModel unwhitened": {"residual_whitening": "none"},
  "SecondOrderModel democratic": {
    "democratic_weights": True,
    "democratic_gradients": True,
    "democratic_projection_size": 16,
  },
  "SecondOrderModel sketched": {
    "second_order_sketch_size": 2048,
    "second_order_cluster_size": "32",
    "democratic_weights": True,
  },
}


@pytest.mark.parametrize("case", _LARGE)
def test_no_tensor_is_as_large_as_the_residuals(case, monkeypatch):
  b, t, k, d = 2, 64, 32, 256
  # A large batch, of which the statistics of whitening see a part.
  monkeypatch.setattr(whitening, "_MOST_FRAMES", 32)
  values = runs.model_values(
    **{
      "model": case.split()[0],
      "frame_features": True,
      "feature_names": "rgb",
      "feature_sizes": str(d),
      "netvlad_cluster_size": str(k),
      "attention_size": 128,
      "pma_frame_blocks": 1,
      "pma_seed_blocks": 1,
      "boq_layers": 1,
      "dbof_cluster_size": k,
      "fv_cluster_size": str(k),
      "nextvlad_cluster_size": str(k),
      "nextvlad_hidden_size": 64,
      **_LARGE[case],
    }
  )
  num_centres = int(values["netvlad_cluster_size"])
  model = model_flags.build_model(values)
  with tf.Graph().as_default() as graph:
    result = model.create_model(
      tf.placeholder(tf.float32, [b, t, d]),
      C,
      num_frames=tf.constant([t, t - 1]),
      is_training=True,
    )
    terms = result.get("regularization_losses", {}).values()
    loss = tf.reduce_sum(result["predictions"] ** 2) + sum(terms)
    gradients = tf.gradients(loss, tf.trainable_variables())
    assert None not in gradients
    known, unknown = graphs.sizes(graph)
  # Loops' stacks are handles, their conditions have arguments that they don't
  # look at, and batch norm's kernel keeps something for itself on a GPU. What a
  # gradient sums over is a list of axes.
  unknown = [
    tensor
    for tensor in unknown
    if tensor.dtype not in (tf.variant, tf.resource)
    and "redundant_placeholder" not in tensor.name
  ]
  kinds = {tensor.op.type for tensor in unknown}
  known_kinds = {"FusedBatchNormV3", "ZerosLike", "BroadcastGradientArgs"}
  assert kinds <= known_kinds, unknown
  largest = max(known, key=known.get)
  assert known[largest] < b * t * num_centres * d, (largest, known[largest])
