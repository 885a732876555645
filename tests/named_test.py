"""Tests of learnable_pooling.load and predict.py: they agree with inference.

Axes: T frames, D numbers of a feature.
"""

import csv
import json
import os
import pathlib
import shutil
import threading
import wave

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import learnable_pooling
import model_flags
import predict
from checkpoints import archive, description, restore
from console import program
from extraction import pca
from named import model_input, picture, sources
from predictions import predictor, submission
from records import features_file, vocabulary, writer
from tests import goldens_test, runs
from tests import record_data as records

NAMES = [f"name {i}" for i in range(runs.NUM_CLASSES)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """(train_dir with a vocabulary, pattern of its videos)."""
  directory, pattern = runs.shared_model(tmp_path_factory)
  own = tmp_path_factory.mktemp("named") / "model"
  shutil.copytree(directory, own)
  vocabulary.save(str(own / "vocabulary.csv"), NAMES, [0] * len(NAMES))
  return own, pattern


@pytest.fixture(scope="module")
def expected(shared, tmp_path_factory):
  """{video id: (classes, scores)} of inference.py."""
  path = tmp_path_factory.mktemp("csv") / "out.csv"
  runs.run_infer(*shared, path, top_k=3)
  return submission.read_submission(path)


@pytest.fixture(scope="module")
def videos(shared):
  """{video id: {feature: floats [T, D]}} of the records."""
  with learnable_pooling.load(shared[0]) as model:
    found = {}
    for path in sorted(tf.io.gfile.glob(shared[1])):
      for record in tf.python_io.tf_record_iterator(path):
        video_id, stored = model.input.of_record(record)
        found[video_id] = {
          name: writer.dequantize(rows.astype(np.float32))
          for name, rows in stored.items()
        }
  return found


def assert_same(found, expected):
  """A `Prediction` is what inference.py has of the video, six digits."""
  classes, scores = expected
  assert found.classes.tolist() == classes.tolist()
  np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
  assert found.names == [NAMES[c] for c in classes]


class TestLoad:
  @pytest.mark.parametrize("kind", ["train_dir", "tgz", "saved_model"])
  def test_floats_give_what_inference_gives_for_their_records(
    self, shared, videos, expected, tmp_path, kind
  ):
    source = str(shared[0])
    if kind == "tgz":
      source = str(tmp_path / "model.tgz")
      newest = restore.latest_checkpoint(str(shared[0]))
      archive.write(source, str(shared[0]), newest)
    if kind == "saved_model":
      source = str(tmp_path / "served")
      values = model_flags.load(str(shared[0]))
      predictor.export(str(shared[0]), values, source, 4)
    with learnable_pooling.load(source) as model:
      assert model.classes == NAMES
      found = model.predict([*videos.values()], top_k=3)
      for one, video_id in zip(found, videos):
        assert_same(one, expected[video_id])
      # One alone is no list, and threads may share a model.
      results = {}
      threads = [
        threading.Thread(
          target=lambda v=v: results.update({v: model.predict(videos[v], 3)})
        )
        for v in videos
      ]
      for thread in threads:
        thread.start()
      for thread in threads:
        thread.join()
      for video_id, one in results.items():
        assert_same(one, expected[video_id])
      directory = model.directory
    assert pathlib.Path(directory).exists() == (kind != "tgz")

  def test_a_descriptor_is_given_to_who_asks(self, shared, videos):
    with learnable_pooling.load(shared[0]) as model:
      found = model.predict([*videos.values()], descriptor=True)
      assert {one.descriptor.shape for one in found} == {(4,)}
      assert model.predict(videos[next(iter(videos))]).descriptor is None
    golden = goldens_test.HERE / "LogisticModel"
    with learnable_pooling.load(golden) as model:
      features = {f.name: np.ones(f.size) for f in model.input.features}
      found = model.predict(features, top_k=99)
      assert len(found.names) == model.num_classes
      with pytest.raises(ValueError, match="makes no descriptor"):
        model.predict(features, descriptor=True)

  @pytest.mark.parametrize(
    ("video", "message"),
    [
      (np.ones([3, 7]), "give a dict of arrays"),
      ({"rgb": np.ones([3, 7])}, "'audio' .frames, 5., got 'rgb'"),
      ({"rgb": np.ones([3, 8]), "audio": np.ones([3, 5])}, r"'rgb' of shape"),
      ({"rgb": np.ones([0, 7]), "audio": np.ones([0, 5])}, "at least one"),
      (
        {"rgb": np.full([3, 7], np.nan), "audio": np.ones([3, 5])},
        "finite numbers",
      ),
    ],
  )
  def test_what_is_no_video_of_the_model_is_refused(
    self, shared, video, message
  ):
    values = model_flags.load(str(shared[0]))
    inputs = model_input.ModelInput(values, str(shared[0]))
    with pytest.raises(ValueError, match=message):
      inputs.stored(video)

  def test_what_is_no_model_is_told(self, tmp_path):
    with pytest.raises(ValueError, match="does not exist: give a train_dir"):
      learnable_pooling.load(tmp_path / "nothing")
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="Export it again"):
      learnable_pooling.load(tmp_path)


@pytest.mark.parametrize("dtype", features_file.DTYPES)
def test_arrays_are_projected_and_stored_as_training_data_were(tmp_path, dtype):
  rng = np.random.default_rng(0)
  raw = rng.normal(size=[9, 8]).astype(np.float32)
  fitted = pca.fit([raw], 5)
  fitted.save(tmp_path / "pca-own.npz")
  features_file.save(
    str(tmp_path),
    features_file.Description(
      (
        features_file.StoredFeature(
          "own", 5, dtype, -3.0, 1.0, None, "pca-own.npz", fitted.hash
        ),
      )
    ),
  )
  values = runs.model_values(
    feature_names="own",
    feature_sizes="5",
    feature_dtype=dtype,
    feature_ranges="-3:1",
    max_frames=4,
  )
  inputs = model_input.ModelInput(values, str(tmp_path))
  projected = fitted.apply(raw)
  stored = inputs.stored(raw)
  # After the PCA, or before.
  np.testing.assert_array_equal(inputs.stored(projected)["own"], stored["own"])
  wanted = projected.astype(inputs.array_type)
  if dtype == "uint8":
    wanted = writer.quantize(projected, -3.0, 1.0)
  np.testing.assert_array_equal(stored["own"], wanted)
  video_id, again = inputs.of_record(inputs.record(b"v", stored))
  assert video_id == "v" and again["own"].dtype == stored["own"].dtype
  np.testing.assert_array_equal(again["own"], stored["own"])
  assert len(inputs.cut(stored)["own"]) == 4


@pytest.mark.slow
class TestPredict:
  def run(self, *args):
    return runs.run_program("predict.py", *args)

  def test_files_of_all_kinds_and_broken_ones(
    self, shared, videos, expected, tmp_path
  ):
    first, second = list(videos)[:2]
    (tmp_path / "clips").mkdir()
    np.savez(tmp_path / "clips" / "a.npz", other=np.ones(3), **videos[first])
    (tmp_path / "clips" / "b.npz").write_bytes(b"PK\3\4 no archive")
    np.savez(tmp_path / "clips" / "c.npz", rgb=np.ones([3, 7]))
    np.save(tmp_path / "clips" / "c.npy", np.ones([3, 7]))
    (tmp_path / "clips" / "d.mp4").write_bytes(b"no media")
    rng = np.random.default_rng(0)
    good = {
      name: writer.quantize(rows.copy())
      for name, rows in videos[second].items()
    }
    records.write(
      tmp_path / "clips" / "e.tfrecord",
      [
        records.frame_record(
          b"bad", [1], records.random_frames(rng, 3, {"rgb": 7, "audio": 4})
        ),
        records.frame_record(second.encode(), [1], good),
        b"no record",
      ],
    )
    status, stdout, stderr = self.run(
      f"--model={shared[0]}",
      "--top_k=3",
      "--json",
      tmp_path / "clips",
      tmp_path / "nothing.npz",
    )
    assert status == program.INCOMPLETE, stderr
    found = [json.loads(line) for line in stdout.splitlines()]
    assert [(row["file"].rpartition("/")[2], row["id"]) for row in found] == [
      ("a.npz", None),
      ("e.tfrecord", second),
    ]
    for row, video_id in zip(found, (first, second)):
      classes, scores = expected[video_id]
      pairs = row["predictions"]
      assert [pair["class"] for pair in pairs] == classes.tolist()
      assert [pair["name"] for pair in pairs] == [NAMES[c] for c in classes]
      assert [p["score"] for p in pairs] == pytest.approx(scores, abs=2e-6)
    for name, reason in (
      ("b.npz", "it holds no array"),
      ("c.npz", "it has no array 'audio'"),
      ("c.npy", "it has one array, and the model the features rgb, audio"),
      ("d.mp4", "the model does not know what makes its features"),
      ("e.tfrecord", "record 0: it has no frame of 'audio', or one of another"),
      ("e.tfrecord", "record 2: it is no SequenceExample"),
      ("nothing.npz", "there is no such file"),
    ):
      assert f"{name}: {reason}" in stderr
    assert "7 of these gave no prediction" in stderr

  def test_over_time_as_text_table_and_picture(self, shared, tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    video = {n: rng.normal(size=[12, d]) for n, d in runs.SIZES.items()}
    np.savez(tmp_path / "clip.npz", **video)
    args = (f"--model={shared[0]}", "--window=5", tmp_path / "clip.npz")
    pictures = tmp_path / "pictures"
    status, stdout, stderr = self.run(*args, f"--picture_dir={pictures}")
    assert status == 0, stderr
    lines = stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'clip.npz'} (12 frames)"
    assert "█" in lines[1] and "name" in lines[1]
    assert [line.split(" s ")[0].split() for line in lines[6:]] == [
      ["0", "-", "5"],
      ["5", "-", "10"],
      ["10", "-", "12"],
    ]
    assert (pictures / "clip.png").read_bytes().startswith(b"\x89PNG")
    status, stdout, _ = self.run(*args, "--csv", "--top_k=2")
    rows = list(csv.DictReader(stdout.splitlines()))
    assert [row["start"] for row in rows] == [""] * 2 + ["0.0"] * 2 + [
      "5.0"
    ] * 2 + ["10.0"] * 2
    # A window is predicted for as a video of its own.
    with learnable_pooling.load(shared[0]) as model:
      last = model.predict({name: rows[10:] for name, rows in video.items()}, 2)
    assert [row["name"] for row in rows[-2:]] == last.names

  def test_flags_that_do_not_go_together_are_refused(self):
    for flags, message in (
      ({"json": True, "csv": True}, "not both"),
      ({"picture_dir": "pictures"}, "needs --window"),
    ):
      with pytest.raises(ValueError, match=message):
        predict.Config(model="m", **flags)


@pytest.mark.slow
def test_a_sound_gives_what_inference_gives_for_its_record(tmp_path):
  pytest.importorskip("av")
  from extraction import extractor

  data = tmp_path / "data"
  declaration = extractor.checked(
    {"fps": 2, "max_frames": 9, "encoders": {"sound": {"kind": "logmel"}}}
  )
  made = extractor.Extractor(declaration)
  rng = np.random.default_rng(0)
  raw = {}
  for name in ("one", "two"):
    path = tmp_path / f"{name}.wav"
    noise = rng.normal(scale=3000, size=16000 * 3).astype("<i2")
    with wave.open(str(path), "wb") as stream:
      stream.setparams((1, 2, 16000, 0, "NONE", ""))
      stream.writeframes(noise.tobytes())
    raw[str(path)] = made.extract(path)["sound"]
  os.mkfifo(tmp_path / "hangs.wav")
  size = made.sizes["sound"]
  projection = rng.normal(size=[size, 5]) / size**0.5
  # A fit to so many features takes seconds.
  fitted = pca.Pca(
    np.zeros(size, "f4"), np.float32(projection), np.ones(5, "f4")
  )
  data.mkdir()
  fitted.save(data / "pca-sound.npz")
  low, high = -3.0, 2.5
  stored = features_file.StoredFeature(
    "sound", 5, "uint8", low, high, declaration, "pca-sound.npz", fitted.hash
  )
  features_file.save(str(data), features_file.Description((stored,)))
  rows = [
    writer.frame_record(
      path.encode(),
      {"sound": writer.quantize(fitted.apply(frames), low, high)},
      [number],
    )
    for number, (path, frames) in enumerate(raw.items())
  ]
  records.write(data / "train.tfrecord", rows)
  model = tmp_path / "model"
  runs.run_train(
    model,
    data / "train.tfrecord",
    model="FrameLevelLogisticModel",
    feature_names="sound",
    feature_sizes="5",
    feature_ranges=f"{low}:{high}",
    max_steps=1,
  )
  description.copy(str(data), str(model))
  served = str(tmp_path / "served")
  predictor.export(str(model), model_flags.load(str(model)), served)
  runs.run_infer(model, data / "train.tfrecord", tmp_path / "out.csv", top_k=5)
  expected = submission.read_submission(tmp_path / "out.csv")
  status, stdout, stderr = runs.run_program(
    *("predict.py", f"--model={served}", "--json", "--window=1"),
    *("--timeout_secs=3", *raw, str(tmp_path / "hangs.wav")),
  )
  assert status == program.INCOMPLETE, stderr
  assert "hangs.wav: decoding took more than 3 seconds" in stderr
  for line in map(json.loads, stdout.splitlines()):
    classes, scores = expected[line["file"]]
    assert [pair["class"] for pair in line["predictions"]] == classes.tolist()
    assert [p["score"] for p in line["predictions"]] == pytest.approx(
      scores, abs=2e-6
    )
    assert line["frames"] == len(raw[line["file"]])
    assert line["windows"][1]["start"] == 1.0  # Two frames a second.


def test_pictures_of_files_of_one_name_do_not_replace_each_other():
  taken = set()
  paths = [picture.path_for("d", f"{x}/clip.npz", taken) for x in "ab"]
  assert paths == ["d/clip.png", "d/clip-2.png"]


def test_a_directory_stands_for_its_files(tmp_path):
  for name in ("b/z.MP4", "a.npz", ".b.npz", "b/y.npz", "features.json"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  found = sources.expand(["other.npz", str(tmp_path)])
  assert found == [
    "other.npz",
    *(f"{tmp_path}/{n}" for n in ("a.npz", "b/y.npz", "b/z.MP4")),
  ]
