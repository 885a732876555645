"""Tests of data_flags.py, and of the files beside data that it reads."""

import numpy as np
import pytest
from absl import flags

import data_flags
import model_flags
import train
from checkpoints import archive, description, restore
from console import flag_fields
from records import features_file, vocabulary, writer
from records.features_file import Description, StoredFeature
from tests import runs

_MADE_BY = {"encoders": {"clip": {"kind": "onnx", "file": "net.onnx"}}}
FEATURES = (
  StoredFeature("clip", 7, low=-1.5, high=3.0, extractor=_MADE_BY),
  StoredFeature(
    "sound", 5, low=0.0, high=1.0, pca="pca-sound.npz", pca_hash="12"
  ),
)


def _write(directory, features=FEATURES, names=("a", "b", "c", "d", "e")):
  """A data set of 9 videos: its pattern."""
  directory.mkdir()
  rng = np.random.default_rng(0)
  dtype = features[0].dtype
  videos = []
  for number in range(9):
    frames = {
      each.name: rng.normal(size=[3, each.size]).astype(np.float32)
      for each in features
    }
    if dtype == "uint8":
      frames = {name: writer.quantize(x) for name, x in frames.items()}
    videos.append(
      writer.frame_record(b"v%d" % number, frames, [number % 5], dtype=dtype)
    )
  writer.write_shards([str(directory / "train-0.tfrecord")], [videos])
  features_file.save(str(directory), Description(features))
  if any(each.pca for each in features):
    (directory / "pca-sound.npz").write_bytes(b"some PCA")
  if names:
    vocabulary.save(str(directory / "vocabulary.csv"), names, [0] * len(names))
  return str(directory / "train-*.tfrecord")


def _values(pattern, *args):
  """What train.py makes of a command line."""
  known = flags.FlagValues()
  train.define_flags(known)
  known(["train.py", *args])
  return data_flags.filled(
    model_flags.from_flags(known), pattern, flag_values=known
  )


def test_what_is_not_given_is_what_the_data_say(tmp_path):
  pattern = _write(tmp_path / "data")
  values = _values(pattern)
  own = flags.FlagValues()
  model_flags.define(own)
  default = model_flags.from_flags(own)
  assert {k: v for k, v in values.items() if v != default[k]} == {
    "frame_features": True,
    "feature_names": "clip,sound",
    "feature_sizes": "7,5",
    "feature_ranges": "-1.5:3.0,0.0:1.0",
    "feature_fingerprints": ",".join(x.fingerprint for x in FEATURES),
    "num_classes": 5,
  }
  reading = flag_fields.from_values(data_flags.Reading, values)
  assert reading.features[1] == ("sound", 5, 0.0, 1.0)
  one = _values(pattern, "--feature_names=sound", "--num_classes=9")
  assert one["feature_sizes"] == "5" and one["num_classes"] == 9
  # Video-level files in the same place are not described.
  assert _values(pattern, "--frame_features=False") == default
  (tmp_path / "data/features.json").unlink()
  assert _values(pattern) == default


def test_a_vocabulary_beside_plain_data_gives_names_alone(tmp_path, caplog):
  pattern = _write(tmp_path / "data")
  (tmp_path / "data/features.json").unlink()
  paths = [pattern, _write(tmp_path / "bare", names=())]
  source = data_flags.names_beside(paths)
  assert source == str(tmp_path / "data")
  target = tmp_path / "model"
  target.mkdir()
  description.copy_names(source, str(target))
  assert vocabulary.of_model("", str(target)).name(1) == "b"
  # One that is there already, maybe by hand, stays.
  paths.append(_write(tmp_path / "other", names="xyz"))
  description.copy_names(str(tmp_path / "other"), str(target))
  assert vocabulary.of_model("", str(target)).name(1) == "b"
  # Which is right is not known, or it is none: no name, but a word.
  assert not data_flags.names_beside(paths)
  (tmp_path / "data/vocabulary.csv").write_text("index,name\none,a\n")
  assert not data_flags.names_beside(paths[:1])
  assert "differ" in caplog.text and "no vocabulary" in caplog.text


@pytest.mark.parametrize(
  ["args", "words"],
  [
    (["--feature_sizes=7,6"], "--feature_sizes=7,5, but the command line has"),
    (["--feature_dtype=float16"], "--feature_dtype=uint8, but"),
    (["--feature_ranges=-2:2"], "--feature_ranges=-1.5:3.0,0.0:1.0, but"),
    (
      ["--feature_names=clip,rgb"],
      "describes clip, sound, and no 'rgb': give --feature_names=clip,sound",
    ),
  ],
)
def test_a_flag_that_the_data_contradict_is_refused(tmp_path, args, words):
  pattern = _write(tmp_path / "data")
  with pytest.raises(ValueError, match=words):
    _values(pattern, *args)


def test_one_range_for_all_is_that_of_each():
  one, each, other = (
    data_flags.Reading(
      feature_names="a,b", feature_sizes="1,2", feature_ranges=ranges
    )
    for ranges in ("0:1", "0:1,0:1", "0:1,0:2")
  )
  assert data_flags.differing(one, each) == []
  assert data_flags.differing(one, other)


def test_directories_that_differ_are_not_read_as_one(tmp_path):
  first, second = _write(tmp_path / "a"), _write(tmp_path / "b", names=())
  with pytest.raises(ValueError, match="differ in their features or classes"):
    _values(f"{first},{second}")


@pytest.mark.parametrize(
  ["change", "names", "words"],
  [
    (
      {"high": 2.0},
      "abcde",
      "--feature_ranges=-1.5:2.0,0.0:1.0, but",
    ),
    ({"extractor": {"a": 2}}, "abcde", "--feature_fingerprints="),
    ({"size": 8}, "abcde", "--feature_sizes=8,5, but the model was trained"),
    ({"name": "x"}, "abcde", "describes x, sound, and no 'clip'"),
    ({}, "abdce", "class 2 is 'd' in the vocabulary.csv"),
    ({"extractor": None}, "abcdef", None),  # Not known; one class more.
  ],
)
def test_a_model_refuses_data_made_otherwise(tmp_path, change, names, words):
  values = _values(_write(tmp_path / "data"))
  fields = {**FEATURES[0].__dict__, **change}
  fields.pop("fingerprint", None)
  pattern = _write(
    tmp_path / "other", (StoredFeature(**fields), FEATURES[1]), names
  )
  args = values, [pattern], "eval_data_pattern", str(tmp_path / "data")
  if not words:
    data_flags.check(*args)
    return
  with pytest.raises(ValueError, match=words) as raised:
    data_flags.check(*args)
  assert str(raised.value).startswith("--eval_data_pattern: ")
  assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_trained_model_keeps_what_stood_beside_its_data(tmp_path):
  pattern = _write(tmp_path / "data")
  directory = tmp_path / "model"
  train_args = ["train.py", f"--train_dir={directory}", "--num_gpu=0"]
  train_args += ["--model=FrameLevelLogisticModel", "--export_model_steps=0"]
  said = runs.run_ok(
    *train_args, f"--train_data_pattern={pattern}", "--max_steps=2"
  )
  assert "net.onnx made the features" in said
  kept = {*description.files_of(str(directory))}
  assert kept == {"features.json", "pca-sound.npz", "vocabulary.csv"}
  eval_args = ["eval.py", f"--train_dir={directory}", "--run_once"]
  runs.run_ok(*eval_args, f"--eval_data_pattern={pattern}", "--keep_best")
  assert kept == {*description.files_of(str(directory / "best"))}

  # Of another set, or a resume, is refused in a line.
  changed = (StoredFeature("clip", 7), FEATURES[1])
  other = _write(tmp_path / "other", changed)
  for args in (
    [*train_args, f"--train_data_pattern={other}", "--max_steps=3"],
    [*eval_args, f"--eval_data_pattern={other}"],
    [
      "inference.py",
      f"--train_dir={directory}",
      f"--input_data_pattern={other}",
      f"--output_file={tmp_path}/x.csv",
    ],
  ):
    status, _, stderr = runs.run_program(*args)
    assert status == 1
    assert "feature_ranges" in stderr and "Traceback" not in stderr

  archive.write(
    str(tmp_path / "m.tgz"),
    str(directory),
    restore.latest_checkpoint(str(directory)),
  )
  archive.extract(str(tmp_path / "m.tgz"), str(tmp_path / "unpacked"))
  for name in kept:
    unpacked = tmp_path / "unpacked" / name
    assert unpacked.read_bytes() == (tmp_path / "data" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_models_train_on_floats(tmp_path, dtype):
  features = tuple(
    StoredFeature(name, size, dtype) for name, size in runs.SIZES.items()
  )
  pattern = _write(tmp_path / "data", features, names=())
  values = _values(pattern, "--num_classes=5")
  values |= {"model": "NetVLADModelLF", "netvlad_cluster_size": "4"}
  runs.run_train(
    tmp_path / "model",
    pattern,
    **values,
    max_steps=2,
    frame_dropout=0.3,
    mixup_alpha=0.4,
    num_towers=2,
  )
  assert runs.run_eval(tmp_path / "model", pattern)["num_videos"] == 9
