"""Tests of scripts/make_dataset.py and of scripts/synthetic_videos.py."""

import dataclasses
import hashlib
import os
import re
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from absl import flags

import flag_fields
from records import writer
from scripts import make_dataset, synthetic_videos
from tests import runs

# Sizes are distinct, so that a swapped axis cannot pass.
_SMALL = {
  "feature_sizes": "7,3",
  "num_videos": 11,
  "num_shards": 2,
  "num_classes": 19,
  "min_frames": 4,
  "max_frames": 6,
}
# With everything that is off by default.
_BUSY = {
  "feature_sizes": "19,17",
  "label_signature": "covariance",
  "clutter_frames": 0.3,
  "burst_frames": 0.4,
}
_LONG = {"min_frames": 40, "max_frames": 60}


def make_config(**fields):
  return make_dataset.DatasetConfig(
    **{"output_dir": "unused", **_SMALL, **fields}
  )


def make_videos(config):
  looks = synthetic_videos.make_looks(config)
  return [
    synthetic_videos.generate_video(config, looks, index)
    for index in range(config.num_videos)
  ]


def read_bytes(paths):
  contents = []
  for path in paths:
    with open(path, "rb") as file:
      contents.append(file.read())
  return contents


@pytest.fixture
def write(tmp_path):
  """write(name, **fields): (configuration, summary) of a set in tmp_path."""

  def write(name="set", **fields):
    config = make_config(output_dir=str(tmp_path / name), **fields)
    return config, make_dataset.write_dataset(config)

  return write


class TestSeeds:
  @pytest.mark.parametrize(
    "fields, digest",
    [
      ({}, "05e1f12d8f57ab46"),
      ({"level": "video", "seed": 5}, "f7bbf263dda11e71"),
      (
        {**_BUSY, "min_frames": 30, "max_frames": 50},
        "1de5328ec67cbd1f",
      ),
      (
        {
          "clutter_frames": 0.8,
          "label_frames": 0.1,
          "prototype_seed": 3,
          "split": "validate",
          **_LONG,
        },
        "2595821df7b5fa53",
      ),
      (
        {"burst_frames": 0.7, "label_frames": 0.2, "noise": 0.0, **_LONG},
        "9a69bb862d6546b6",
      ),
      (
        {
          "feature_names": "a,b,c",
          "feature_sizes": "64,16,17",
          "label_signature": "covariance",
          "label_frames": 0.5,
          "labels_per_video": 19.0,
          "noise": 0.5,
          "num_shards": 3,
        },
        "c3cb7dedb237a04c",
      ),
    ],
  )
  def test_bytes_stay_as_they_were(self, write, fields, digest):
    _, summary = write(**fields)
    found = hashlib.sha256()
    for path, content in zip(summary.paths, read_bytes(summary.paths)):
      found.update(os.path.basename(path).encode() + content)
    assert found.hexdigest().startswith(digest)

  @pytest.mark.parametrize("changes", [{"seed": 1}, {"split": "validate"}])
  def test_other_seed_or_split_is_other_videos_of_the_same_classes(
    self, changes
  ):
    config, other = make_config(**_BUSY), make_config(**_BUSY, **changes)
    for one, two in zip(*map(synthetic_videos.make_looks, (config, other))):
      for ours, theirs in zip(one, two):
        np.testing.assert_array_equal(ours, theirs)
    one, two = make_videos(config), make_videos(other)
    assert len({video.video_id for video in one + two}) == 22
    for ours, theirs in zip(one, two):
      assert ours.frames["rgb"].tobytes() != theirs.frames["rgb"].tobytes()

  @pytest.mark.parametrize(
    ("fields", "number"),
    [({}, 1 + 2), (_BUSY, 3 + 2 * 2)],  # Of a video, and of each feature.
  )
  def test_no_two_videos_draw_from_the_same_generator(self, fields, number):
    keys = []
    generator = synthetic_videos._generator

    def record(*key):
      keys.append(key)
      return generator(*key)

    configs = [
      make_config(seed=seed, split=split, **fields)
      for seed in (0, 1)
      for split in ("train", "validate")
    ]
    looks = synthetic_videos.make_looks(configs[0])
    with mock.patch.object(synthetic_videos, "_generator", record):
      for config in configs:
        for index in range(5):
          synthetic_videos.generate_video(config, looks, index)
    assert len(keys) == len(set(keys)) == 4 * 5 * number

  def test_prototype_seed_changes_classes_but_not_labels(self):
    config, other = make_config(**_BUSY), make_config(**_BUSY, prototype_seed=1)
    for one, two in zip(*map(synthetic_videos.make_looks, (config, other))):
      for ours, theirs in zip(one, two):
        # Every row, or code, is another one.
        rows = np.abs(ours - theirs).reshape(len(ours), -1)
        assert rows.max(axis=1).min() > 0
    for one, two in zip(make_videos(config), make_videos(other)):
      np.testing.assert_array_equal(one.labels, two.labels)
      assert one.video_id == two.video_id

  @pytest.mark.parametrize("fields", [{}, _BUSY])
  def test_videos_do_not_depend_on_shards_count_names_or_more_features(
    self, fields
  ):
    config = make_config(**fields)
    other = dataclasses.replace(
      config,
      num_videos=13,
      num_shards=3,
      feature_names="a,b,c",
      feature_sizes=f"{config.feature_sizes},16",
    )
    for one, two in zip(make_videos(config), make_videos(other)):
      assert one.video_id == two.video_id
      np.testing.assert_array_equal(one.labels, two.labels)
      np.testing.assert_array_equal(one.frames["rgb"], two.frames["a"])
      np.testing.assert_array_equal(one.frames["audio"], two.frames["b"])

  def test_ids_are_eleven_unique_characters(self):
    ids = {
      synthetic_videos._video_id(seed, split, index)
      for seed in (-1, 0, 1)
      for split in ("train", "validate")
      for index in range(1000)
    }
    assert len(ids) == 6 * 1000
    assert all(re.fullmatch(rb"[A-Za-z0-9_-]{11}", each) for each in ids)


def parse(paths, config):
  """Reads records with TensorFlow's parsers, as the readers do."""
  with tf.Graph().as_default(), tf.Session() as session:
    serialized = tf.placeholder(tf.string, [])
    context = {
      "id": tf.io.FixedLenFeature([], tf.string),
      "labels": tf.io.VarLenFeature(tf.int64),
    }
    if config.level == "frame":
      lists = {
        name: tf.io.FixedLenSequenceFeature([], tf.string)
        for name in config.names
      }
      parsed, frames = tf.io.parse_single_sequence_example(
        serialized, context, lists
      )
      for name, value in frames.items():
        parsed[name] = tf.io.decode_raw(value, tf.uint8)
    else:
      for name, size in zip(config.names, config.sizes):
        context[name] = tf.io.FixedLenFeature([size], tf.float32)
      parsed = tf.io.parse_single_example(serialized, context)
    parsed["labels"] = parsed["labels"].values
    return [
      session.run(parsed, {serialized: record})
      for path in paths
      for record in tf.io.tf_record_iterator(path)
    ]


class TestFormats:
  @pytest.mark.parametrize("names", ["audio", "a,b,c", None])
  def test_both_levels_parse_and_the_video_level_is_the_mean(
    self, write, names
  ):
    sizes = {"audio": "5", "a,b,c": "5,2,3", None: "7,3"}[names]
    config, summary = write(feature_names=names, feature_sizes=sizes)
    videos = make_videos(config)
    records = parse(summary.paths, config)
    means = names and ",".join(f"mean_{name}" for name in config.names)
    fields = {"feature_names": means, "feature_sizes": sizes}
    video_config, video_level = write(
      "video", level="video", num_shards=3, **fields
    )
    examples = parse(video_level.paths, video_config)
    for video, record, example in zip(videos, records, examples, strict=True):
      assert record["id"] == example["id"] == video.video_id
      np.testing.assert_array_equal(record["labels"], video.labels)
      np.testing.assert_array_equal(example["labels"], video.labels)
      for name, frames in video.frames.items():
        np.testing.assert_array_equal(record[name], frames)
        values = frames.astype(np.float64) * 4 / 255 + 4 / 512 - 2
        np.testing.assert_allclose(
          example[f"mean_{name}"], values.sum(axis=0) / len(values), atol=1e-5
        )
    counts = np.bincount(np.concatenate([v.labels for v in videos]), None, 19)
    np.testing.assert_array_equal(summary.label_counts, counts)
    assert summary.num_bytes == sum(map(len, read_bytes(summary.paths)))
    assert set(tf.io.gfile.glob(summary.pattern)) == set(summary.paths)

  def test_default_sizes_are_those_of_youtube_8m(self):
    config = make_dataset.DatasetConfig(output_dir="unused")
    looks = synthetic_videos.make_looks(config)
    frames = synthetic_videos.generate_video(config, looks, 0).frames
    assert 120 <= len(frames["rgb"]) <= 300
    assert frames["rgb"].shape[1] == 1024
    assert frames["audio"].shape == (len(frames["rgb"]), 128)
    assert config.num_classes == 3862

  @pytest.mark.parametrize("noise", [0.0, 1.0, 10.0])
  def test_values_fill_the_range_and_hardly_clip(self, noise):
    videos = make_videos(
      make_config(noise=noise, num_videos=40, feature_sizes="64,3")
    )
    frames = np.concatenate([video.frames["rgb"].ravel() for video in videos])
    assert np.mean((frames == 0) | (frames == 255)) < 0.005
    # Few videos share few backgrounds: the spread is not quite 0.6.
    assert 0.5 < writer.dequantize(frames).std() < 0.7

  @pytest.mark.parametrize("least, most", [(4, 6), (5, 5), (1, 2)])
  def test_lengths_stay_in_bounds_and_reach_them(self, least, most):
    config = make_config(min_frames=least, max_frames=most, num_videos=50)
    lengths = {
      len(frames)
      for video in make_videos(config)
      for frames in video.frames.values()
    }
    assert lengths == set(range(least, most + 1))

  def test_first_shards_get_one_more(self, write):
    config, summary = write(num_videos=11, num_shards=4)
    assert [os.path.basename(path) for path in summary.paths] == [
      f"train-0000{shard}-of-00004.tfrecord" for shard in range(4)
    ]
    assert [len(parse([p], config)) for p in summary.paths] == [3, 3, 3, 2]


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

  @pytest.mark.parametrize("mean", [1.0, 2.0, 5.0])
  def test_labels_per_video_goes_up_to_all_classes(self, mean):
    config = make_config(num_classes=5, labels_per_video=mean, num_videos=400)
    numbers = [len(video.labels) for video in make_videos(config)]
    if mean in (1.0, 5.0):
      assert set(numbers) == {int(mean)}
    assert abs(np.mean(numbers) - mean) < 0.25

  @pytest.mark.parametrize(
    "fraction, count", [(0.25, 10), (0.01, 1), (1.0, 40)]
  )
  def test_every_label_shows_in_its_fraction_of_frames(self, fraction, count):
    videos = make_videos(
      make_config(min_frames=40, max_frames=40, label_frames=fraction)
    )
    shown = np.concatenate([video.shows for video in videos], axis=1)
    np.testing.assert_array_equal(shown.sum(axis=0), count)
    if count == 10:
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

  @pytest.mark.parametrize(
    "clutter, burst, num_clutter, num_burst",
    [
      (0.3, 0.0, 12, 0),
      (0.0, 0.4, 0, 16),
      (0.3, 0.4, 12, 16),
      (0.01,) * 2 + (0,) * 2,
    ],
  )
  def test_fractions_are_kept_labels_spared_and_other_frames_as_without(
    self, clutter, burst, num_clutter, num_burst
  ):
    plain = self.config(label_frames=0.1)
    config = dataclasses.replace(
      plain, clutter_frames=clutter, burst_frames=burst
    )
    for video, without in zip(make_videos(config), make_videos(plain)):
      assert video.clutter.sum() == num_clutter
      assert video.burst.sum() == num_burst
      assert video.shows.sum() == 4
      assert (video.clutter + 0 + video.burst + video.shows[:, 0]).max() <= 1
      others = ~(video.clutter | video.burst)
      np.testing.assert_array_equal(video.labels, without.labels)
      for name, frames in video.frames.items():
        np.testing.assert_array_equal(
          frames[others], without.frames[name][others]
        )

  def test_labels_give_frames_when_none_are_left(self):
    # All of the 40 frames show the label; 36 are asked for.
    for video in make_videos(
      self.config(clutter_frames=0.5, burst_frames=0.4, label_frames=1.0)
    ):
      assert (video.clutter.sum(), video.burst.sum()) == (20, 16)
      np.testing.assert_array_equal(
        video.shows[:, 0], ~(video.clutter | video.burst)
      )

  @pytest.mark.parametrize("label_frames", [0.1, 1.0])
  def test_every_label_keeps_a_frame(self, label_frames):
    lengths = set()
    for video in make_videos(
      self.config(
        clutter_frames=0.45,
        burst_frames=0.45,
        label_frames=label_frames,
        labels_per_video=5.0,
        min_frames=1,
        max_frames=12,
        num_videos=60,
      )
    ):
      lengths.add(len(video.shows))
      assert video.shows.any(axis=0).all()
      kinds = [video.clutter, video.burst, video.shows.any(axis=1)]
      assert np.sum(kinds, axis=0).max() == 1
    assert lengths == set(range(1, 13))

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

  @pytest.mark.parametrize(
    "label_frames, burst_frames", [(0.1, 0.5), (0.5, 0.4), (0.8, 0.7)]
  )
  def test_only_labels_cut_into_the_burst(self, label_frames, burst_frames):
    starts = set()
    for video in make_videos(
      self.config(
        label_frames=label_frames, burst_frames=burst_frames, num_videos=30
      )
    ):
      first, last = np.flatnonzero(video.burst)[[0, -1]]
      starts.add(first)
      shown = video.burst | video.shows.any(axis=1)
      assert shown[first : last + 1].all()
    assert len(starts) > 1

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


class TestFiles:
  def test_other_shard_count_is_refused_and_untouched(self, write, tmp_path):
    _, first = write(num_shards=2)
    before = read_bytes(first.paths)
    with pytest.raises(
      FileExistsError, match="holds 2 files of split 'train'.*num_shards=3"
    ):
      write(num_shards=3)
    assert len(os.listdir(tmp_path / "set")) == 2
    assert read_bytes(first.paths) == before

  def test_overwrite_deletes_the_other_shards_of_this_split_only(
    self, write, tmp_path
  ):
    _, validate = write(num_shards=2, split="validate")
    # A split whose name begins with ours.
    _, train2 = write(num_shards=2, split="train_2")
    write(num_shards=2)
    _, train = write(num_shards=3, overwrite=True)
    kept = validate.paths + train2.paths + train.paths
    assert sorted(os.listdir(tmp_path / "set")) == sorted(
      map(os.path.basename, kept)
    )

  def test_same_shard_count_is_replaced(self, write):
    write(seed=0)
    _, summary = write(seed=1)
    _, expected = write("other", seed=1)
    assert read_bytes(summary.paths) == read_bytes(expected.paths)

  @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
  def test_failure_keeps_earlier_files_and_leaves_no_temporary(
    self, write, tmp_path, monkeypatch, error
  ):
    _, first = write(num_shards=2)
    before = read_bytes(first.paths)
    generate = synthetic_videos.generate_video

    def fail_in_third_shard(config, looks, index):
      if index == 9:
        raise error("stop")
      return generate(config, looks, index)

    monkeypatch.setattr(synthetic_videos, "generate_video", fail_in_third_shard)
    with pytest.raises(error, match="stop"):
      write(num_shards=3, overwrite=True)
    assert sorted(os.listdir(tmp_path / "set")) == [
      os.path.basename(path) for path in first.paths
    ]
    assert read_bytes(first.paths) == before


class TestProgram:
  @pytest.mark.parametrize(
    "fields",
    [
      {"output_dir": ""},
      {"level": "clip"},
      {"feature_names": "rgb"},
      {"feature_names": "rgb,rgb"},
      {"feature_names": "rgb,labels"},
      {"feature_sizes": ""},
      {"feature_sizes": "7,0"},
      {"feature_sizes": f"7,{2**31}"},
      {"num_videos": 0},
      {"num_shards": 12},
      {"num_classes": 1},
      {"min_frames": 0},
      {"min_frames": 7},
      {"labels_per_video": 0.5},
      {"labels_per_video": 20.0},
      {"label_frames": 0.0},
      {"label_frames": 1.5},
      {"clutter_frames": -0.1},
      {"burst_frames": float("nan")},
      {"burst_frames": 0.6, "clutter_frames": 0.4},
      {"label_signature": "covariance", "feature_sizes": "16,15"},
      {"noise": float("inf")},
      {"split": ""},
      {"split": "train-2"},
    ],
  )
  def test_bad_fields_are_named(self, fields):
    with pytest.raises(ValueError, match=f"--{next(iter(fields))}"):
      make_config(**fields)

  def test_names_default_to_those_of_the_level(self):
    assert make_config().names == ["rgb", "audio"]
    assert make_config(level="video").names == ["mean_rgb", "mean_audio"]

  def test_flags_have_their_names_and_defaults(self):
    known = flags.FlagValues()
    flag_fields.define(make_dataset.DatasetConfig, known)
    known(["make_dataset.py", "--output_dir=there"])
    expected = {
      "output_dir": "there",
      "level": "frame",
      "feature_names": None,
      "feature_sizes": "1024,128",
      "num_videos": 1000,
      "num_shards": 4,
      "num_classes": 3862,
      "min_frames": 120,
      "max_frames": 300,
      "labels_per_video": 3.0,
      "label_frames": 0.25,
      "label_signature": "mean",
      "clutter_frames": 0.0,
      "burst_frames": 0.0,
      "noise": 1.0,
      "seed": 0,
      "prototype_seed": 0,
      "split": "train",
      "overwrite": False,
    }
    found = flag_fields.from_flags(make_dataset.DatasetConfig, known)
    assert dataclasses.asdict(found) == expected

  def test_the_program_reports_what_it_wrote(self, tmp_path):
    status, stdout, stderr = runs.run_program(
      "scripts/make_dataset.py",
      *runs.flag_list({**_SMALL, "output_dir": tmp_path, "num_classes": 5}),
    )
    assert status == 0, stderr
    num_bytes = sum(len(path.read_bytes()) for path in tmp_path.iterdir())
    assert f"11 videos (frame level) in 2 shards, {num_bytes} bytes" in stdout
    assert str(tmp_path / "train-*.tfrecord") in stdout
    assert re.search(r"\d\.\d\d a video on average; [1-5] of 5 cl", stdout)
