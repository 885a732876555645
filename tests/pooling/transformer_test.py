"""Tests for the encoder. Axes: B videos, T tokens, D features, H heads of h."""

import functools
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import transformer
from tests import graphs, layers
from tests.references import layers as references
from tests.references import transformer as loops

_D, _SIZE, _FACTOR = 7, 3, 2  # Two heads, and a feature too many for them.
# B is 4 and T is 5: full, ragged, with empty videos, and nothing else.
_LENGTHS = ([5, 5, 5, 5], [5, 2, 0, 1], [0, 0, 0, 0])


def _config(batch_norm="none", **kwargs):
  return transformer.Config(
    **{
      "head_size": _SIZE,
      "feed_forward_factor": _FACTOR,
      "dropout": 0.0,
      "attention_dropout": 0.0,
      "batch_norm": batch_norm,
      "residual": "zero_init",
      **kwargs,
    }
  )


def _layer(
  layer=transformer.encoder, depth=_D, is_training=True, decay=0.9, **kwargs
):
  """`layers.Layer` of an encoder, or of its attention."""
  return layers.Layer(
    functools.partial(layer, mode=layers.mode(is_training, decay), **kwargs),
    inputs=[None, None, depth],
    mask=[None, None],
  )


def _random_operations(graph):
  return sorted(
    tensor.op.name
    for tensor in graphs.tensors(graph)
    if "Random" in tensor.op.type and "Initializer" not in tensor.op.name
  )


class _Attention:
  """Queries, keys and values, and what the loop makes of them."""

  _H, _SIZE = 3, 2
  _MASK = np.arange(5) < np.array([[5], [2], [0], [1]])

  def _qkv(self, dtype):
    shape = [*self._MASK.shape, self._H, self._SIZE]
    rng = np.random.RandomState(0)
    return [
      np.swapaxes(rng.randn(*shape), 1, 2).astype(dtype) for _ in range(3)
    ]

  def _build(self, qkv, mask=_MASK, **kwargs):
    """Outputs and gradients under random weights: functions of a feed."""
    placeholders = [
      tf.placeholder(x.dtype, [None, self._H, None, x.shape[3]]) for x in qkv
    ]
    masks = tf.placeholder(tf.bool, [None, None])
    outputs = transformer.attention(*placeholders, masks, **kwargs)
    upstream = np.random.RandomState(9).randn(*qkv[0].shape)
    upstream = upstream.astype(qkv[0].dtype)
    gradients = tf.gradients(outputs, placeholders, tf.constant(upstream))
    feed = {**dict(zip(placeholders, qkv)), masks: mask}
    return outputs, gradients, feed, upstream

  def _expected(self, qkv, factors=None):
    expected = np.zeros(qkv[0].shape)
    for b, head in np.ndindex(*qkv[0].shape[:2]):
      expected[b, head] = loops.attend(
        *(x[b, head] for x in qkv),
        self._MASK[b],
        None if factors is None else factors[b, head],
      )
    return expected

  def _differences(self, qkv, upstream, factors=None, step=1e-5):
    """Central differences of the loop, head by head."""
    results = [np.zeros(x.shape) for x in qkv]
    for b, head in np.ndindex(*qkv[0].shape[:2]):
      parts = [x[b, head].astype(float) for x in qkv]
      given = None if factors is None else factors[b, head]
      for part, result in zip(parts, results):
        for place in np.ndindex(*part.shape):
          value, sides = part[place], []
          for moved in (value + step, value - step):
            part[place] = moved
            outputs = loops.attend(*parts, self._MASK[b], given)
            sides.append(
              references.dot(np.ravel(outputs), np.ravel(upstream[b, head]))
            )
          part[place] = value
          result[b, head][place] = (sides[0] - sides[1]) / (2 * step)
    return results

  def _assert_equal(self, gradients, differences):
    for number, (found, expected) in enumerate(zip(gradients, differences)):
      # The weights of an empty video are all equal, and yet those of a softmax
      # in its gradient, as plain attention has it.
      some = slice(None) if number == 2 else self._MASK.any(axis=1)
      layers.assert_close(found[some], expected[some], rtol=1e-7, atol=1e-8)


class TestAttention(_Attention):
  @pytest.mark.parametrize("dtype", [np.float32, np.float64])
  def test_matches_the_loop(self, dtype):
    qkv = self._qkv(dtype)
    clean = self._expected(qkv)
    for x in qkv[1:]:  # Keys and values of padding, not of an empty video.
      for b in (1, 3):
        x[b, :, self._MASK[b].sum() :] = layers.POISON
    with tf.Graph().as_default(), tf.Session() as session:
      outputs, _, feed, _ = self._build(qkv)
      assert outputs.dtype == dtype
      actual = session.run(outputs, feed)
    layers.assert_close(actual, self._expected(qkv))
    layers.assert_close(actual, clean)
    if dtype == np.float64:
      layers.assert_close(actual, clean, rtol=1e-12, atol=1e-12)

  def test_gradients_match_finite_differences_of_the_loop(self):
    qkv = self._qkv(np.float64)
    with tf.Graph().as_default(), tf.Session() as session:
      _, gradients, feed, upstream = self._build(qkv)
      actual = session.run(gradients, feed)
    self._assert_equal(actual, self._differences(qkv, upstream))
    for found in actual[1:]:
      assert not found[1, :, 2:].any()
      assert not found[3, :, 1:].any()

  def test_no_dropout_draws_nothing(self):
    with tf.Graph().as_default() as graph:
      self._build(self._qkv(np.float32))
      assert _random_operations(graph) == []


@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("batch", [5, 0])
def test_attention_is_the_same_in_blocks_of_any_size(batch, is_static):
  """Of one video, of two with one that is padding, of all of them."""
  heads, length, size = 2, 4, 3
  rng = np.random.RandomState(0)
  arrays = rng.randn(4, batch, heads, length, size).astype(np.float32)
  mask = rng.rand(batch, length) < 0.7
  per_video = 4 * 4 * heads * length**2
  outcomes = []
  for memory in (1, 2 * per_video, 3 * per_video + 1, 0):
    with tf.Graph().as_default() as graph, tf.Session() as session:
      known = [batch, heads, length, size]
      shape = known if is_static else [None, heads, None, size]
      fed = [tf.placeholder(tf.float32, shape) for _ in arrays]
      real = tf.placeholder(tf.bool, shape[::2])
      outputs = transformer.attention(*fed[:3], real, memory=memory)
      gradients = tf.gradients(outputs, fed[:3], fed[3])
      if is_static:
        assert outputs.shape.as_list() == known
        _, unknown = graphs.sizes(graph)
        assert not [x for x in unknown if x.op.type == "BatchMatMulV2"]
      feed = dict(zip([*fed, real], [*arrays, mask], strict=True))
      outcomes.append(session.run([outputs, *gradients], feed))
  for outcome in outcomes[1:]:
    for found, expected in zip(outcome, outcomes[0], strict=True):
      assert found.shape == (batch, heads, length, size)
      layers.assert_close(found, expected)


class TestAttentionDropout(_Attention):
  """With values of identity matrices, outputs are the weights."""

  _SIZE, _RATE = 5, 0.3

  def _weights(self, qkv, **kwargs):
    qkv[2][:] = np.eye(5)
    return self._build(qkv, dropout_rate=self._RATE, **kwargs)

  def test_backward_drops_what_forward_dropped(self):
    qkv = self._qkv(np.float64)
    with tf.Graph().as_default(), tf.Session() as session:
      outputs, gradients, feed, upstream = self._weights(qkv)
      actual, found = session.run([outputs, gradients], feed)
    weights = self._expected(qkv)
    factors = np.zeros(weights.shape)
    for place in np.ndindex(*weights.shape):
      if weights[place] > 0.0:
        factors[place] = actual[place] / weights[place]
    for b, real in enumerate(self._MASK):
      seen = factors[b] if not real.any() else factors[b][:, :, real]
      # Each is dropped or scaled up.
      for factor in seen.ravel():
        assert min(abs(factor), abs(factor - 1 / 0.7)) < 1e-9
    assert 0 < (factors[0] == 0.0).sum() < factors[0].size
    expected = self._differences(qkv, upstream, factors)
    self._assert_equal(found, expected)

  def test_each_run_each_video_and_each_head_drops_others(self):
    qkv = [np.repeat(x[:1], 4, axis=0) for x in self._qkv(np.float32)]
    mask = np.ones([4, 5], bool)
    with tf.Graph().as_default(), tf.Session() as session:
      outputs, _, feed, _ = self._weights(qkv, mask=mask)
      dropped = [session.run(outputs, feed) == 0.0 for _ in range(2)]
    patterns = {part.tobytes() for run in dropped for v in run for part in v}
    assert len(patterns) == 2 * 4 * self._H

  def test_the_mean_is_that_of_no_dropout(self):
    number = 2000
    qkv = [np.repeat(x[:1], number, axis=0) for x in self._qkv(np.float32)]
    with tf.Graph().as_default(), tf.Session() as session:
      outputs, _, feed, _ = self._weights(qkv, mask=np.ones([number, 5], bool))
      actual = session.run(outputs, feed)
    expected = self._expected([x[:1] for x in qkv])[0]
    # A weight's spread is sqrt(0.3 / 0.7) of it; six of its means' are 9 %.
    np.testing.assert_allclose(actual.mean(axis=0), expected, rtol=0.09)
    # The share of 150000 is known to 0.12 %; six are 0.7 %.
    assert abs((actual == 0.0).mean() - self._RATE) < 0.007


def test_one_head_may_have_more_dimensions_than_there_are_features():
  depth, size = 3, 5
  with _layer(
    transformer.multi_head_attention,
    depth=depth,
    config=_config("logits", head_size=size),
  ) as layer:
    videos = layers.random_videos([4, 2], depth)
    actual = layer.run(layer.outputs, *layers.pad(videos, poison=0.0))
    expected = loops.multi_head(
      videos, layer.initial, "attention", "logits", True, size
    )
  for b, n in enumerate([4, 2]):
    layers.assert_close(actual[b, :n], expected[b], atol=5e-6)


class TestBatchNormOfLogits:
  def _logits(self, videos, variables):
    """Of each head, all of all videos."""
    projected = references.per_frame(
      references.linear, videos, variables, "attention/query_key_value", True
    )
    return [
      [
        references.dot(
          x[start : start + _SIZE], y[6 + start : 6 + start + _SIZE]
        )
        for video in projected
        for x in video
        for y in video
      ]
      for start in (0, _SIZE)
    ]

  # Far from zero a variance is the difference of large numbers.
  @pytest.mark.parametrize(
    ("offset", "rtol"), [(0.0, 1e-5), (10.0, 1e-2), (100.0, 1e-2)]
  )
  def test_the_average_follows_the_real_pairs(self, offset, rtol):
    videos = layers.random_videos([5, 2, 0, 1], _D)
    with _layer(
      transformer.multi_head_attention, config=_config("logits")
    ) as layer:
      assert len(layer.updates) == 1
      before, name = layer.initial, "attention/query_key_value/biases"
      before[name] = np.float64(np.float32(before[name] + offset))
      layer.load(before)
      layer.run(layer.updates, *layers.pad(videos, poison=0.0, length=7))
      after = layer.values()
    n = before["attention/logits/num_updates"]
    kept = min(0.9, (1 + n) / (20 + n))
    for head, logits in enumerate(self._logits(videos, before)):
      _, variance = references.mean_and_variance(logits)
      old = before["attention/logits/moving_variance"][head]
      layers.assert_close(
        after["attention/logits/moving_variance"][head],
        kept * old + (1 - kept) * variance,
        rtol,
      )
    assert after["attention/logits/num_updates"] == n + 1

  def test_gamma_and_the_average_start_at_1(self):
    with _layer(
      transformer.multi_head_attention, config=_config("logits")
    ) as layer:
      layer.initialize()
      found = layer.values()
    assert found["attention/logits/gamma"].tolist() == [1.0, 1.0]
    assert found["attention/logits/moving_variance"].tolist() == [1.0, 1.0]
    assert found["attention/logits/num_updates"] == 0.0

  def test_evaluation_comes_to_agree_with_training(self):
    videos = layers.random_videos([5, 2, 0, 1], _D)
    padded, real = layers.pad(videos, poison=0.0)
    kwargs = {"config": _config("logits"), "decay": 0.0}
    with (
      _layer(transformer.multi_head_attention, **kwargs) as train,
      _layer(
        transformer.multi_head_attention, is_training=False, **kwargs
      ) as test,
    ):
      expected, _ = train.run([train.outputs, train.updates], padded, real)
      test.load(train.values())
      actual = test.run(test.outputs, padded, real)
      assert test.updates == []
    layers.assert_close(actual[real], expected[real], atol=5e-6)


def _cases():
  for is_training in (True, False):
    yield "projections", is_training, None
    yield "logits", is_training, 6
  yield "none", True, None
  yield "none", True, 2


_every_residual = pytest.mark.parametrize("residual", transformer.RESIDUALS)


class TestEncoder:
  @_every_residual
  @pytest.mark.parametrize("batch_norm, is_training, output_size", _cases())
  def test_matches_the_loop(
    self, batch_norm, is_training, output_size, residual
  ):
    size = output_size or _D
    with _layer(
      config=_config(batch_norm, residual=residual),
      is_training=is_training,
      output_size=output_size,
    ) as layer:
      assert layer.outputs.shape.as_list() == [None, None, size]
      for lengths in _LENGTHS:
        videos = layers.random_videos(lengths, _D)
        padded, real = layers.pad(videos, length=6)
        actual = layer.run(layer.outputs, padded, real)
        expected = loops.encoder(
          videos,
          layer.initial,
          batch_norm,
          is_training,
          output_size is None,
          residual=residual,
        )
        for b, n in enumerate(lengths):
          layers.assert_close(
            actual[b, :n], np.reshape(expected[b], [n, size]), 1e-4, 2e-5
          )
        assert not actual[~real].any()

  def test_starts_as_the_identity_with_zero_init(self):
    videos = layers.random_videos([5, 2, 0, 1], _D)
    padded, real = layers.pad(videos)
    with _layer(config=_config("projections")) as layer:
      gains = [n for n in layer.initial if n.endswith("_gain")]
      layer.initialize()
      outputs, gradients = layer.run(
        [layer.outputs, layer.gradients], padded, real
      )
    assert outputs[real].tolist() == padded[real].tolist()
    assert not outputs[~real].any()
    # It does not stay so.
    assert len(gains) == 2
    for gain in gains:
      assert gradients[gain] != 0.0

  # A stub: what dropout would do on average is seen exactly.
  @pytest.mark.parametrize("is_training, kept", [(True, 1.25), (False, 1.0)])
  @pytest.mark.parametrize("output_size", [None, 6])
  @_every_residual
  def test_dropout_is_of_what_each_part_adds(
    self, monkeypatch, is_training, kept, output_size, residual
  ):
    monkeypatch.setattr(
      transformer,
      "dropout",
      lambda values, rate, *, is_training: values * (1.0 + rate * is_training),
    )
    videos = layers.random_videos([5, 2], _D)
    with _layer(
      config=_config("none", dropout=0.25, residual=residual),
      is_training=is_training,
      output_size=output_size,
    ) as layer:
      padded, real = layers.pad(videos)
      actual = layer.run(layer.outputs, padded, real)[real]
      expected = loops.encoder(
        videos,
        layer.initial,
        "none",
        is_training,
        output_size is None,
        kept,
        residual,
      )
    expected = [token for video in expected for token in video]
    layers.assert_close(actual, expected, 1e-4, 2e-5)

  @pytest.mark.parametrize("is_training, rate", [(True, 0.125), (False, 0.0)])
  def test_dropout_of_the_weights_has_its_own_rate(
    self, monkeypatch, is_training, rate
  ):
    rates = []
    plain = transformer.attention

    def attention(*args, dropout_rate, **kwargs):
      rates.append(dropout_rate)
      return plain(*args, dropout_rate=dropout_rate, **kwargs)

    monkeypatch.setattr(transformer, "attention", attention)
    config = _config("none", dropout=0.5, attention_dropout=0.125)
    with _layer(config=config, is_training=is_training):
      assert rates == [rate]

  @pytest.mark.parametrize("is_training", [True, False])
  def test_training_alone_draws(self, is_training):
    config = _config("logits", dropout=0.1, attention_dropout=0.1)
    with _layer(config=config, is_training=is_training) as layer:
      assert bool(_random_operations(layer.graph)) == is_training


class TestErrors:
  @pytest.mark.parametrize("size", [0, -1])
  def test_refuses_an_output_of_less_than_one(self, size):
    with pytest.raises(ValueError, match=f"{size}"):
      _layer(config=_config(), output_size=size)

  @pytest.mark.parametrize(
    "kwargs, message",
    [
      ({"head_size": 0}, "got 0 and 2"),
      ({"head_size": -1}, "got -1 and 2"),
      ({"feed_forward_factor": 0}, "got 3 and 0"),
      ({"dropout": 1.0}, "got 1.0"),
      ({"dropout": -0.1}, "got -0.1"),
      ({"dropout": math.nan}, "got nan"),
      ({"attention_dropout": 1.5}, "got 1.5"),
      ({"attention_dropout": -0.5}, "got -0.5"),
      ({"batch_norm": "all"}, "got 'all'"),
      ({"batch_norm": None}, "got None"),
      ({"residual": "pre_norm"}, "got 'pre_norm'"),
    ],
  )
  def test_a_configuration_refuses(self, kwargs, message):
    with pytest.raises(ValueError, match=message):
      _config(**{"batch_norm": "none", **kwargs})


class TestMemory:
  """No tensor, forward or backward, holds the weights of all videos."""

  _B, _T, _DEPTH, _HEADS, _HEAD_SIZE = 8, 64, 32, 8, 4

  @pytest.mark.parametrize("batch_norm", transformer.BATCH_NORMS)
  def test_the_encoder_keeps_no_weights(self, batch_norm):
    config = _config(
      batch_norm,
      head_size=self._HEAD_SIZE,
      feed_forward_factor=4,
      dropout=0.1,
      attention_dropout=0.1,
      memory_mb=1,
    )
    with tf.Graph().as_default() as graph:
      inputs = tf.placeholder(tf.float32, [self._B, self._T, self._DEPTH])
      mask = tf.ones([self._B, self._T], tf.bool)
      outputs = transformer.encoder(
        inputs, mask, config=config, mode=layers.mode()
      )
      layers.gradients(outputs, [inputs])
      floats = [t for t in graphs.tensors(graph) if t.dtype == tf.float32]
    sizes = [tensor.shape.num_elements() for tensor in floats]
    assert None not in sizes
    # Four tensors of two videos take a megabyte, and are seen.
    assert 2 * self._HEADS * self._T * self._T in sizes
    # The largest is the inner layer of the feed-forward part.
    assert max(sizes) == self._B * self._T * 4 * self._DEPTH
    assert max(sizes) < self._B * self._HEADS * self._T * self._T
