"""Tests for NetVLAD. Axes: B videos, T frames, D features, K centres."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from pooling import democratic, netvlad
from tests import layers
from tests.references import layers as references

_D, _K = 3, 4  # B and T are 2 and 5, or what `lengths` says.
# Full, ragged, with an empty video last, first, and nothing else.
_LENGTHS = ([5, 5], [5, 2], [3, 0], [0, 1, 6], [0, 0])


def _kwargs(add_batch_norm=True, is_training=True, **kwargs):
  return {
    "num_clusters": _K,
    "mode": layers.mode(is_training, add_batch_norm=add_batch_norm),
    **kwargs,
  }


_PLAIN = democratic.Config(
  enabled=False, let_gradients_through=False, projection_size=0
)


def _netvlad(frames, mask, *, residuals=True, scope="netvlad", **kwargs):
  """The layers as the models put them together: float32 [B, K * D]."""
  with tf.variable_scope(scope):
    assignments = netvlad.soft_assignments(frames, mask, **kwargs)
    centres = None
    if residuals:
      depth = frames.shape.as_list()[2]
      centres = netvlad.make_centres(kwargs["num_clusters"], depth)
    sums = netvlad.vlad(frames, mask, assignments, centres, democratic=_PLAIN)
  return netvlad.descriptor(sums)


class _Layer:
  """A NetVLAD of unknown B and T in its own graph, with random variables."""

  def __init__(self, **kwargs):
    with tf.Graph().as_default() as graph:
      self.frames = tf.placeholder(tf.float32, [None, None, _D], name="frames")
      self.mask = tf.placeholder(tf.bool, [None, None])
      self.outputs = _netvlad(self.frames, self.mask, **_kwargs(**kwargs))
      self.gradients = layers.gradients(self.outputs, [self.frames])
      self.updates = layers.updates()
      self.variables = {v.op.name: v for v in tf.global_variables()}
      self._session = tf.Session(graph=graph)
      self.initial = layers.randomize(self._session)

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._session.close()

  def run(self, fetches, padded, real):
    return self._session.run(fetches, {self.frames: padded, self.mask: real})

  def load(self, values):
    layers.load(self._session, values)

  def values(self):
    return self._session.run(self.variables)


@pytest.mark.parametrize("add_batch_norm", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
class TestAgainstLoops:
  @pytest.mark.parametrize("residuals", [True, False])
  def test_matches_equation_4(self, add_batch_norm, is_training, residuals):
    with _Layer(
      add_batch_norm=add_batch_norm,
      is_training=is_training,
      residuals=residuals,
    ) as layer:
      assert layer.outputs.shape.as_list() == [None, _K * _D]
      for lengths in _LENGTHS:
        videos = layers.random_videos(lengths, _D)
        actual = layer.run(layer.outputs, *layers.pad(videos))
        expected = references.netvlad(
          videos, layer.initial, "netvlad", residuals, is_training
        )
        layers.assert_close(actual, expected)
        for row, n in zip(actual, lengths):
          assert references.dot(row, row) == pytest.approx(
            float(n > 0), rel=1e-5
          )

  def test_gradients_are_finite_and_none_comes_from_padding(
    self, add_batch_norm, is_training
  ):
    with _Layer(
      add_batch_norm=add_batch_norm, is_training=is_training
    ) as layer:
      assert sorted(layer.gradients) == sorted(
        ["frames", *(n for n, v in layer.variables.items() if v.trainable)]
      )
      for lengths in _LENGTHS:
        videos = layers.random_videos(lengths, _D)
        padded, real = layers.pad(videos)
        gradients = layer.run(layer.gradients, padded, real)
        layers.assert_all_finite(gradients)
        assert not gradients["frames"][~real].any()
        other = layer.run(layer.gradients, *layers.pad(videos, poison=0.0))
        for name, gradient in gradients.items():
          layers.assert_close(gradient, other[name])


@pytest.mark.parametrize("is_training", [True, False])
def test_padding_changes_neither_videos_nor_averages(is_training):
  videos = layers.random_videos([5, 2, 0], _D)
  expected = None
  with _Layer(is_training=is_training) as layer:
    for poison in (layers.POISON, -1e3, 0.0, 1e38):  # 1e38 overflows in W x.
      for length in (5, 7):
        layer.load(layer.initial)
        outputs, _ = layer.run(
          [layer.outputs, layer.updates], *layers.pad(videos, poison, length)
        )
        actual = {"outputs": outputs, **layer.values()}
        if expected is None:
          expected = actual
        for name in expected:
          layers.assert_close(actual[name], expected[name])


def test_the_averages_follow_the_real_frames():
  videos = layers.random_videos([5, 2, 0], _D)
  with _Layer() as layer:
    layer.run(layer.updates, *layers.pad(videos))
    before, after = layer.initial, layer.values()
  products = [
    [references.dot(x, column) for column in before["netvlad/assign/weights"].T]
    for video in videos
    for x in video
  ]
  scope = "netvlad/assign/batch_norm"
  mean, variance, count = references.updated_averages(
    products, before, scope, 0.9
  )
  layers.assert_close(after[f"{scope}/moving_mean"], mean)
  layers.assert_close(after[f"{scope}/moving_variance"], variance)
  assert after[f"{scope}/num_updates"] == count


class TestVlad:
  @pytest.mark.parametrize("lengths", _LENGTHS)
  @pytest.mark.parametrize("with_centres", [True, False])
  def test_matches_the_loop_for_assignments_of_any_sum(
    self, lengths, with_centres
  ):
    videos = layers.random_videos(lengths, _D)
    assignments = [np.abs(a) for a in layers.random_videos(lengths, _K, seed=2)]
    centres = np.random.RandomState(3).randn(_K, _D).astype(np.float32)
    if not with_centres:
      centres[:] = 0.0
    padded, real = layers.pad(videos)
    assigned, _ = layers.pad(assignments)
    with tf.Graph().as_default(), tf.Session() as session:
      frames = tf.placeholder(tf.float32, [None, None, _D])
      mask = tf.placeholder(tf.bool, [None, None])
      weights = tf.placeholder(tf.float32, [None, None, _K])
      sums = netvlad.vlad(
        frames,
        mask,
        weights,
        tf.constant(centres) if with_centres else None,
        democratic=_PLAIN,
      )
      outputs = netvlad.descriptor(sums)
      assert outputs.shape.as_list() == [None, _K * _D]
      actual = session.run(
        outputs, {frames: padded, mask: real, weights: assigned}
      )
    layers.assert_close(actual, references.vlad(videos, assignments, centres))

  def test_a_centre_that_no_frame_belongs_to_is_zero(self):
    with tf.Graph().as_default(), tf.Session() as session:
      actual = session.run(
        netvlad.vlad(
          tf.constant([[[3.0, 5.0], [0.0, 4.0]]]),
          tf.constant([[True, True]]),
          tf.constant([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.5]]]),
          tf.constant([[2.0, 5.0], [7.0, 7.0], [0.0, 6.0]]),
          democratic=_PLAIN,
        )
      )
    # (3, 5) - (2, 5) and half of (0, 4) - (0, 6).
    layers.assert_close(actual, [[[1, 0], [0, 0], [0, -1]]])


class TestDescriptor:
  _SUMS = np.random.RandomState(0).randn(4, _K, _D)
  _SUMS[1, 0] = 0.0  # No frame belongs to this centre,
  _SUMS[2] = 0.0  # none to any: an empty video.
  _SUMS[3, 1] = 1e-9  # Too short to be scaled to unit length.

  def _run(self, function):
    with tf.Graph().as_default(), tf.Session() as session:
      sums = tf.constant(self._SUMS)
      outputs = function(sums)
      given = tf.constant(np.random.RandomState(1).randn(4, _K * _D))
      (gradient,) = tf.gradients(outputs, sums, given)
      return session.run([outputs, gradient])

  def test_is_both_normalisations_one_after_the_other(self):
    found = self._run(netvlad.descriptor)
    expected = self._run(
      lambda sums: netvlad.flatten(tf.nn.l2_normalize(sums, axis=2))
    )
    for actual, reference in zip(found, expected):
      np.testing.assert_allclose(actual, reference, rtol=1e-9, atol=1e-12)

  def test_its_gradient_is_the_difference_quotient(self):
    with tf.Graph().as_default(), tf.Session():
      sums = tf.constant(self._SUMS[:2])
      error = tf.test.compute_gradient_error(
        sums,
        [2, _K, _D],
        netvlad.descriptor(sums),
        [2, _K * _D],
        x_init_value=self._SUMS[[0, 0]],
        delta=1e-6,
      )
    assert error < 1e-7


class TestGraph:
  @pytest.mark.parametrize("is_training", [True, False])
  def test_variables_have_these_names_and_shapes(self, is_training):
    with _Layer(is_training=is_training) as layer:
      shapes = {n: v.shape.as_list() for n, v in layer.variables.items()}
    assert shapes == {
      "netvlad/assign/batch_norm/beta": [_K],
      "netvlad/assign/batch_norm/gamma": [_K],
      "netvlad/assign/batch_norm/moving_mean": [_K],
      "netvlad/assign/batch_norm/moving_variance": [_K],
      "netvlad/assign/batch_norm/num_updates": [],
      "netvlad/assign/weights": [_D, _K],
      "netvlad/centres": [_K, _D],
    }

  def test_without_batch_norm_or_residuals_variables_have_these_names(self):
    with _Layer(add_batch_norm=False, residuals=False, scope="other") as layer:
      assert sorted(layer.variables) == [
        "other/assign/biases",
        "other/assign/weights",
      ]

  @pytest.mark.parametrize("shape", [[3], [2, 3], [2, 5, 3, 1]])
  def test_refuses_another_rank(self, shape):
    with tf.Graph().as_default(), pytest.raises(ValueError, match="rank 3"):
      _netvlad(tf.zeros(shape), tf.ones([2, 5], tf.bool), **_kwargs())

  def test_refuses_an_unknown_depth(self):
    with tf.Graph().as_default():
      frames = tf.placeholder(tf.float32, [2, 5, None])
      with pytest.raises(ValueError, match="Need static D"):
        _netvlad(frames, tf.ones([2, 5], tf.bool), **_kwargs())

  @pytest.mark.parametrize("num_clusters", [0, -1])
  def test_refuses_fewer_than_one_centre(self, num_clusters):
    with (
      tf.Graph().as_default(),
      pytest.raises(ValueError, match=f"got D=3, K={num_clusters}"),
    ):
      _netvlad(
        tf.zeros([2, 5, _D]),
        tf.ones([2, 5], tf.bool),
        **_kwargs(num_clusters=num_clusters),
      )


class TestMemory:
  """No tensor, forward or backward, is as large as the residuals."""

  def _largest(self, build):
    """Elements of the largest tensor of a graph of B, T, K, D = 2, 8, 16, 32.

    Where the static shape is not known, the tensor is computed.
    """
    b, t, d = 2, 8, 32
    sizes, unknown = [], []
    with tf.Graph().as_default() as graph, tf.Session() as session:
      frames = tf.get_variable("frames", [b, t, d])
      outputs = build(frames, tf.ones([b, t], tf.bool))
      tf.gradients(tf.reduce_sum(outputs**2), tf.trainable_variables())
      for operation in graph.get_operations():
        for tensor in operation.outputs:
          if tensor.shape.is_fully_defined():
            sizes.append(tensor.shape.num_elements())
          elif tensor.dtype != tf.resource:
            unknown.append(tensor)
      session.run(tf.global_variables_initializer())
      sizes += [np.size(value) for value in session.run(unknown)]
    return max(sizes)

  @pytest.mark.parametrize("add_batch_norm", [True, False])
  def test_the_layer_builds_no_residuals(self, add_batch_norm):
    largest = self._largest(
      lambda frames, mask: _netvlad(
        frames,
        mask,
        **_kwargs(num_clusters=16, add_batch_norm=add_batch_norm),
      )
    )
    # What it returns, B K D, is the largest that it needs; B T D is 512.
    assert largest == 2 * 16 * 32

  def test_the_plain_sum_would(self):
    def plain(frames, mask):
      del mask
      centres = tf.get_variable("centres", [16, 32])
      return tf.reduce_sum(frames[:, :, tf.newaxis] - centres, axis=1)

    assert self._largest(plain) == 2 * 8 * 16 * 32
