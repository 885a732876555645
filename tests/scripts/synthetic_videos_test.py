"""Tests of scripts/synthetic_videos.py: what the videos of a set show."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from records import writer
from scripts import synthetic_videos
from tests.scripts.make_dataset_test import make_config, make_videos

_shares = st.floats(0.0, 0.45)


@st.composite
def configs(draw):
  """Configurations of three videos, with anything on or off."""
  least = draw(st.integers(1, 40))
  return make_config(
    num_videos=3,
    feature_sizes="17,16",
    min_frames=least,
    max_frames=least + draw(st.integers(0, 12)),
    labels_per_video=draw(st.floats(1.0, 19.0)),
    label_frames=draw(st.floats(0.01, 1.0)),
    label_signature=draw(st.sampled_from(["mean", "covariance"])),
    clutter_frames=draw(_shares),
    burst_frames=draw(_shares),
    seed=draw(st.integers(0, 2**40)),
  )


@hypothesis.given(configs())
def test_what_holds_for_every_video(config):
  looks = synthetic_videos.make_looks(config)
  plain = dataclasses.replace(config, clutter_frames=0.0, burst_frames=0.0)
  # Nor do they depend on what else is written.
  other = dataclasses.replace(
    config,
    num_videos=13,
    num_shards=3,
    feature_names="a,b,c",
    feature_sizes=f"{config.feature_sizes},16",
  )
  other_looks = synthetic_videos.make_looks(other)
  for index in range(config.num_videos):
    video = synthetic_videos.generate_video(config, looks, index)
    without = synthetic_videos.generate_video(plain, looks, index)
    same = synthetic_videos.generate_video(other, other_looks, index)
    length, labels = len(video.shows), video.labels
    assert config.min_frames <= length <= config.max_frames
    assert sorted(set(labels)) == labels.tolist()
    assert labels.min() >= 0 and labels.max() < config.num_classes
    # A frame shows labels, clutter or the burst; each label has a frame.
    kinds = [video.clutter, video.burst, video.shows.any(axis=1)]
    assert np.sum(kinds, axis=0).max() <= 1
    assert video.shows.any(axis=0).all()
    counts = without.shows.sum(axis=0)
    assert set(counts) == {max(1, round(config.label_frames * length))}
    # The fractions are kept, as far as labels leave frames.
    burst = round(config.burst_frames * length)
    clutter = round(config.clutter_frames * length)
    found = video.burst.sum(), video.clutter.sum()
    if burst + clutter <= length - len(labels):
      assert found == (burst, clutter)
    assert found[0] <= burst and found[1] <= clutter
    # Distractors replace frames and change no other; labels go last.
    replaced = video.clutter | video.burst
    np.testing.assert_array_equal(
      video.shows[~replaced], without.shows[~replaced]
    )
    if burst + clutter <= length - without.shows.any(axis=1).sum():
      assert not without.shows[replaced].any()
    if video.burst.any():  # It is one run, but for labels.
      first, last = np.flatnonzero(video.burst)[[0, -1]]
      assert (replaced | without.shows.any(axis=1))[first : last + 1].all()
    for each in (without, same):
      assert each.video_id == video.video_id
      assert each.labels.tolist() == labels.tolist()
    for name, copy in (("rgb", "a"), ("audio", "b")):
      frames = video.frames[name]
      assert len(frames) == length
      np.testing.assert_array_equal(frames, same.frames[copy])
      np.testing.assert_array_equal(
        frames[~replaced], without.frames[name][~replaced]
      )


def moments(config, order):
  """Means or second moments [N, ...] of all videos; targets [N, C]."""
  inputs, targets = [], np.zeros([config.num_videos, config.num_classes])
  for row, video in zip(targets, make_videos(config)):
    row[video.labels] = 1
    values = map(writer.dequantize, video.frames.values())
    inputs.append(
      np.concatenate(
        [
          x.mean(axis=0) if order == 1 else (x.T @ x / len(x)).ravel()
          for x in values
        ]
      )
    )
  return np.stack(inputs), targets


def fit_ridge(inputs, targets):
  """Learns a linear model; returns its Hit@1 as a function of other data."""
  mean, scale = inputs.mean(axis=0), inputs.std(axis=0)

  def augment(values):
    return np.c_[(values - mean) / scale, np.ones(len(values))]

  known = augment(inputs)
  weights = np.linalg.solve(
    known.T @ known + np.eye(known.shape[1]), known.T @ targets
  )

  def hit_at_1(test_inputs, test_targets):
    best = (augment(test_inputs) @ weights).argmax(axis=1)
    return test_targets[np.arange(len(best)), best].mean()

  return hit_at_1


class TestContent:
  def test_labels_are_distinct_long_tailed_and_about_three(self):
    config = make_config(num_videos=1000, num_classes=101, feature_sizes="1,1")
    labels = [video.labels for video in make_videos(config)]
    numbers = np.array([len(row) for row in labels])
    assert numbers.min() == 1 and numbers.max() > 4
    # Five standard errors: the variance is near 2.
    assert abs(numbers.mean() - 3) < 5 * (2 / 1000) ** 0.5
    assert all(len(set(row.tolist())) == len(row) for row in labels)
    counts = np.bincount(np.concatenate(labels), minlength=101)
    assert len(counts) == 101 and counts.argmax() == 0
    assert counts[0] > 5 * np.median(counts)
    # A tenth of the classes carries two fifths of the labels.
    assert counts[:10].sum() > 0.3 * counts.sum()

  def test_half_of_the_labels_show_in_one_run_of_frames(self):
    videos = make_videos(
      make_config(min_frames=40, max_frames=40, label_frames=0.25)
    )
    shown = np.concatenate([video.shows for video in videos], axis=1)
    edges = np.abs(np.diff(shown.astype(int), axis=0)).sum(axis=0)
    assert edges.min() <= 2  # One run.
    assert edges.max() > 4  # Scattered.

  def test_without_noise_frames_are_their_sources(self):
    config = make_config(noise=0.0, num_videos=5, min_frames=20, max_frames=20)
    looks = synthetic_videos.make_looks(config)
    seen = [0, 0, 0]
    for video in make_videos(config):
      for name, look in zip(config.names, looks):
        for frame, shown in zip(video.frames[name], video.shows):
          labels = video.labels[shown]
          seen[min(len(labels), 2)] += 1
          sources = look.pictures[:8]
          if len(labels):
            total = sum(look.prototypes[label] for label in labels)
            sources = [total / len(labels) ** 0.5]
          assert len(rows_of([frame], sources)) == 1
    assert min(seen) > 0  # Of no label, of one and of several.

  def test_backgrounds_last_for_several_frames(self):
    config = make_config(
      noise=0.0,
      min_frames=100,
      max_frames=100,
      label_frames=0.01,
      labels_per_video=1.0,
      num_videos=30,
    )
    changes = []
    for video in make_videos(config):
      background = ~video.shows.any(axis=1)
      assert background.sum() == 99
      frames = video.frames["rgb"][background]
      changes.extend(np.any(frames[1:] != frames[:-1], axis=1))
    # A cut in twenty frames, one in eight of them to the same background.
    assert 0.03 < np.mean(changes) < 0.06

  def test_neighbouring_frames_correlate_through_their_noise(self):
    values = np.zeros([500, 40], np.float32)
    synthetic_videos._add_noise(np.random.default_rng(0), values, 2.0)
    assert abs(values.mean()) < 0.1
    assert abs(values.std() - 2) < 0.1
    for lag, expected in [(1, 0.4), (2, 0.0)]:
      found = np.mean(values[lag:] * values[:-lag]) / 4
      assert abs(found - expected) < 0.05

  def test_a_linear_model_of_one_split_predicts_the_other(self):
    def load(**fields):
      sizes = {"num_classes": 20, "feature_sizes": "24,8"}
      lengths = {"min_frames": 10, "max_frames": 30}
      return moments(make_config(**sizes, **lengths, **fields), order=1)

    hit_at_1 = fit_ridge(*load(num_videos=400))
    validate = {"num_videos": 200, "split": "validate", "seed": 1}
    inputs, targets = load(**validate)
    assert targets.mean(axis=0).max() < 0.5  # Guessing the head class.
    assert hit_at_1(inputs, targets) > 0.85
    # Other prototypes are other classes: nothing learnt applies to them.
    assert hit_at_1(*load(**validate, prototype_seed=1)) < 0.5


def rows_of(frames, pictures):
  """The picture that each of some frames, free of noise, shows."""
  found = []
  for frame in writer.dequantize(np.stack(frames)):
    distances = np.abs(np.clip(0.6 * np.stack(pictures), -1.99, 2.0) - frame)
    # Half a step of the quantiser.
    (row,) = np.flatnonzero(distances.max(axis=1) < 0.018)
    found.append(row)
  return found


class TestDistractors:
  def config(self, **fields):
    lengths = {"min_frames": 40, "max_frames": 40}
    return make_config(**{**lengths, "labels_per_video": 1.0, **fields})

  def clutter_of_videos(self, position=0, **fields):
    config = self.config(
      noise=0.0,
      clutter_frames=0.6,
      num_videos=40,
      feature_sizes="7,5",
      **fields,
    )
    clutter = synthetic_videos.make_looks(config)[position].pictures[8:]
    return [
      rows_of(video.frames[config.names[position]][video.clutter], clutter)
      for video in make_videos(config)
    ]

  def test_a_video_shows_four_pictures_of_the_common_clutter(self):
    rows = self.clutter_of_videos()
    assert rows == self.clutter_of_videos(position=1)
    seen = list(map(frozenset, rows))
    assert max(map(len, seen)) <= 4
    # 160 draws from 64 leave out one in twelve.
    assert 50 < len(frozenset.union(*seen)) <= 64
    assert len(set(seen)) > 35  # Two videos seldom have the same.

  def test_clutter_does_not_depend_on_labels(self):
    lengths = {"min_frames": 100, "max_frames": 100}
    one = map(set, self.clutter_of_videos(**lengths))
    other = map(set, self.clutter_of_videos(**lengths, labels_per_video=6.0))
    assert list(one) == list(other)

  def test_burst_is_one_picture_of_all(self):
    config = self.config(noise=0.0, burst_frames=0.3, num_videos=200)
    pictures = synthetic_videos.make_looks(config)[0].pictures
    seen = []
    for video in make_videos(config):
      (row,) = set(rows_of(video.frames["rgb"][video.burst], pictures))
      seen.append(row)
    assert min(seen) < 8
    # 200 draws from 72 leave out one in sixteen.
    assert len(set(seen)) > 60

  def test_frames_of_a_burst_are_nearly_identical(self):
    noise = np.random.default_rng(0).standard_normal([11, 5000])
    values = noise.astype(np.float32)
    synthetic_videos._still(values, np.arange(11) > 3)
    np.testing.assert_array_equal(values[:5], noise[:5].astype(np.float32))
    np.testing.assert_allclose(
      values[5:], 0.98 * noise[4] + 0.02 * noise[5:], atol=1e-6
    )


class TestCovariance:
  def config(self, **fields):
    defaults = {
      "label_signature": "covariance",
      "feature_sizes": "31,16",
      "num_classes": 3,
      "labels_per_video": 1.0,
      "label_frames": 1.0,
      "noise": 0.0,
    }
    return make_config(**{**defaults, **fields})

  def coefficients(self, config, position):
    """Of the directions, in all frames [T, M] of each video."""
    directions = synthetic_videos.make_looks(config)[position].directions
    num_directions, size = directions.shape
    for video in make_videos(config):
      values = writer.dequantize(video.frames[config.names[position]])
      yield video, values @ directions.T / 0.6 / (size / num_directions)

  @pytest.mark.parametrize("position", [0, 1])
  def test_classes_differ_in_nothing_but_their_covariances(self, position):
    config = self.config(num_videos=60, min_frames=97, max_frames=101)
    codes = synthetic_videos.make_looks(config)[position].codes
    frames = {label: [] for label in range(3)}
    for video, values in self.coefficients(config, position):
      frames[video.labels[0]].append(values)
    for label, videos in frames.items():
      values = np.concatenate(videos)
      assert len(values) > 500
      noise = len(values) ** -0.5  # Standard error of a mean of signs.
      np.testing.assert_array_less(np.abs(values.mean(axis=0)), 5 * noise)
      expected = np.eye(16)
      for row in codes[label]:
        (i, j), sign = np.flatnonzero(row), row.prod(where=row != 0)
        expected[i, j] = expected[j, i] = sign
      found = values.T @ values / len(values)
      # Bytes clip and round.
      np.testing.assert_allclose(np.diag(found), 1, atol=0.03)
      np.testing.assert_allclose(found, expected, atol=5 * noise + 0.03)

  # With 4 directions there are three matchings, two signs for each pair.
  @pytest.mark.parametrize("num, size", [(3001, 16), (3 * 2 * 2, 4)])
  def test_codes_are_perfect_matchings_and_distinct(self, num, size):
    rng = np.random.default_rng(0)
    codes = synthetic_videos._draw_codes(rng, num, size)
    assert codes.shape == (num, size // 2, size)
    np.testing.assert_array_equal(np.abs(codes).sum(axis=1), 1)
    np.testing.assert_array_equal(np.abs(codes).sum(axis=2), 2)
    assert set(np.unique(codes)) == {-1, 0, 1}
    assert len({(code.T @ code).tobytes() for code in codes}) == num

  def test_directions_are_orthogonal_and_as_loud_as_a_prototype(self):
    for look, size in zip(synthetic_videos.make_looks(self.config()), (31, 16)):
      np.testing.assert_allclose(
        look.directions @ look.directions.T, np.eye(16) * size / 16, atol=1e-5
      )

  def test_two_labels_in_a_frame_are_no_louder_than_one(self):
    config = self.config(labels_per_video=3.0, min_frames=40, max_frames=40)
    for video, values in self.coefficients(config, 0):
      assert len(video.labels) == 3
      # Sums of three signs over the root of three; bytes clip.
      steps = values * 3**0.5
      nearest = 2 * np.rint((steps - 1) / 2) + 1
      assert np.mean(np.abs(steps - nearest) > 0.3) < 0.02
      assert set(np.unique(nearest)) == {-3, -1, 1, 3}

  def test_signs_differ_between_frames_and_features(self):
    config = self.config(feature_sizes="16,16", min_frames=50, max_frames=50)
    for (_, one), (_, two) in zip(
      self.coefficients(config, 0), self.coefficients(config, 1)
    ):
      assert len(np.unique(np.sign(one), axis=0)) > 30
      assert np.mean(np.sign(one) != np.sign(two)) > 0.2

  def test_the_mean_says_nothing_and_second_moments_all(self):
    def load(order, **fields):
      sizes = {"num_classes": 7, "feature_sizes": "17,16"}
      lengths = {"min_frames": 40, "max_frames": 50}
      config = self.config(
        label_frames=0.5, noise=0.5, **sizes, **lengths, **fields
      )
      return moments(config, order)

    hits = []
    for order in (1, 2):
      hit_at_1 = fit_ridge(*load(order, num_videos=300))
      inputs, targets = load(order, num_videos=150, split="validate")
      hits.append(hit_at_1(inputs, targets))
    assert hits[0] < targets.mean(axis=0).max() + 0.1
    assert hits[1] > 0.95
