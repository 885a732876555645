"""Tests of scripts/make_dataset.py: seeds, formats, files, flags."""

import hashlib
import os
import re
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

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

  def test_prototype_seed_changes_every_class(self):
    config, other = make_config(**_BUSY), make_config(**_BUSY, prototype_seed=1)
    for one, two in zip(*map(synthetic_videos.make_looks, (config, other))):
      for ours, theirs in zip(one, two):
        # Every row, or code, is another one.
        rows = np.abs(ours - theirs).reshape(len(ours), -1)
        assert rows.max(axis=1).min() > 0

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

  def test_first_shards_get_one_more(self, write):
    config, summary = write(num_videos=11, num_shards=4)
    assert [os.path.basename(path) for path in summary.paths] == [
      f"train-0000{shard}-of-00004.tfrecord" for shard in range(4)
    ]
    assert [len(parse([p], config)) for p in summary.paths] == [3, 3, 3, 2]


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
    ("name", "values"),
    {
      "output_dir": [""],
      "level": ["clip"],
      "feature_names": ["rgb", "rgb,rgb", "rgb,labels"],
      "feature_sizes": ["", "7,0", f"7,{2**31}"],
      "num_videos": [0],
      "num_shards": [12],
      "num_classes": [1],
      "min_frames": [0, 7],
      "labels_per_video": [0.5, 20.0],
      "label_frames": [0.0, 1.5],
      "clutter_frames": [-0.1],
      "burst_frames": [float("nan")],
      "noise": [float("inf")],
      "split": ["", "train-2"],
    }.items(),
  )
  def test_bad_fields_are_named(self, name, values):
    for value in values:
      with pytest.raises(ValueError, match=f"--{name}"):
        make_config(**{name: value})

  def test_fields_that_do_not_go_together_are_named(self):
    with pytest.raises(ValueError, match="--burst_frames"):
      make_config(burst_frames=0.6, clutter_frames=0.4)
    with pytest.raises(ValueError, match="--label_signature"):
      make_config(label_signature="covariance", feature_sizes="16,15")

  def test_names_default_to_those_of_the_level(self):
    assert make_config().names == ["rgb", "audio"]
    assert make_config(level="video").names == ["mean_rgb", "mean_audio"]

  @pytest.mark.slow
  def test_the_program_reports_what_it_wrote(self, tmp_path):
    status, stdout, stderr = runs.run_program(
      "scripts/make_dataset.py",
      *runs.flag_list({**_SMALL, "output_dir": tmp_path, "num_classes": 5}),
    )
    assert status == 0, stderr
    num_bytes = sum(len(path.read_bytes()) for path in tmp_path.iterdir())
    assert f"11 videos (frame level) in 2 shards, {num_bytes} bytes" in stdout
    assert str(tmp_path / "train-*.tfrecord") in stdout
    assert stdout.endswith(
      "Train on it with --frame_features=True --feature_names=rgb,audio "
      "--feature_sizes=7,3 --num_classes=5\n"
    )
    assert re.search(r"\d\.\d\d a video on average; [1-5] of 5 cl", stdout)
