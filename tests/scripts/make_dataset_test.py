"""Tests for scripts/make_dataset.py."""

import dataclasses
import fractions
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags
from absl.testing import absltest, parameterized

from scripts import make_dataset

# Sizes are distinct, so that a swapped axis cannot pass.
_SMALL = {
  "feature_sizes": (7, 3),
  "num_videos": 11,
  "num_shards": 2,
  "num_classes": 19,
  "min_frames": 4,
  "max_frames": 6,
}
# With everything that is off by default.
_BUSY = {
  "feature_sizes": (19, 17),
  "label_signature": "covariance",
  "clutter_frames": 0.3,
  "burst_frames": 0.4,
}


def _config(output_dir: str = "unused", **fields) -> make_dataset.DatasetConfig:
  return make_dataset.DatasetConfig(
    output_dir=output_dir, **{**_SMALL, **fields}
  )


def _videos(config: make_dataset.DatasetConfig) -> list[make_dataset.Video]:
  classes = make_dataset.make_classes(config)
  return [
    make_dataset.generate_video(config, classes, index)
    for index in range(config.num_videos)
  ]


def _arrays(classes: make_dataset.Classes) -> list[np.ndarray]:
  """All that follows from the prototype seed."""
  return [
    array
    for field in dataclasses.fields(classes)
    if field.name != "popularity"
    for array in getattr(classes, field.name)
  ]


def _parse(paths, config: make_dataset.DatasetConfig) -> list[dict]:
  """Reads records with TensorFlow's parsers, as the readers do."""
  with tf.Graph().as_default(), tf.Session() as session:
    serialized = tf.placeholder(tf.string, [])
    context = {
      "id": tf.io.FixedLenFeature([], tf.string),
      "labels": tf.io.VarLenFeature(tf.int64),
    }
    if config.level == "frame":
      parsed, frames = tf.io.parse_single_sequence_example(
        serialized,
        context,
        {
          name: tf.io.FixedLenSequenceFeature([], tf.string)
          for name in config.feature_names
        },
      )
      parsed.update(
        {
          name: tf.io.decode_raw(value, tf.uint8)
          for name, value in frames.items()
        }
      )
    else:
      parsed = tf.io.parse_single_example(
        serialized,
        {
          **context,
          **{
            name: tf.io.FixedLenFeature([size], tf.float32)
            for name, size in zip(config.feature_names, config.feature_sizes)
          },
        },
      )
    parsed["labels"] = parsed["labels"].values
    return [
      session.run(parsed, {serialized: record})
      for path in paths
      for record in tf.io.tf_record_iterator(path)
    ]


def _read_bytes(paths) -> list[bytes]:
  contents = []
  for path in paths:
    with open(path, "rb") as file:
      contents.append(file.read())
  return contents


def _moments(config, *, order: int) -> tuple[np.ndarray, np.ndarray]:
  """Means or second moments [N, ...] of all videos; targets [N, C]."""
  videos = _videos(config)
  targets = np.zeros([len(videos), config.num_classes])
  inputs = []
  for row, video in zip(targets, videos):
    row[video.labels] = 1
    moments = []
    for frames in video.frames.values():
      values = make_dataset.dequantize(frames)
      moments.append(
        values.mean(axis=0)
        if order == 1
        else (values.T @ values / len(values)).ravel()
      )
    inputs.append(np.concatenate(moments))
  return np.stack(inputs), targets


def _fit_ridge(inputs, targets):
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


class DatasetTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    directory = tempfile.TemporaryDirectory()
    self.addCleanup(directory.cleanup)
    self.root = directory.name

  def path(self, name: str) -> str:
    return os.path.join(self.root, name)

  def write(self, name: str = "set", **fields):
    config = _config(self.path(name), **fields)
    return config, make_dataset.write_dataset(config)


class SeedsTest(DatasetTestCase):
  def test_default_bytes_stay_as_they_were(self):
    _, summary = self.write()
    self.assertEqual(
      hashlib.sha256(b"".join(_read_bytes(summary.paths))).hexdigest(),
      "341d3ab519ba955716a25fa5fca982f28e07c12b424937c1b35070825a70a91b",
    )

  @parameterized.parameters("frame", "video")
  def test_same_seed_writes_same_bytes(self, level):
    _, first = self.write("first", level=level, seed=5)
    _, second = self.write("second", level=level, seed=5)
    self.assertEqual(_read_bytes(first.paths), _read_bytes(second.paths))

  @parameterized.parameters(
    {"seed": 1}, {"split": "validate"}, {"seed": 1, "split": "validate"}
  )
  def test_other_seed_or_split_is_other_videos_of_the_same_classes(
    self, **changes
  ):
    config, other = _config(**_BUSY), _config(**_BUSY, **changes)
    ours, theirs = (
      _arrays(make_dataset.make_classes(c)) for c in (config, other)
    )
    self.assertLen(ours, 5 * 2)
    for one, two in zip(ours, theirs):
      np.testing.assert_array_equal(one, two)
    ids, other_ids = (
      {video.video_id for video in _videos(c)} for c in (config, other)
    )
    self.assertLen(ids | other_ids, 22)
    for one, two in zip(_videos(config), _videos(other)):
      self.assertNotEqual(
        one.frames["rgb"].tobytes(), two.frames["rgb"].tobytes()
      )

  @parameterized.parameters(
    ({}, 1 + 2),  # One a video, one a feature.
    (_BUSY, 3 + 2 * 2),
  )
  def test_no_two_videos_draw_from_the_same_generator(self, fields, number):
    keys = []
    generator = make_dataset._generator

    def record(*key):
      keys.append(key)
      return generator(*key)

    configs = [
      _config(seed=seed, split=split, **fields)
      for seed in (0, 1)
      for split in ("train", "validate")
    ]
    classes = make_dataset.make_classes(configs[0])
    with mock.patch.object(make_dataset, "_generator", record):
      for config in configs:
        for index in range(5):
          make_dataset.generate_video(config, classes, index)
    self.assertLen(keys, 4 * 5 * number)
    self.assertLen(set(keys), len(keys))

  def test_prototype_seed_changes_classes_but_not_labels(self):
    config, other = _config(**_BUSY), _config(**_BUSY, prototype_seed=1)
    for one, two in zip(
      _arrays(make_dataset.make_classes(config)),
      _arrays(make_dataset.make_classes(other)),
    ):
      # Every row, or code, is another one.
      rows = np.abs(one - two).reshape(len(one), -1)
      self.assertGreater(rows.max(axis=1).min(), 0)
    for one, two in zip(_videos(config), _videos(other)):
      np.testing.assert_array_equal(one.labels, two.labels)
      self.assertEqual(one.video_id, two.video_id)

  def test_features_have_prototypes_of_their_own(self):
    first, second = make_dataset.make_classes(
      _config(feature_sizes=(5, 5))
    ).prototypes
    self.assertFalse(np.array_equal(first, second))

  @parameterized.parameters({}, _BUSY)
  def test_videos_do_not_depend_on_shards_count_names_or_more_features(
    self, **fields
  ):
    config = _config(**fields)
    before = _videos(config)
    after = _videos(
      dataclasses.replace(
        config,
        num_videos=13,
        num_shards=3,
        feature_names=("a", "b", "c"),
        feature_sizes=(*config.feature_sizes, 16),
      )
    )
    for one, two in zip(before, after):
      self.assertEqual(one.video_id, two.video_id)
      np.testing.assert_array_equal(one.labels, two.labels)
      np.testing.assert_array_equal(one.frames["rgb"], two.frames["a"])
      np.testing.assert_array_equal(one.frames["audio"], two.frames["b"])

  def test_numpy_integers_count_as_python_integers(self):
    config, other = _config(seed=4), _config(seed=np.int64(4))
    classes = make_dataset.make_classes(config)
    one = make_dataset.generate_video(config, classes, 3)
    two = make_dataset.generate_video(other, classes, np.int32(3))
    self.assertEqual(one.video_id, two.video_id)
    np.testing.assert_array_equal(one.frames["rgb"], two.frames["rgb"])

  def test_does_not_touch_the_global_generator(self):
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    _videos(_config())
    self.assertEqual(np.random.rand(), expected)

  def test_ids_are_eleven_unique_characters(self):
    configs = [
      _config(seed=seed, split=split)
      for seed in (-1, 0, 1)
      for split in ("train", "validate")
    ]
    ids = {
      make_dataset._video_id(config, index)
      for config in configs
      for index in range(1000)
    }
    self.assertLen(ids, 6 * 1000)
    for video_id in ids:
      self.assertRegex(video_id, rb"^[A-Za-z0-9_-]{11}$")


class FormatsTest(DatasetTestCase):
  @parameterized.parameters(
    ({"feature_names": ("audio",), "feature_sizes": (5,)},),
    ({"feature_names": ("a", "b", "c"), "feature_sizes": (5, 2, 3)},),
    ({},),
  )
  def test_frame_level_parses(self, fields):
    config, summary = self.write(**fields)
    records = _parse(summary.paths, config)
    self.assertLen(records, 11)
    for record, video in zip(records, _videos(config)):
      self.assertEqual(record["id"], video.video_id)
      np.testing.assert_array_equal(record["labels"], video.labels)
      for name, size in zip(config.feature_names, config.feature_sizes):
        self.assertEqual(record[name].dtype, np.uint8)
        self.assertEqual(record[name].shape[1], size)
        np.testing.assert_array_equal(record[name], video.frames[name])

  @parameterized.parameters(
    (("rgb", "audio"), None),
    (("rgb",), ("mean_rgb",)),
    (("a", "b", "c"), ("mean_a", "mean_b", "mean_c")),
  )
  def test_video_level_is_the_mean_of_the_frame_level(self, names, means):
    sizes = (7, 3, 2)[: len(names)]
    frame_config, frame_level = self.write(
      "frame", feature_names=names, feature_sizes=sizes
    )
    video_config, video_level = self.write(
      "video",
      level="video",
      feature_names=means,
      feature_sizes=sizes,
      num_shards=3,
    )
    videos = _parse(frame_level.paths, frame_config)
    examples = _parse(video_level.paths, video_config)
    self.assertLen(examples, len(videos))
    for video, example in zip(videos, examples):
      self.assertEqual(video["id"], example["id"])
      np.testing.assert_array_equal(video["labels"], example["labels"])
      for name, mean in zip(names, video_config.feature_names):
        self.assertEqual(mean, f"mean_{name}")
        frames = video[name].astype(np.float64) * 4 / 255 + 4 / 512 - 2
        np.testing.assert_allclose(
          example[mean], frames.sum(axis=0) / len(frames), atol=1e-5
        )

  def test_default_sizes_are_those_of_youtube_8m(self):
    config = make_dataset.DatasetConfig(output_dir="unused")
    video = make_dataset.generate_video(
      config, make_dataset.make_classes(config), 0
    )
    self.assertBetween(len(video.frames["rgb"]), 120, 300)
    self.assertEqual(video.frames["rgb"].shape[1], 1024)
    self.assertEqual(
      video.frames["audio"].shape, (len(video.frames["rgb"]), 128)
    )
    self.assertEqual(config.num_classes, 3862)

  def test_quantize_rounds_to_the_nearest_byte_and_clips(self):
    values = np.linspace(-3, 3, 1000, dtype=np.float32)
    steps = [
      fractions.Fraction(4 * q, 255) + fractions.Fraction(4, 512) - 2
      for q in range(256)
    ]
    expected = [
      min(range(256), key=lambda q: abs(steps[q] - float(value)))
      for value in values
    ]
    np.testing.assert_array_equal(make_dataset.quantize(values), expected)
    np.testing.assert_allclose(
      make_dataset.dequantize(np.arange(256)),
      [float(step) for step in steps],
      rtol=1e-12,
    )

  def test_values_fill_the_range_and_hardly_clip(self):
    for noise in (0.0, 1.0, 10.0):
      frames = np.concatenate(
        [
          video.frames["rgb"].ravel()
          for video in _videos(
            _config(noise=noise, num_videos=40, feature_sizes=(64, 3))
          )
        ]
      )
      self.assertLess(np.mean((frames == 0) | (frames == 255)), 0.005)
      # Few videos share few backgrounds: the spread is not quite 0.6.
      self.assertBetween(make_dataset.dequantize(frames).std(), 0.5, 0.7)

  @parameterized.parameters((4, 6), (5, 5), (1, 2))
  def test_lengths_stay_in_bounds_and_reach_them(self, least, most):
    lengths = {
      len(frames)
      for video in _videos(
        _config(min_frames=least, max_frames=most, num_videos=50)
      )
      for frames in video.frames.values()
    }
    self.assertEqual(lengths, set(range(least, most + 1)))

  def test_first_shards_get_one_more(self):
    config, summary = self.write(num_videos=11, num_shards=4)
    self.assertEqual(
      [os.path.basename(path) for path in summary.paths],
      [f"train-0000{shard}-of-00004.tfrecord" for shard in range(4)],
    )
    self.assertEqual(
      [len(_parse([path], config)) for path in summary.paths], [3, 3, 3, 2]
    )

  def test_summary_counts_what_is_on_disk(self):
    config, summary = self.write(split="validate")
    counts = np.zeros([19], np.int64)
    for record in _parse(summary.paths, config):
      for label in record["labels"]:
        counts[label] += 1
    np.testing.assert_array_equal(summary.label_counts, counts)
    self.assertEqual(summary.num_videos, 11)
    self.assertEqual(
      summary.num_bytes, sum(map(len, _read_bytes(summary.paths)))
    )
    self.assertCountEqual(tf.io.gfile.glob(summary.pattern), summary.paths)


class ContentTest(DatasetTestCase):
  def test_labels_are_distinct_in_range_and_about_three(self):
    labels = [
      video.labels
      for video in _videos(
        _config(num_videos=1000, num_classes=101, feature_sizes=(1, 1))
      )
    ]
    numbers = np.array([len(row) for row in labels])
    self.assertEqual(numbers.min(), 1)
    self.assertGreater(numbers.max(), 4)
    # Five standard errors: the variance is near 2.
    self.assertAlmostEqual(numbers.mean(), 3, delta=5 * (2 / 1000) ** 0.5)
    for row in labels:
      self.assertLen(set(row.tolist()), len(row))
      self.assertBetween(row.min(), 0, 100)
      self.assertBetween(row.max(), 0, 100)

  def test_head_class_is_far_more_frequent_than_the_median(self):
    counts = np.zeros([101])
    for video in _videos(
      _config(num_videos=1000, num_classes=101, feature_sizes=(1, 1))
    ):
      counts[video.labels] += 1
    self.assertEqual(counts.argmax(), 0)
    self.assertGreater(counts[0], 5 * np.median(counts))
    # A tenth of the classes carries two fifths of the labels.
    self.assertGreater(counts[:10].sum(), 0.3 * counts.sum())

  @parameterized.parameters(1.0, 2.0, 5.0)
  def test_labels_per_video_goes_up_to_all_classes(self, mean):
    config = _config(num_classes=5, labels_per_video=mean, num_videos=400)
    numbers = [len(video.labels) for video in _videos(config)]
    if mean in (1.0, 5.0):
      self.assertEqual(set(numbers), {int(mean)})
    self.assertAlmostEqual(np.mean(numbers), mean, delta=0.25)

  @parameterized.parameters((0.25, 10), (0.01, 1), (1.0, 40))
  def test_every_label_shows_in_its_fraction_of_frames(self, fraction, count):
    videos = _videos(
      _config(min_frames=40, max_frames=40, label_frames=fraction)
    )
    for video in videos:
      np.testing.assert_array_equal(video.shows.sum(axis=0), count)
    if count == 10:
      edges = {
        int(np.abs(np.diff(shown.astype(int))).sum())
        for video in videos
        for shown in video.shows.T
      }
      self.assertLessEqual(min(edges), 2)  # One run.
      self.assertGreater(max(edges), 4)  # Scattered.

  def test_without_noise_frames_are_their_sources(self):
    config = _config(noise=0.0, num_videos=5, min_frames=20, max_frames=20)
    classes = make_dataset.make_classes(config)
    seen = {"background": 0, "one": 0, "several": 0}
    for video in _videos(config):
      for name, prototypes, backgrounds in zip(
        config.feature_names, classes.prototypes, classes.backgrounds
      ):
        for frame, shown in zip(video.frames[name], video.shows):
          labels = video.labels[shown]
          if len(labels) == 0:
            candidates = [0.6 * source for source in backgrounds]
          else:
            total = sum(prototypes[label] for label in labels)
            candidates = [0.6 * total / len(labels) ** 0.5]
          kind = ["background", "one", "several"][min(len(labels), 2)]
          seen[kind] += 1
          value = make_dataset.dequantize(frame)
          # Half a step of the quantiser.
          self.assertLess(
            min(
              np.abs(value - np.clip(source, -1.99, 2.0)).max()
              for source in candidates
            ),
            2 / 255 + 0.01,
          )
    self.assertGreater(min(seen.values()), 0)

  def test_backgrounds_last_for_several_frames(self):
    videos = _videos(
      _config(
        noise=0.0,
        min_frames=100,
        max_frames=100,
        label_frames=0.01,
        labels_per_video=1.0,
        num_videos=30,
      )
    )
    changes = []
    for video in videos:
      background = ~video.shows.any(axis=1)
      self.assertEqual(background.sum(), 99)
      frames = video.frames["rgb"][background]
      changes.extend(np.any(frames[1:] != frames[:-1], axis=1))
    # A cut in twenty frames, one in eight of them to the same background.
    self.assertBetween(np.mean(changes), 0.03, 0.06)

  def test_neighbouring_frames_correlate_through_their_noise(self):
    values = np.zeros([500, 40], np.float32)
    make_dataset._add_noise(np.random.default_rng(0), values, 2.0)
    self.assertAlmostEqual(values.mean(), 0, delta=0.1)
    self.assertAlmostEqual(values.std(), 2, delta=0.1)
    for lag, expected in [(1, 0.4), (2, 0.0)]:
      self.assertAlmostEqual(
        np.mean(values[lag:] * values[:-lag]) / 4, expected, delta=0.05
      )

  def test_a_linear_model_of_one_split_predicts_the_other(self):
    def load(**fields):
      config = _config(
        num_classes=20,
        feature_sizes=(24, 8),
        min_frames=10,
        max_frames=30,
        **fields,
      )
      return _moments(config, order=1)

    hit_at_1 = _fit_ridge(*load(num_videos=400))
    validate = {"num_videos": 200, "split": "validate", "seed": 1}
    test_inputs, test_targets = load(**validate)
    prior = test_targets.mean(axis=0).max()  # Guessing the head class.
    self.assertLess(prior, 0.5)
    self.assertGreater(hit_at_1(test_inputs, test_targets), 0.85)
    # Other prototypes are other classes: nothing learnt applies to them.
    self.assertLess(hit_at_1(*load(**validate, prototype_seed=1)), 0.5)


class DistractorsTest(DatasetTestCase):
  def config(self, **fields):
    lengths = {"min_frames": 40, "max_frames": 40}
    return _config(**{**lengths, "labels_per_video": 1.0, **fields})

  @parameterized.parameters(
    (0.3, 0.0, 12, 0), (0.0, 0.4, 0, 16), (0.3, 0.4, 12, 16), (0.01, 0.01, 0, 0)
  )
  def test_fractions_are_kept_and_labels_spared(
    self, clutter, burst, num_clutter, num_burst
  ):
    for video in _videos(
      self.config(clutter_frames=clutter, burst_frames=burst, label_frames=0.1)
    ):
      self.assertEqual(video.clutter.sum(), num_clutter)
      self.assertEqual(video.burst.sum(), num_burst)
      self.assertEqual(video.shows.sum(), 4)
      kinds = video.clutter + 0 + video.burst + video.shows[:, 0]
      self.assertEqual(kinds.max(), 1)

  def test_labels_give_frames_when_none_are_left(self):
    # All of the 40 frames show the label; 36 are asked for.
    for video in _videos(
      self.config(clutter_frames=0.5, burst_frames=0.4, label_frames=1.0)
    ):
      self.assertEqual(video.clutter.sum(), 20)
      self.assertEqual(video.burst.sum(), 16)
      np.testing.assert_array_equal(
        video.shows[:, 0], ~(video.clutter | video.burst)
      )

  @parameterized.parameters(0.1, 0.5, 1.0)
  def test_every_label_keeps_a_frame(self, label_frames):
    lengths = set()
    for video in _videos(
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
      self.assertTrue(video.shows.any(axis=0).all())
      self.assertFalse((video.clutter & video.burst).any())
      self.assertFalse(
        (video.shows.any(axis=1) & (video.clutter | video.burst)).any()
      )
    self.assertEqual(lengths, set(range(1, 13)))

  def test_other_frames_are_as_without_distractors(self):
    changes = {"clutter_frames": 0.3, "burst_frames": 0.4}
    for one, two in zip(
      _videos(self.config(label_frames=0.1)),
      _videos(self.config(label_frames=0.1, **changes)),
    ):
      self.assertEqual(one.video_id, two.video_id)
      np.testing.assert_array_equal(one.labels, two.labels)
      np.testing.assert_array_equal(one.shows, two.shows)
      others = ~(two.clutter | two.burst)
      self.assertEqual(others.sum(), 12)
      for name in ("rgb", "audio"):
        np.testing.assert_array_equal(
          one.frames[name][others], two.frames[name][others]
        )

  def rows(self, frames, pictures) -> list[int]:
    """The picture that each of the frames, free of noise, shows."""
    rows = []
    for frame in make_dataset.dequantize(frames):
      # Half a step of the quantiser.
      (row,) = [
        row
        for row, picture in enumerate(pictures)
        if np.abs(np.clip(0.6 * picture, -1.99, 2.0) - frame).max() < 0.018
      ]
      rows.append(row)
    return rows

  def clutter_of_videos(self, **fields) -> list[set[int]]:
    config = self.config(noise=0.0, clutter_frames=0.6, num_videos=40, **fields)
    classes = make_dataset.make_classes(config)
    return [
      set(self.rows(video.frames["rgb"][video.clutter], classes.clutter[0]))
      for video in _videos(config)
    ]

  def test_a_video_shows_four_pictures_of_the_common_clutter(self):
    seen = self.clutter_of_videos()
    self.assertLessEqual(max(map(len, seen)), 4)
    # 160 draws from 64 leave out one in twelve.
    self.assertGreater(len(set.union(*seen)), 50)
    self.assertLess(max(set.union(*seen)), 64)
    # Two videos seldom have the same.
    self.assertGreater(len(set(map(frozenset, seen))), 35)

  def test_clutter_does_not_depend_on_labels(self):
    lengths = {"min_frames": 100, "max_frames": 100}
    one = self.clutter_of_videos(**lengths)
    other = self.clutter_of_videos(**lengths, labels_per_video=6.0)
    self.assertEqual(set(map(len, one)), {4})
    self.assertEqual(one, other)

  def test_features_show_the_same_row_of_their_clutter(self):
    config = self.config(
      noise=0.0, clutter_frames=0.5, feature_sizes=(7, 5), num_videos=5
    )
    classes = make_dataset.make_classes(config)
    for video in _videos(config):
      rgb, audio = (
        self.rows(frames[video.clutter], pictures)
        for frames, pictures in zip(video.frames.values(), classes.clutter)
      )
      self.assertEqual(rgb, audio)

  def test_burst_is_one_picture_of_all(self):
    config = self.config(noise=0.0, burst_frames=0.3, num_videos=200)
    classes = make_dataset.make_classes(config)
    pictures = np.concatenate([classes.backgrounds[0], classes.clutter[0]])
    seen = []
    for video in _videos(config):
      rows = self.rows(video.frames["rgb"][video.burst], pictures)
      self.assertLen(set(rows), 1)
      seen.append(rows[0])
    self.assertLess(min(seen), 8)
    # 200 draws from 72 leave out one in sixteen.
    self.assertGreater(len(set(seen)), 60)

  @parameterized.parameters((0.1, 0.5), (0.5, 0.4), (0.8, 0.7))
  def test_only_labels_cut_into_the_burst(self, label_frames, burst_frames):
    starts = set()
    for video in _videos(
      self.config(
        label_frames=label_frames, burst_frames=burst_frames, num_videos=30
      )
    ):
      first, last = np.flatnonzero(video.burst)[[0, -1]]
      starts.add(first)
      self.assertTrue(
        (video.burst | video.shows.any(axis=1))[first : last + 1].all()
      )
    self.assertGreater(len(starts), 1)

  def test_frames_of_a_burst_are_nearly_identical(self):
    for video in _videos(
      self.config(
        burst_frames=0.5,
        label_frames=0.1,
        labels_per_video=2.0,
        feature_sizes=(31, 3),
      )
    ):
      values = make_dataset.dequantize(video.frames["rgb"])
      distances = np.linalg.norm(values[:, None] - values, axis=2)
      burst = video.burst
      within = distances[burst][:, burst].max()
      others = distances[~burst][:, ~burst]
      others = others[~np.eye(len(others), dtype=bool)]
      self.assertLess(20 * within, others.mean())
      self.assertLess(5 * within, others.min())
      self.assertGreater(within, 0)

  def test_noise_of_a_burst_is_two_percent_but_for_its_first_frame(self):
    noise = np.random.default_rng(0).standard_normal([11, 5000])
    burst = np.arange(11) > 3
    values = noise.astype(np.float32)
    make_dataset._still(values, burst)
    np.testing.assert_array_equal(values[:5], noise[:5].astype(np.float32))
    np.testing.assert_allclose(
      values[5:], 0.98 * noise[4] + 0.02 * noise[5:], atol=1e-6
    )


class CovarianceTest(DatasetTestCase):
  def coefficients(self, config, position):
    """Of the directions, in all frames [T, M] of each video."""
    directions = make_dataset.make_classes(config).directions[position]
    num_directions, size = directions.shape
    for video in _videos(config):
      values = make_dataset.dequantize(
        video.frames[config.feature_names[position]]
      )
      yield video, values @ directions.T / 0.6 / (size / num_directions)

  def config(self, **fields):
    defaults = {
      "label_signature": "covariance",
      "feature_sizes": (31, 16),
      "num_classes": 3,
      "labels_per_video": 1.0,
      "label_frames": 1.0,
      "noise": 0.0,
    }
    return _config(**{**defaults, **fields})

  @parameterized.parameters(0, 1)
  def test_classes_differ_in_nothing_but_their_covariances(self, position):
    config = self.config(num_videos=60, min_frames=97, max_frames=101)
    codes = make_dataset.make_classes(config).codes[position]
    frames = {label: [] for label in range(3)}
    for video, values in self.coefficients(config, position):
      frames[video.labels[0]].append(values)
    for label, videos in frames.items():
      values = np.concatenate(videos)
      self.assertGreater(len(values), 500)
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

  def test_codes_are_perfect_matchings_and_distinct(self):
    codes = make_dataset._draw_codes(np.random.default_rng(0), 3001)
    self.assertEqual(codes.shape, (3001, 8, 16))
    np.testing.assert_array_equal(np.abs(codes).sum(axis=1), 1)
    np.testing.assert_array_equal(np.abs(codes).sum(axis=2), 2)
    self.assertEqual(set(np.unique(codes)), {-1, 0, 1})
    keys = set()
    for code in codes.astype(int).tolist():
      pairs = set()
      for row in code:
        i, j = (column for column in range(16) if row[column])
        pairs.add((i, j, row[i] * row[j]))
      keys.add(frozenset(pairs))
    self.assertLen(keys, 3001)

  def test_no_two_classes_are_equal_even_when_codes_run_out(self):
    with mock.patch.multiple(make_dataset, _NUM_DIRECTIONS=4, _NUM_PAIRS=2):
      # Three matchings, two signs for each of their two pairs.
      codes = make_dataset._draw_codes(np.random.default_rng(0), 3 * 2 * 2)
    self.assertLen({(code.T @ code).tobytes() for code in codes}, 12)

  @parameterized.parameters(16, 31)
  def test_directions_are_orthogonal_and_as_loud_as_a_prototype(self, size):
    directions = make_dataset._draw_directions(np.random.default_rng(0), size)
    np.testing.assert_allclose(
      directions @ directions.T, np.eye(16) * (size / 16), atol=1e-5
    )

  def test_two_labels_in_a_frame_are_no_louder_than_one(self):
    config = self.config(labels_per_video=3.0, min_frames=40, max_frames=40)
    for video, values in self.coefficients(config, 0):
      self.assertLen(video.labels, 3)
      # Sums of three signs over the root of three; bytes clip.
      steps = values * 3**0.5
      nearest = 2 * np.rint((steps - 1) / 2) + 1
      self.assertLess(np.mean(np.abs(steps - nearest) > 0.3), 0.02)
      self.assertEqual(set(np.unique(nearest)), {-3, -1, 1, 3})

  def test_signs_differ_between_frames_and_features(self):
    config = self.config(feature_sizes=(16, 16), min_frames=50, max_frames=50)
    for (_, one), (_, two) in zip(
      self.coefficients(config, 0), self.coefficients(config, 1)
    ):
      self.assertGreater(len(np.unique(np.sign(one), axis=0)), 30)
      self.assertGreater(np.mean(np.sign(one) != np.sign(two)), 0.2)

  def test_the_mean_says_nothing_and_second_moments_all(self):
    def load(order, **fields):
      config = self.config(
        num_classes=7,
        min_frames=40,
        max_frames=50,
        label_frames=0.5,
        noise=0.5,
        feature_sizes=(17, 16),
        **fields,
      )
      return _moments(config, order=order)

    hits = []
    for order in (1, 2):
      hit_at_1 = _fit_ridge(*load(order, num_videos=300))
      inputs, targets = load(order, num_videos=150, split="validate")
      hits.append(hit_at_1(inputs, targets))
    prior = targets.mean(axis=0).max()
    self.assertLess(hits[0], prior + 0.1)
    self.assertGreater(hits[1], 0.95)


class FilesTest(DatasetTestCase):
  def test_other_shard_count_is_refused_and_untouched(self):
    _, first = self.write(num_shards=2)
    before = _read_bytes(first.paths)
    with self.assertRaisesRegex(
      FileExistsError, "holds 2 files of split 'train'.*num_shards=3"
    ):
      self.write(num_shards=3)
    self.assertCountEqual(
      os.listdir(self.path("set")), map(os.path.basename, first.paths)
    )
    self.assertEqual(_read_bytes(first.paths), before)

  def test_overwrite_deletes_the_other_shards_of_this_split_only(self):
    _, validate = self.write(num_shards=2, split="validate")
    # A split whose name begins with ours.
    _, train2 = self.write(num_shards=2, split="train_2")
    self.write(num_shards=2)
    _, train = self.write(num_shards=3, overwrite=True)
    self.assertCountEqual(
      os.listdir(self.path("set")),
      map(os.path.basename, validate.paths + train2.paths + train.paths),
    )

  def test_same_shard_count_is_replaced(self):
    self.write(seed=0)
    _, summary = self.write(seed=1)
    _, expected = self.write("other", seed=1)
    self.assertEqual(_read_bytes(summary.paths), _read_bytes(expected.paths))

  @parameterized.parameters(RuntimeError, KeyboardInterrupt)
  def test_failure_keeps_earlier_files_and_leaves_no_temporary(self, error):
    _, first = self.write(num_shards=2)
    before = _read_bytes(first.paths)
    generate = make_dataset.generate_video
    seen = []

    def fail_in_second_shard(config, classes, index):
      if index == 9:
        seen.extend(os.listdir(self.path("set")))
        raise error("stop")
      return generate(config, classes, index)

    with mock.patch.object(
      make_dataset, "generate_video", fail_in_second_shard
    ):
      with self.assertRaisesRegex(error, "stop"):
        self.write(num_shards=3, overwrite=True)
    self.assertIn("train-00001-of-00003.tfrecord.tmp", seen)
    self.assertCountEqual(
      os.listdir(self.path("set")), map(os.path.basename, first.paths)
    )
    self.assertEqual(_read_bytes(first.paths), before)

  def test_full_disk_is_an_os_error(self):
    if not os.path.exists("/dev/full"):
      self.skipTest("Needs /dev/full.")
    os.mkdir(self.path("set"))
    os.symlink("/dev/full", self.path("set/train-00000-of-00002.tfrecord.tmp"))
    with self.assertRaisesRegex(OSError, "No space left"):
      self.write()
    self.assertEmpty(os.listdir(self.path("set")))

  def test_holds_one_video_at_a_time(self):
    generate, serialize = (
      make_dataset.generate_video,
      make_dataset._serialize_frames,
    )
    events = []

    def record(name, function):
      def wrapped(*args):
        events.append(name)
        return function(*args)

      return wrapped

    with mock.patch.object(
      make_dataset, "generate_video", record("make", generate)
    ):
      with mock.patch.object(
        make_dataset, "_serialize_frames", record("write", serialize)
      ):
        self.write()
    self.assertEqual(events, ["make", "write"] * 11)


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ({"output_dir": ""}, "output_dir=''"),
    ({"level": "clip"}, "level='clip'"),
    (
      {"feature_names": ("rgb",)},
      r"feature_names=\['rgb'\], feature_sizes=\[7, 3\]",
    ),
    ({"feature_names": (), "feature_sizes": ()}, r"feature_names=\[\]"),
    ({"feature_names": ("rgb", "rgb")}, r"feature_names=\['rgb', 'rgb'\]"),
    ({"feature_names": ("rgb", "")}, r"feature_names=\['rgb', ''\]"),
    (
      {"feature_names": ("rgb", "labels")},
      r"feature_names=\['rgb', 'labels'\]",
    ),
    ({"feature_sizes": (7, 0)}, r"feature_sizes=\[7, 0\]"),
    ({"feature_sizes": (7, -3)}, r"feature_sizes=\[7, -3\]"),
    ({"feature_sizes": (7, 2**31)}, r"feature_sizes=\[7, 2147483648\]"),
    ({"num_videos": 0}, "num_videos=0"),
    ({"num_shards": -1}, "num_shards=-1"),
    ({"num_shards": 12}, "num_shards=12, num_videos=11"),
    ({"num_classes": 1}, "num_classes=1"),
    ({"min_frames": 0}, "min_frames=0"),
    ({"min_frames": 7}, "min_frames=7, max_frames=6"),
    ({"labels_per_video": 0.5}, "labels_per_video=0.5"),
    ({"labels_per_video": 20.0}, "labels_per_video=20.0, num_classes=19"),
    ({"labels_per_video": float("nan")}, "labels_per_video=nan"),
    ({"label_frames": 0.0}, "label_frames=0.0"),
    ({"label_frames": 1.5}, "label_frames=1.5"),
    ({"clutter_frames": -0.1}, "clutter_frames=-0.1"),
    ({"clutter_frames": 1.0}, "clutter_frames=1.0"),
    ({"clutter_frames": float("nan")}, "clutter_frames=nan"),
    ({"burst_frames": -0.1}, "burst_frames=-0.1"),
    ({"burst_frames": 1.0}, "burst_frames=1.0"),
    ({"burst_frames": float("nan")}, "burst_frames=nan"),
    (
      {"clutter_frames": 0.4, "burst_frames": 0.6},
      "clutter_frames=0.4, burst_frames=0.6",
    ),
    ({"label_signature": "mode"}, "label_signature='mode'"),
    (
      {"label_signature": "covariance", "feature_sizes": (16, 15)},
      r"sizes >= 16 .*feature_sizes=\[16, 15\]",
    ),
    ({"noise": -1.0}, "noise=-1.0"),
    ({"noise": float("inf")}, "noise=inf"),
    ({"split": ""}, "split=''"),
    ({"split": "a/b"}, "split='a/b'"),
    ({"split": "train-2"}, "split='train-2'"),
  )
  def test_bad_fields_are_named_with_their_values(self, fields, message):
    with self.assertRaisesRegex(ValueError, message):
      _config(**fields)

  def test_names_default_to_those_of_the_level(self):
    self.assertEqual(_config().feature_names, ("rgb", "audio"))
    self.assertEqual(
      _config(level="video").feature_names, ("mean_rgb", "mean_audio")
    )


class ProgramTest(DatasetTestCase):
  def parse(self, *arguments):
    flag_values = flags.FlagValues()
    make_dataset.define_flags(flag_values)
    return flag_values(["make_dataset.py", *arguments]), flag_values

  def test_every_field_is_a_flag_with_its_default(self):
    _, flag_values = self.parse("--output_dir=there")
    self.assertEqual(
      make_dataset.config_from_flags(flag_values),
      make_dataset.DatasetConfig(output_dir="there"),
    )

  def test_flags_reach_the_configuration(self):
    expected = make_dataset.DatasetConfig(
      output_dir="there",
      level="video",
      feature_names=("a", "b", "c"),
      feature_sizes=(23, 17, 19),
      num_videos=11,
      num_shards=5,
      num_classes=19,
      min_frames=4,
      max_frames=6,
      labels_per_video=2.5,
      label_frames=0.5,
      label_signature="covariance",
      clutter_frames=0.125,
      burst_frames=0.25,
      noise=0.75,
      seed=8,
      prototype_seed=9,
      split="test",
      overwrite=True,
    )
    arguments = []
    for field in dataclasses.fields(expected):
      value = getattr(expected, field.name)
      self.assertNotEqual(value, field.default, field.name)
      if isinstance(value, tuple):
        value = ",".join(map(str, value))
      arguments.append(f"--{field.name}={value}")
    _, flag_values = self.parse(*arguments)
    self.assertEqual(make_dataset.config_from_flags(flag_values), expected)

  def test_main_reports_what_it_wrote(self):
    argv, flag_values = self.parse(
      f"--output_dir={self.root}",
      "--num_videos=6",
      "--num_shards=2",
      "--num_classes=5",
      "--feature_sizes=7,3",
      "--min_frames=4",
      "--max_frames=6",
      "--labels_per_video=1",
    )
    with mock.patch("builtins.print") as printed:
      make_dataset.main(argv, flag_values)
    text = "\n".join(call.args[0] for call in printed.call_args_list)
    num_bytes = sum(
      os.path.getsize(self.path(name)) for name in os.listdir(self.root)
    )
    self.assertIn(
      f"6 videos (frame level) in 2 shards, {num_bytes} bytes", text
    )
    self.assertIn(self.path("train-*.tfrecord"), text)
    self.assertRegex(text, r"1\.00 a video on average; [1-5] of 5 classes")

  def test_main_ends_without_traceback(self):
    _, first = self.write(num_shards=2)
    cases = {
      "feature_sizes=['7', 'x']": ["--feature_sizes=7,x"],
      "min_frames=400, max_frames=300": ["--min_frames=400"],
      "num_shards=3": [
        f"--output_dir={os.path.dirname(first.paths[0])}",
        "--num_shards=3",
      ],
      "File exists": [f"--output_dir={first.paths[0]}"],
      "['stray']": ["stray"],
    }
    for message, arguments in cases.items():
      argv, flag_values = self.parse("--output_dir=unused", *arguments)
      with self.assertRaisesRegex(SystemExit, re.escape(message)):
        make_dataset.main(argv, flag_values)
    self.assertFalse(os.path.exists("unused"))

  def test_interrupt_ends_without_traceback(self):
    argv, flag_values = self.parse(f"--output_dir={self.root}")
    with mock.patch.object(
      make_dataset, "generate_video", side_effect=KeyboardInterrupt
    ):
      with self.assertRaisesRegex(SystemExit, "Interrupted"):
        make_dataset.main(argv, flag_values)
    self.assertEmpty(os.listdir(self.root))

  def test_import_defines_no_flags_and_loads_no_tensorflow(self):
    check = (
      "import sys; from absl import flags; from scripts import "
      "make_dataset; sys.exit('tensorflow' in sys.modules or "
      "'output_dir' in flags.FLAGS)"
    )
    root = os.path.dirname(os.path.dirname(make_dataset.__file__))
    subprocess.run([sys.executable, "-c", check], cwd=root, check=True)

  @parameterized.parameters(
    (["--help"], "--prototype_seed"),
    (["--help"], "--clutter_frames"),
    (["--help"], "--burst_frames"),
    (["--help"], "--label_signature: <mean|covariance>"),
    (["--output_dir=unused", "--label_signature=x"], "--label_signature=x"),
    (["--output_dir=unused", "--clutter_frames=1"], "clutter_frames=1.0"),
    (
      ["--output_dir=unused", "--num_shards=9", "--num_videos=8"],
      "num_shards=9, num_videos=8",
    ),
    (["--output_dir=unused", "--level=clip"], "--level=clip"),
    ([], "--output_dir"),
  )
  def test_help_and_bad_flags_as_a_program(self, arguments, message):
    done = subprocess.run(
      [sys.executable, make_dataset.__file__, *arguments],
      capture_output=True,
      text=True,
      check=False,
    )
    # absl's --help ends with status 1 as well.
    self.assertNotEqual(done.returncode, 0)
    self.assertIn(message, done.stdout + done.stderr)
    self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
  absltest.main()
