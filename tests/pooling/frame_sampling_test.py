"""Tests for frame sampling. Axes: B videos, S samples, T frames, D features."""

import hypothesis
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st

from pooling import frame_sampling

_SAMPLERS = (
  frame_sampling.uniform_indices,
  frame_sampling.random_frame_indices,
  frame_sampling.random_sequence_indices,
)
_RANDOM_SAMPLERS = _SAMPLERS[1:]


def _run(build, graph_seed=None, times=1):
  """What `build()` evaluates to, `times` times in one session."""
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(graph_seed)
    fetches = build()
    values = [session.run(fetches) for _ in range(times)]
  return values[0] if times == 1 else values


def _indices(sampler, num_frames, num_samples, graph_seed=7, **kwargs):
  return _run(
    lambda: sampler(
      tf.constant(num_frames, tf.int32, [len(num_frames)]),
      num_samples,
      **kwargs,
    ),
    graph_seed,
  )


class TestEverySampler:
  @hypothesis.given(
    st.sampled_from(_SAMPLERS),
    st.lists(st.integers(0, 9) | st.integers(0, 300), max_size=5),
    st.integers(1, 9),
  )
  def test_chooses_frames_of_each_video(self, sampler, num_frames, num_samples):
    indices = _indices(sampler, num_frames, num_samples)
    assert indices.dtype == np.int32
    assert indices.shape == (len(num_frames), num_samples)
    for n, row in zip(num_frames, indices.tolist()):
      assert min(row) >= 0 and max(row) < max(n, 1)
      if sampler is frame_sampling.uniform_indices:
        assert row == [i * n // num_samples for i in range(num_samples)]
      if sampler is frame_sampling.random_sequence_indices:
        # A run; of a shorter video all, and its last frame again.
        last = max(n - 1, 0)
        run = range(row[0], row[0] + num_samples)
        assert row == [min(i, last) for i in run]
        assert row[0] <= max(n - num_samples, 0)

  @pytest.mark.parametrize("sampler", _SAMPLERS)
  def test_takes_a_batch_of_unknown_size(self, sampler):
    with tf.Graph().as_default(), tf.Session() as session:
      num_frames = tf.placeholder(tf.int32, [None])
      indices = sampler(num_frames, 5)
      assert indices.shape.as_list() == [None, 5]
      for batch in (0, 1, 3):
        value = session.run(indices, {num_frames: [2] * batch})
        assert value.shape == (batch, 5)

  @pytest.mark.parametrize("sampler", _SAMPLERS)
  @pytest.mark.parametrize("num_samples", [0, -1])
  def test_refuses_fewer_than_one_sample(self, sampler, num_samples):
    with pytest.raises(
      ValueError, match=f"num_samples >= 1, got {num_samples}"
    ):
      _indices(sampler, [3], num_samples)


class TestUniform:
  @pytest.mark.parametrize("n", [1, 25, 255, 256, 257, 299, 300, 100_000])
  def test_is_exact_for_long_videos(self, n):
    actual = _indices(frame_sampling.uniform_indices, [n], 256)
    assert actual.tolist() == [[i * n // 256 for i in range(256)]]


class TestRandom:
  @pytest.mark.parametrize("sampler", _RANDOM_SAMPLERS)
  def test_is_reproducible_by_graph_seed_and_op_seed(self, sampler):
    def draw(graph_seed, seed):
      return _run(
        lambda: sampler(tf.constant([7, 300, 200]), 3, seed=seed),
        graph_seed,
        times=2,
      )

    first, second = draw(3, 5)
    again = draw(3, 5)
    assert np.array_equal(first, again[0])
    assert np.array_equal(second, again[1])
    # Each step draws anew.
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, draw(4, 5)[0])
    assert not np.array_equal(first, draw(3, 6)[0])

  @pytest.mark.parametrize("sampler", _RANDOM_SAMPLERS)
  def test_differs_between_videos_of_the_same_length(self, sampler):
    first, second = _indices(sampler, [200, 200], 7)
    assert first.tolist() != second.tolist()

  @pytest.mark.parametrize(
    "sampler, expected",
    [
      (
        frame_sampling.random_frame_indices,
        [[0, 0, 0], [0, 0, 0], [4, 4, 4], [299, 299, 299]],
      ),
      (
        frame_sampling.random_sequence_indices,
        [[0, 0, 0], [0, 0, 0], [2, 3, 4], [297, 298, 299]],
      ),
    ],
  )
  def test_stays_in_the_video_when_a_draw_rounds_up_to_one(
    self, sampler, expected, monkeypatch
  ):
    monkeypatch.setattr(
      tf.random, "uniform", lambda shape, seed=None: tf.ones(shape)
    )
    assert _indices(sampler, [0, 1, 5, 300], 3).tolist() == expected

  def test_frames_are_drawn_alike(self):
    indices = _indices(frame_sampling.random_frame_indices, [5, 1, 7], 7000)
    assert set(indices[1]) == {0}
    for n, row in ((5, indices[0]), (7, indices[2])):
      for frame in range(n):
        share = np.count_nonzero(row == frame) / 7000
        # Five standard deviations of a share of 7000 draws are 0.024 at most.
        assert abs(share - 1 / n) < 0.025

  def test_frames_are_drawn_with_replacement(self):
    row = _indices(frame_sampling.random_frame_indices, [7], 7)[0]
    # All different has a chance of 7! / 7^7 = 0.6 %; not with this seed.
    assert len(set(row)) < 7


class TestRandomSequence:
  def test_starts_are_drawn_alike(self):
    # 7 - 3 + 1 = 5 starts.
    starts = _indices(frame_sampling.random_sequence_indices, [7] * 5000, 3)
    for start in range(5):
      share = np.count_nonzero(starts[:, 0] == start) / 5000
      # Five standard deviations: 5 sqrt(0.2 * 0.8 / 5000) = 0.028.
      assert abs(share - 1 / 5) < 0.03


class TestAllIndices:
  @pytest.mark.parametrize(
    "num_frames, expected",
    [
      ([3], [[0, 1, 2]]),
      ([2, 4, 0, 1], [[0, 1, 1, 1], [0, 1, 2, 3], [0] * 4, [0] * 4]),
      ([0, 0], [[], []]),
    ],
  )
  def test_pads_to_the_longest_with_the_last(self, num_frames, expected):
    actual = _run(lambda: frame_sampling.all_indices(tf.constant(num_frames)))
    assert actual.dtype == np.int32
    assert actual.shape == (len(num_frames), max(num_frames))
    assert actual.tolist() == expected

  def test_takes_a_batch_of_unknown_size(self):
    with tf.Graph().as_default(), tf.Session() as session:
      num_frames = tf.placeholder(tf.int32, [None])
      indices = frame_sampling.all_indices(num_frames)
      assert session.run(indices, {num_frames: [1, 2]}).shape == (2, 2)
      assert session.run(indices, {num_frames: []}).shape == (0, 0)


class TestGatherFrames:
  @pytest.mark.parametrize("dtype", ["uint8", "float32"])
  @pytest.mark.parametrize(
    "num_frames",
    [
      [3, 1, 5],
      [0, 3, 1],
      [3, 0, 0, 2],
      [2, 4, 0],
      [0, 2, 0],
      [0, 0],
      [],
    ],
  )
  @pytest.mark.parametrize(
    "sampler", [*_SAMPLERS, lambda n, _: frame_sampling.all_indices(n)]
  )
  def test_matches_a_loop_over_videos(self, sampler, num_frames, dtype):
    d, total = 3, sum(num_frames)
    flat = np.random.RandomState(0).randint(0, 256, [total, d]).astype(dtype)
    with tf.Graph().as_default(), tf.Session() as session:
      frames = tf.placeholder(dtype, [None, d])
      counts = tf.placeholder(tf.int32, [None])
      indices = sampler(counts, 7)
      gathered = frame_sampling.gather_frames(frames, counts, indices)
      assert gathered.shape.as_list()[2] == d  # What layers ask for.
      chosen, actual = session.run(
        [indices, gathered], {frames: flat, counts: num_frames}
      )
    assert actual.dtype == flat.dtype
    assert actual.shape == (*chosen.shape, d)
    assert np.isfinite(actual.astype(np.float32)).all()
    start = 0
    for b, n in enumerate(num_frames):
      video = flat[start : start + n]
      start += n
      for t in range(chosen.shape[1]):
        if n > 0:
          assert actual[b, t].tolist() == video[chosen[b, t]].tolist()

  def test_ignores_the_indices_of_an_empty_video(self):
    flat = np.arange(6, dtype=np.uint8).reshape(3, 2)
    actual = _run(
      lambda: frame_sampling.gather_frames(
        tf.constant(flat), tf.constant([3, 0]), tf.constant([[2, 0], [9, 1]])
      )
    )
    assert actual[0].tolist() == [[4, 5], [0, 1]]
    assert actual.shape == (2, 2, 2)


class TestDequantize:
  def test_maps_every_byte(self):
    stored = np.arange(256, dtype=np.uint8)
    actual = _run(lambda: frame_sampling.dequantize(tf.constant(stored)))
    assert actual.dtype == np.float32
    expected = [x * 4 / 255 + 4 / 512 - 2 for x in range(256)]
    # Near 0 two numbers of size 2 cancel: what is left is their rounding.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=3e-7)

  def test_takes_another_range(self):
    stored = np.array([[0, 255], [51, 102]], np.uint8)
    actual = _run(
      lambda: frame_sampling.dequantize(
        tf.constant(stored), max_value=7.0, min_value=2.0
      )
    )
    half = 5 / 512
    expected = [[2 + half, 7 + half], [3 + half, 4 + half]]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)

  @pytest.mark.parametrize("low, high", [(2.0, 2.0), (2.0, -2.0)])
  def test_refuses_an_empty_range(self, low, high):
    with pytest.raises(ValueError, match=f"max_value={high}, min_value={low}"):
      frame_sampling.dequantize(
        np.zeros([1], np.uint8), max_value=high, min_value=low
      )
