"""Tests for frame-level models.

Axes: B videos, N frames of the batch, T frames a video, D features, C classes.
"""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import frame_level_models
import video_level_models
from models import pooled
from pooling import democratic, regularizers, transformer
from tests import layers

_SIZES = [5, 2]  # rgb and audio.
_D, _C = 7, 6
DECAY = 0.9  # Of batch norm's and whitening's averages.
_LENGTHS = [4, 0, 1, 6]  # Frames in the file.


def _moe(num_mixtures=1):
  return video_level_models.MoeModel(
    num_mixtures=num_mixtures,
    l2_penalty=1e-6,
    low_rank_gating=-1,
    prob_gating=False,
    prob_gating_input="prob",
    remove_diag=False,
    batch_norm_decay=DECAY,
  )


def _dbof(**kwargs):
  return frame_level_models.DbofModel(
    **{
      "classifier": _moe(),
      "iterations": 5,
      "frame_sampling_method": "uniform",
      "cluster_size": 4,
      "hidden_size": 3,
      "pooling_method": "max",
      "activation": "relu6",
      "add_batch_norm": True,
      "batch_norm_decay": DECAY,
      **kwargs,
    }
  )


def _pooled(**kwargs):
  """What every `models.pooled.PooledModel` takes."""
  return {
    "classifier": _moe(),
    "feature_names": ["rgb", "audio"],
    "feature_sizes": _SIZES,
    "iterations": 5,
    "frame_sampling_method": "uniform",
    "cluster_sizes": [4],
    "hidden_size": 3,
    "hidden_batch_norm": True,
    "relu": False,  # Random units that are all 0 would hide all else.
    "gating": True,
    "gating_remove_diag": False,
    "add_batch_norm": True,
    "batch_norm_decay": DECAY,
    "descriptor_dropout": 0.0,
    "democratic": democratic.Config(
      enabled=False, let_gradients_through=False, projection_size=0
    ),
    "penalties": regularizers.Weights(
      orthogonality=0.0, coding=0.0, locality=0.0
    ),
    **kwargs,
  }


def _netvlad(**kwargs):
  return frame_level_models.NetVLADModelLF(
    **_pooled(**{"residuals": True, **kwargs})
  )


_ENCODER = transformer.Config(
  head_size=2,
  feed_forward_factor=3,
  dropout=0.0,
  attention_dropout=0.0,
  batch_norm="projections",
  residual="zero_init",
)


def _attention_enhanced(**kwargs):
  return frame_level_models.AttentionEnhancedNetVLADModel(
    **_pooled(**{"encoder": _ENCODER, **kwargs})
  )


def _attention(**kwargs):
  return frame_level_models.AttentionNetVLADModel(
    **_pooled(**{"encoder": _ENCODER, "similarity": "softmax", **kwargs})
  )


def _second_order(**kwargs):
  return frame_level_models.SecondOrderModel(
    **_pooled(
      **{
        "residual_whitening": "group",
        "whitening_group_size": 2,
        "second_order_cluster_sizes": [3],
        "projection_size": 2,
        "sketch_size": 0,
        "signed_square_root": True,
        **kwargs,
      }
    )
  )


def _sketched(**kwargs):
  return _second_order(sketch_size=9, **kwargs)


def _logistic():
  return frame_level_models.FrameLevelLogisticModel()


_SAMPLED = {
  "dbof": _dbof,
  "netvlad": _netvlad,
  "attention enhanced": _attention_enhanced,
  "attention": _attention,
  "second order": _second_order,
  "sketched": _sketched,
}
_MODELS = {"logistic": _logistic, **_SAMPLED}
_every_model = pytest.mark.parametrize("make", _MODELS.values(), ids=_MODELS)
_sampled_models = pytest.mark.parametrize(
  "make", _SAMPLED.values(), ids=_SAMPLED
)
_training_or_not = pytest.mark.parametrize(
  "is_training", [True, False], ids=["training", "evaluation"]
)


def _stored(lengths, seed=0):
  """A list of videos, uint8 [n, D]."""
  rng = np.random.RandomState(seed)
  return [rng.randint(0, 256, [n, _D]).astype(np.uint8) for n in lengths]


def _prepared(videos):
  """What a model sees of stored frames: dequantised, of unit length."""
  return [
    np.reshape(
      [
        layers.unit([x * 4 / 255 + 4 / 512 - 2 for x in map(int, frame)])
        for frame in video
      ],
      [len(video), _D],
    )
    for video in videos
  ]


class _Built:
  """create_model of unknown B and T, with random variables."""

  def __init__(self, model, is_training=True, with_gradients=False):
    with tf.Graph().as_default() as graph:
      self._frames = tf.placeholder(tf.float32, [None, None, _D])
      self._num_frames = tf.placeholder(tf.int32, [None])
      result = model.create_model(
        self._frames, _C, num_frames=self._num_frames, is_training=is_training
      )
      self._initializer = tf.global_variables_initializer()
      self.predictions = result["predictions"]
      if with_gradients:
        self.gradients = layers.gradients(self.predictions)
      self.updates = layers.updates()
      self.penalties = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
      self.trainable = layers.names(tf.trainable_variables())
      self.num_trainable = sum(
        math.prod(v.shape.as_list()) for v in tf.trainable_variables()
      )
      self._variables = {v.op.name: v for v in tf.global_variables()}
      self._session = tf.Session(graph=graph)
      self.initial = layers.randomize(self._session)
    assert self.predictions.shape.as_list() == [None, _C]

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._session.close()

  def run(self, fetches, videos, poison=layers.POISON, length=None):
    """Videos: list of [n, D], not empty."""
    padded, real = layers.pad(videos, poison, length)
    return self._session.run(
      fetches, {self._frames: padded, self._num_frames: real.sum(axis=1)}
    )

  def run_without_a_video(self, fetches):
    """A batch that a tower gets if videos are fewer than towers."""
    feed = {self._frames: np.zeros([0, 0, _D]), self._num_frames: []}
    return self._session.run(fetches, feed)

  def load(self, values):
    layers.load(self._session, values)

  def initialize(self):
    """Gives the variables the values that a training starts with."""
    self._session.run(self._initializer)

  def values(self):
    return self._session.run(self._variables)


class _Prepared:
  """prepare_input of unknown N and B."""

  def __init__(self, model, is_training, seed=0):
    with tf.Graph().as_default() as graph:
      tf.set_random_seed(seed)
      self._features = tf.placeholder(tf.uint8, [None, _D])
      self._num_frames = tf.placeholder(tf.int32, [None])
      self.model_input, self.num_real = model.prepare_input(
        self._features, self._num_frames, is_training=is_training
      )
      assert self.model_input.shape.as_list()[2] == _D
      self._session = tf.Session(graph=graph)
      self._build(model, is_training)

  def _build(self, model, is_training):
    pass

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._session.close()

  def run(self, fetches, videos):
    feed = {
      self._features: np.concatenate([np.zeros([0, _D]), *videos]),
      self._num_frames: [len(video) for video in videos],
    }
    return self._session.run(fetches, feed)


class _Whole(_Prepared):
  """prepare_input and create_model, as programs call them."""

  def _build(self, model, is_training):
    result = model.create_model(
      self.model_input,
      _C,
      num_frames=self.num_real,
      is_training=is_training,
      labels=None,  # Callers may know more than the model needs.
    )
    self.predictions = result["predictions"]
    self.gradients = layers.gradients(self.predictions)
    layers.randomize(self._session)


def _normalized(videos, variables, is_training):
  if "input_bn/beta" not in variables:
    return videos
  return layers.per_frame(
    layers.batch_norm, videos, variables, "input_bn", is_training
  )


def _dbof_reference(videos, variables, method, activation, is_training):
  bag = layers.dbof(
    _normalized(videos, variables, is_training),
    variables,
    "dbof",
    method,
    activation,
    is_training,
  )
  hidden = layers.linear(bag, variables, "hidden1", is_training)
  hidden = [[layers.ACTIVATIONS[activation](x) for x in row] for row in hidden]
  return layers.mixture_of_experts(hidden, variables, _C)


def _netvlad_reference(
  videos, variables, *, relu, residuals, gating, remove_diag, is_training
):
  videos = _normalized(videos, variables, is_training)
  descriptors = [[] for _ in videos]
  start = 0
  for name, size in (("rgb", 5), ("audio", 2)):
    feature = [[x[start : start + size] for x in video] for video in videos]
    start += size
    vlads = layers.netvlad(
      feature, variables, f"netvlad_{name}", residuals, is_training
    )
    for descriptor, vlad in zip(descriptors, vlads):
      descriptor += vlad
  hidden = layers.linear(descriptors, variables, "hidden1", is_training)
  if relu:
    hidden = [[layers.relu6(x) for x in row] for row in hidden]
  if gating:
    hidden = layers.context_gating(
      hidden, variables, "gating", remove_diag, is_training
    )
  return layers.mixture_of_experts(hidden, variables, _C)


@_training_or_not
class TestAgainstLoops:
  def test_logistic_sees_the_mean_of_the_real_frames(self, is_training):
    videos = layers.random_videos(_LENGTHS, _D)
    with _Built(_logistic(), is_training) as built:
      actual = built.run(built.predictions, videos)
      means = layers.pool_frames(videos, _D, "average")
      logits = layers.linear(means, built.initial, "logistic", is_training)
    assert means[1] == [0.0] * _D  # The empty video's.
    layers.assert_close(
      actual, [[layers.sigmoid(x) for x in row] for row in logits]
    )

  @pytest.mark.parametrize("add_batch_norm", [True, False])
  @pytest.mark.parametrize(
    "method, activation", [("max", "sigmoid"), ("average", "relu")]
  )
  def test_dbof_matches(self, is_training, add_batch_norm, method, activation):
    videos = layers.random_videos(_LENGTHS, _D)
    model = _dbof(
      add_batch_norm=add_batch_norm,
      pooling_method=method,
      activation=activation,
    )
    with _Built(model, is_training) as built:
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
    videos = layers.random_videos(_LENGTHS, _D)
    model = _netvlad(
      add_batch_norm=add_batch_norm,
      relu=relu,
      residuals=residuals,
      gating=gating,
      gating_remove_diag=remove_diag,
    )
    with _Built(model, is_training) as built:
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
    videos = layers.random_videos(_LENGTHS, _D)
    options = {"relu": relu, "residuals": True, "gating": False}
    model = _netvlad(add_batch_norm=False, **options)
    with _Built(model, is_training) as built:
      # Of a descriptor of norm 2 ** 0.5 the layer makes numbers of size 1.5.
      built.load({"hidden1/biases": [-12.0, 3.0, 12.0]})
      actual = built.run(built.predictions, videos)
      expected = _netvlad_reference(
        videos,
        built.values(),
        remove_diag=False,
        is_training=is_training,
        **options,
      )
    layers.assert_close(actual, expected, rtol=5e-5, atol=5e-6)

  def test_a_model_uses_the_classifier_it_is_given(self, is_training):
    videos = layers.random_videos(_LENGTHS, _D)
    for make in _SAMPLED.values():
      model = make(classifier=video_level_models.LogisticModel())
      with _Built(model, is_training) as built:
        assert "logistic/weights" in built.trainable
        assert "experts/weights" not in built.trainable
        assert built.run(built.predictions, videos).shape == (4, _C)


class TestPaddingAndEmptyVideos:
  @_every_model
  @_training_or_not
  def test_padding_changes_neither_videos_nor_averages(self, make, is_training):
    videos = layers.random_videos(_LENGTHS, _D)
    expected = None
    with _Built(make(), is_training, with_gradients=True) as built:
      fetches = [built.predictions, built.gradients, built.updates]
      for poison, length in ((layers.POISON, 6), (0.0, 6), (-1e3, 7)):
        built.load(built.initial)
        outputs, gradients, _ = built.run(fetches, videos, poison, length)
        actual = {"predictions": outputs, **built.values()}
        if expected is None:
          expected, expected_gradients = actual, gradients
        for name in expected:
          layers.assert_close(actual[name], expected[name])
        for name in expected_gradients:
          # Gradients are of size 10, their terms larger.
          layers.assert_close(
            gradients[name], expected_gradients[name], rtol=1e-4, atol=1e-4
          )

  @_every_model
  def test_a_video_is_evaluated_alike_in_any_company(self, make):
    videos = layers.random_videos(_LENGTHS, _D)
    with _Built(make(), is_training=False) as built:
      together = built.run(built.predictions, videos)
      for row, video in zip(together, videos):
        alone = built.run(built.predictions, [video])
        layers.assert_close(alone, [row])

  @_sampled_models
  def test_an_empty_video_is_in_no_statistic_of_frames(self, make):
    after = []
    for lengths in ([4, 0, 6], [4, 6]):
      videos = layers.random_videos(lengths, _D)
      with _Built(make()) as built:
        built.run(built.updates, videos)
        after.append(built.values())
    names = [
      name
      for name in after[0]
      if not name.startswith(("hidden1/", "gating/"))
      and name.endswith(("moving_mean", "moving_variance", "moving_covariance"))
    ]
    assert (
      len(names)
      == {
        _dbof: 2 * (1 + 1),
        _netvlad: 2 * (1 + 2),
        # Input; for each feature two encoders of two layers, and assignments.
        _attention_enhanced: 2 * (1 + 2 * (2 * 2 + 1)),
        _attention: 2 * (1 + 2 * (2 * 2)),
        # For each feature two assignments and the whitening.
        _second_order: 2 * (1 + 2 * 3),
        _sketched: 2 * (1 + 2 * 3),
      }[make]
    )
    for name in names:
      # Layer norm over audio's two features takes rounding up to 1,000 times.
      layers.assert_close(after[0][name], after[1][name], rtol=1e-4, atol=1e-5)

  @_every_model
  @_training_or_not
  def test_gradients_are_finite(self, make, is_training):
    with _Built(make(), is_training, with_gradients=True) as built:
      assert sorted(built.gradients) == built.trainable
      for lengths in (_LENGTHS, [0, 3], [0, 0], [1]):
        outputs, gradients = built.run(
          [built.predictions, built.gradients],
          layers.random_videos(lengths, _D),
        )
        assert outputs.shape == (len(lengths), _C)
        assert np.isfinite(outputs).all()
        layers.assert_all_finite(gradients)

  @_every_model
  @_training_or_not
  def test_a_batch_without_a_video_is_finite_and_leaves_the_averages(
    self, make, is_training
  ):
    with _Built(make(), is_training, with_gradients=True) as built:
      outputs, gradients, _ = built.run_without_a_video(
        [built.predictions, built.gradients, built.updates]
      )
      for name, value in built.values().items():
        if name.endswith(("moving_mean", "moving_variance")):
          assert value.tolist() == built.initial[name].tolist()
    assert outputs.shape == (0, _C)
    layers.assert_all_finite(gradients)

  @_every_model
  @_training_or_not
  def test_probabilities_are_within_0_and_1(self, make, is_training):
    videos = [1e3 * v for v in layers.random_videos(_LENGTHS, _D)]
    with _Built(make(), is_training) as built:
      outputs = built.run(built.predictions, videos)
    assert outputs.min() >= 0.0
    assert outputs.max() <= 1.0 + 2e-7  # Shares that sum to 1, rounded.


class TestPrepareInput:
  def _check(self, model, is_training, choose, num_real):
    """Compares with the frames `choose(n)` of each video."""
    videos = _stored(_LENGTHS)
    with _Prepared(model, is_training) as prepared:
      frames, real = prepared.run(
        [prepared.model_input, prepared.num_real], videos
      )
    assert real.tolist() == num_real
    for b, video in enumerate(_prepared(videos)):
      for t in range(num_real[b]):
        # A byte near the middle is what is left of two numbers of size 2.
        layers.assert_close(frames[b, t], video[choose(len(video))[t]])
    # Padding too, so that it cannot overflow.
    assert np.abs(frames).max() <= 1.0 + 1e-6
    return frames

  @_sampled_models
  @pytest.mark.parametrize(
    "method", ["uniform", "random_frames", "random_sequence"]
  )
  def test_evaluation_is_uniform_whatever_training_is(self, make, method):
    frames = self._check(
      make(frame_sampling_method=method),
      False,
      lambda n: [i * n // 5 for i in range(5)],
      [5, 0, 5, 5],  # A short video's frames are repeated.
    )
    assert frames.shape == (4, 5, _D)

  @_sampled_models
  def test_training_is_uniform_if_asked_for(self, make):
    self._check(
      make(frame_sampling_method="uniform"),
      True,
      lambda n: [i * n // 5 for i in range(5)],
      [5, 0, 5, 5],
    )

  @_training_or_not
  @pytest.mark.parametrize(
    "iterations, method",
    [(0, "uniform"), (0, "random_frames"), (-1, "random_sequence")],
  )
  @_sampled_models
  def test_fewer_than_one_iteration_is_all_frames(
    self, make, iterations, method, is_training
  ):
    frames = self._check(
      make(iterations=iterations, frame_sampling_method=method),
      is_training,
      lambda n: list(range(n)),
      _LENGTHS,
    )
    assert frames.shape == (4, 6, _D)

  @_training_or_not
  def test_logistic_takes_all_frames(self, is_training):
    frames = self._check(
      _logistic(), is_training, lambda n: list(range(n)), _LENGTHS
    )
    assert frames.shape == (4, 6, _D)

  @_sampled_models
  def test_random_frames_are_frames_of_the_same_video(self, make):
    videos = _stored(_LENGTHS)
    model = make(frame_sampling_method="random_frames")
    with _Prepared(model, is_training=True) as prepared:
      frames, real = prepared.run(
        [prepared.model_input, prepared.num_real], videos
      )
    assert real.tolist() == [5, 0, 5, 5]
    for b, video in enumerate(_prepared(videos)):
      for t in range(real[b]):
        assert min(np.abs(video - frames[b, t]).max(axis=1)) < 1e-6

  @_sampled_models
  def test_a_random_sequence_of_a_short_video_is_masked(self, make):
    videos = _stored(_LENGTHS)
    model = make(frame_sampling_method="random_sequence")
    with _Prepared(model, is_training=True) as prepared:
      frames, real = prepared.run(
        [prepared.model_input, prepared.num_real], videos
      )
    assert real.tolist() == [4, 0, 1, 5]
    for b, video in enumerate(_prepared(videos)):
      if not len(video):
        continue
      distance = np.abs(video - frames[b, 0]).max(axis=1)
      start = int(distance.argmin())
      for t in range(real[b]):
        layers.assert_close(frames[b, t], video[start + t])

  @_every_model
  @_training_or_not
  def test_real_frames_have_unit_length(self, make, is_training):
    with _Prepared(make(), is_training) as prepared:
      frames, real = prepared.run(
        [prepared.model_input, prepared.num_real], _stored(_LENGTHS)
      )
    for b, n in enumerate(real):
      for t in range(n):
        assert layers.dot(frames[b, t], frames[b, t]) == pytest.approx(
          1.0, rel=1e-5
        )


class TestWholeModel:
  @_every_model
  @_training_or_not
  def test_empty_videos_pass_from_the_reader_to_the_gradients(
    self, make, is_training
  ):
    with _Whole(make(), is_training) as whole:
      for lengths in ([], [0], [0, 0, 0], [3, 0], [0, 2, 0]):
        outputs, gradients = whole.run(
          [whole.predictions, whole.gradients], _stored(lengths)
        )
        assert outputs.shape == (len(lengths), _C)
        assert np.isfinite(outputs).all()
        layers.assert_all_finite(gradients)

  @_sampled_models
  @pytest.mark.parametrize("iterations", [5, 0])
  def test_evaluation_gives_the_same_answer_twice(self, make, iterations):
    model = make(frame_sampling_method="random_frames", iterations=iterations)
    videos = _stored(_LENGTHS)
    answers = []
    for seed in (1, 2):
      with _Whole(model, is_training=False, seed=seed) as whole:
        answers += [whole.run(whole.predictions, videos) for _ in range(2)]
    for answer in answers[1:]:
      assert np.array_equal(answer, answers[0])

  @_sampled_models
  @pytest.mark.parametrize("method", ["random_frames", "random_sequence"])
  def test_random_sampling_differs_between_training_steps(self, make, method):
    model = make(frame_sampling_method=method)
    # 36 and 40 runs of five frames to choose from.
    videos = _stored([40, 44, 3])
    with _Whole(model, is_training=True) as whole:
      first, second = (whole.run(whole.predictions, videos) for _ in range(2))
    assert not np.allclose(first, second)

  @_sampled_models
  def test_uniform_sampling_does_not(self, make):
    videos = _stored([40, 44, 3])
    with _Whole(make(), is_training=True) as whole:
      first, second = (whole.run(whole.predictions, videos) for _ in range(2))
    assert np.array_equal(first, second)


class TestVariables:
  def test_logistic_has_these(self):
    with _Built(_logistic()) as built:
      assert built.trainable == ["logistic/biases", "logistic/weights"]
      assert built.num_trainable == 7 * 6 + 6
      weights = built.initial["logistic/weights"]
      (penalty,) = built.run(built.penalties, layers.random_videos([1], _D))
    assert penalty == pytest.approx(
      1e-8 * sum(w * w / 2 for w in weights.ravel()), rel=1e-5
    )

  @_training_or_not
  def test_dbof_has_these(self, is_training):
    with _Built(_dbof(), is_training) as built:
      assert sorted(built.initial) == [
        "dbof/cluster/batch_norm/beta",
        "dbof/cluster/batch_norm/gamma",
        "dbof/cluster/batch_norm/moving_mean",
        "dbof/cluster/batch_norm/moving_variance",
        "dbof/cluster/batch_norm/num_updates",
        "dbof/cluster/weights",
        "experts/biases",
        "experts/weights",
        "gates/weights",
        "hidden1/batch_norm/beta",
        "hidden1/batch_norm/gamma",
        "hidden1/batch_norm/moving_mean",
        "hidden1/batch_norm/moving_variance",
        "hidden1/batch_norm/num_updates",
        "hidden1/weights",
        "input_bn/beta",
        "input_bn/gamma",
        "input_bn/moving_mean",
        "input_bn/moving_variance",
        "input_bn/num_updates",
      ]
      assert len(built.updates) == (3 if is_training else 0)
      # Input; clusters; hidden layer; gates of 1 + 1 mixtures; experts.
      assert built.num_trainable == (
        2 * 7
        + (7 * 4 + 2 * 4)
        + (4 * 3 + 2 * 3)
        + 3 * 2 * 6
        + (3 * 1 * 6 + 1 * 6)
      )

  def test_dbof_without_batch_norm_has_biases(self):
    with _Built(_dbof(add_batch_norm=False)) as built:
      assert built.trainable == [
        "dbof/cluster/biases",
        "dbof/cluster/weights",
        "experts/biases",
        "experts/weights",
        "gates/weights",
        "hidden1/biases",
        "hidden1/weights",
      ]
      assert sorted(built.initial) == built.trainable
      assert built.num_trainable == (
        (7 * 4 + 4) + (4 * 3 + 3) + 3 * 2 * 6 + (3 * 1 * 6 + 1 * 6)
      )

  @_training_or_not
  def test_netvlad_has_these(self, is_training):
    with _Built(_netvlad(), is_training) as built:
      assert sorted(built.initial) == [
        "experts/biases",
        "experts/weights",
        "gates/weights",
        "gating/batch_norm/beta",
        "gating/batch_norm/gamma",
        "gating/batch_norm/moving_mean",
        "gating/batch_norm/moving_variance",
        "gating/batch_norm/num_updates",
        "gating/weights",
        "hidden1/batch_norm/beta",
        "hidden1/batch_norm/gamma",
        "hidden1/batch_norm/moving_mean",
        "hidden1/batch_norm/moving_variance",
        "hidden1/batch_norm/num_updates",
        "hidden1/weights",
        "input_bn/beta",
        "input_bn/gamma",
        "input_bn/moving_mean",
        "input_bn/moving_variance",
        "input_bn/num_updates",
        "netvlad_audio/assign/batch_norm/beta",
        "netvlad_audio/assign/batch_norm/gamma",
        "netvlad_audio/assign/batch_norm/moving_mean",
        "netvlad_audio/assign/batch_norm/moving_variance",
        "netvlad_audio/assign/batch_norm/num_updates",
        "netvlad_audio/assign/weights",
        "netvlad_audio/centres",
        "netvlad_rgb/assign/batch_norm/beta",
        "netvlad_rgb/assign/batch_norm/gamma",
        "netvlad_rgb/assign/batch_norm/moving_mean",
        "netvlad_rgb/assign/batch_norm/moving_variance",
        "netvlad_rgb/assign/batch_norm/num_updates",
        "netvlad_rgb/assign/weights",
        "netvlad_rgb/centres",
      ]
      assert len(built.updates) == (5 if is_training else 0)

  def test_a_hidden_layer_without_batch_norm_is_willows(self):
    # K = 16, and enough units to tell deviations by.
    model = _netvlad(
      hidden_batch_norm=False, cluster_sizes=[16], hidden_size=97
    )
    with _Built(model) as built:
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

  @pytest.mark.parametrize("num_mixtures", [1, 2])
  def test_netvlad_has_this_many_parameters(self, num_mixtures):
    with _Built(_netvlad(classifier=_moe(num_mixtures))) as built:
      # Input; 4 centres of 5 and half as many of 2: weights, batch norm,
      # centres; hidden layer; its gates; gates of mixtures; experts.
      assert built.num_trainable == (
        2 * 7
        + (5 * 4 + 2 * 4 + 4 * 5)
        + (2 * 2 + 2 * 2 + 2 * 2)
        + ((4 * 5 + 2 * 2) * 3 + 2 * 3)
        + (3 * 3 + 2 * 3)
        + 3 * (num_mixtures + 1) * 6
        + (3 * num_mixtures * 6 + num_mixtures * 6)
      )

  def test_a_lean_netvlad_has_these(self):
    model = _netvlad(
      add_batch_norm=False, residuals=False, gating=False, cluster_sizes=[3, 5]
    )
    with _Built(model) as built:
      assert built.trainable == [
        "experts/biases",
        "experts/weights",
        "gates/weights",
        "hidden1/biases",
        "hidden1/weights",
        "netvlad_audio/assign/biases",
        "netvlad_audio/assign/weights",
        "netvlad_rgb/assign/biases",
        "netvlad_rgb/assign/weights",
      ]
      assert sorted(built.initial) == built.trainable
      assert built.num_trainable == (
        (5 * 3 + 3)
        + (2 * 5 + 5)
        + ((3 * 5 + 5 * 2) * 3 + 3)
        + 3 * 2 * 6
        + (3 * 1 * 6 + 1 * 6)
      )


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
      _netvlad(cluster_sizes=sizes)

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
    frames = np.arange(2 * 3 * _D, dtype=np.float32).reshape(2, 3, _D)
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
        pooled.split_features(tf.zeros([2, 3, _D]), sizes)

  def test_the_model_refuses_them_too(self):
    with pytest.raises(ValueError, match="sum to 8, but"):
      _Built(_netvlad(feature_sizes=[5, 3]))


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
      _netvlad(feature_names=["a b", "a_b"])

  def test_a_model_takes_features_of_any_name_and_number(self):
    model = _netvlad(
      feature_names=["my audio"], feature_sizes=[7], cluster_sizes=[3]
    )
    with _Built(model) as built:
      assert "netvlad_my_audio/centres" in built.trainable
      assert built.initial["netvlad_my_audio/centres"].shape == (3, 7)


class TestErrors:
  @_sampled_models
  def test_refuses_an_unknown_sampling(self, make):
    with pytest.raises(ValueError, match=r"'random_sequence'.*got 'some'"):
      make(frame_sampling_method="some")

  def test_dbof_refuses_an_unknown_pooling(self):
    with pytest.raises(ValueError, match="'average' or 'max', got 'sum'"):
      _Built(_dbof(pooling_method="sum"))

  def test_dbof_refuses_an_unknown_activation(self):
    with pytest.raises(ValueError, match="got 'tanh'"):
      _Built(_dbof(activation="tanh"))

  @_sampled_models
  @pytest.mark.parametrize("hidden_size", [0, -1])
  def test_refuses_no_hidden_unit(self, make, hidden_size):
    with pytest.raises(ValueError, match=f"K={hidden_size}"):
      _Built(make(hidden_size=hidden_size))

  def test_dbof_refuses_no_cluster(self):
    with pytest.raises(ValueError, match="K=0"):
      _Built(_dbof(cluster_size=0))
