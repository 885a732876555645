"""Tests of scripts/make_records.py: from arrays to a trained model."""

import csv
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from console import program
from recording import (
  clip_features,
  clip_labels,
  clip_media,
  clip_sources,
  clip_statistics,
  joining,
  maker,
)
from recording.config import Config
from records import features_file, vocabulary, writer
from tests import runs

CLASSES = ("cat", "dog", "big bird")
SIZES = {"clip": 8, "sound": 5}


def _arrays(number, length=None):
  """A clip's features; each class has a mean of its own."""
  rng = np.random.default_rng(number)
  length = length or int(rng.integers(3, 7))
  return {
    name: rng.normal(number % 3, 1.0, [length, size]).astype(np.float32)
    for name, size in SIZES.items()
  }


def _write(directory, count=40):
  """A folder of .npz files and labels.csv beside it."""
  (directory / "clips").mkdir()
  rows = ["id,labels,speaker"]
  for number in range(count):
    np.savez(directory / f"clips/c{number:02d}.npz", **_arrays(number))
    rows.append(f"c{number:02d}.mp4,{CLASSES[number % 3]},s{number % 7}")
  (directory / "labels.csv").write_text("\n".join(rows) + "\n")


def _make(directory, **changes):
  """Runs it: its exit status."""
  config = Config(
    **{
      "features": str(directory / "clips"),
      "labels": str(directory / "labels.csv"),
      "output_dir": str(directory / "out"),
      **changes,
    }
  )
  return maker.run(config)


def _records(directory, part):
  """{id: (labels, {feature: its frames' bytes})} of a part."""
  found = {}
  for path in sorted(directory.glob(f"{part}-*.tfrecord")):
    for record in tf.io.tf_record_iterator(str(path)):
      example = tf.train.SequenceExample.FromString(record)
      lists = example.feature_lists.feature_list
      context = example.context.feature
      found[context["id"].bytes_list.value[0].decode()] = (
        [*context["labels"].int64_list.value],
        {
          name: [step.bytes_list.value[0] for step in lists[name].feature]
          for name in lists
        },
      )
  return found


@pytest.mark.slow
def test_from_arrays_to_a_trained_model(tmp_path, capsys):
  _write(tmp_path)
  assert _make(tmp_path, group_column="speaker", num_shards=2) is None
  said, out = capsys.readouterr().out, tmp_path / "out"
  assert "40 clips in" in said and "3 classes, 1.00 a clip" in said

  # What is stored is what was given, within a step of the bytes.
  described = features_file.load(str(out))
  names = vocabulary.load(str(out / "vocabulary.csv")).names
  speakers = {}
  for part in clip_labels.PARTS:
    for clip_id, (labels, frames) in _records(out, part).items():
      number = int(clip_id[1:])
      assert [names[i] for i in labels] == [CLASSES[number % 3]]
      speakers.setdefault(number % 7, set()).add(part)
      for feature in described.features:
        stored = np.stack(
          [np.frombuffer(f, np.uint8) for f in frames[feature.name]]
        )
        given = _arrays(number)[feature.name].clip(feature.low, feature.high)
        np.testing.assert_allclose(
          writer.dequantize(stored, feature.low, feature.high),
          given,
          atol=(feature.high - feature.low) / 255,
        )
  assert len(speakers) == 7
  assert all(len(parts) == 1 for parts in speakers.values())

  # The commands that it prints train a model on it.
  commands = " ".join(said.replace("\\\n", " ").split("python ")[1:3])
  train, evaluate = (
    command.replace("'", "").split()
    for command in commands.replace("runs/out", str(tmp_path / "m")).split(
      "eval.py"
    )
  )
  more = ["--num_epochs=40", "--num_gpu=0", "--export_model_steps=0"]
  runs.run_ok(*train, *more)
  runs.run_ok("eval.py", *evaluate)
  (results,) = (tmp_path / "m/eval").glob("metrics-*.json")
  assert json.loads(results.read_text())["gap"] > 0.8
  assert (tmp_path / "m/features.json").exists()


def test_goes_on_where_it_was_and_replaces_nothing(tmp_path, monkeypatch):
  _write(tmp_path, 24)
  written, original = [], writer.write_shards

  def write_shards(paths, shards, **kwargs):
    if len(written) == 2:
      raise KeyboardInterrupt
    original(paths, shards, **kwargs)
    written.extend(paths)

  monkeypatch.setattr(writer, "write_shards", write_shards)
  with pytest.raises(KeyboardInterrupt):
    _make(tmp_path, num_shards=3)
  out = tmp_path / "out"
  half = {path.name: path.stat() for path in out.glob("*.tfrecord")}
  assert len(half) == 2 and features_file.load(str(out))
  monkeypatch.setattr(writer, "write_shards", original)
  assert _make(tmp_path, num_shards=3) is None
  for name, stat in half.items():
    assert (out / name).stat() == stat
  _make(tmp_path, num_shards=3, output_dir=str(tmp_path / "whole"))
  for path in (tmp_path / "whole").iterdir():
    if path.suffix == ".tfrecord" or path.name == "vocabulary.csv":
      assert path.read_bytes() == (out / path.name).read_bytes()

  with pytest.raises(ValueError, match="made with another num_shards"):
    _make(tmp_path, num_shards=2)
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine/precious").write_text("x")
  with pytest.raises(ValueError, match="did not write"):
    _make(tmp_path, output_dir=str(tmp_path / "mine"))
  with pytest.raises(ValueError, match="lie in each other"):
    _make(tmp_path, output_dir=str(tmp_path / "clips/out"))


def _damaged(directory):
  """Adds clips that can't be used; {id: what is said of it}."""
  bad = _arrays(0)
  bad["clip"][1, 2] = np.nan
  clips = {
    "nan": (bad, "1 numbers that are not finite, the first nan in frame 1"),
    "axes": ({**_arrays(1), "clip": np.zeros([2, 3, 8])}, "shape [2, 3, 8]"),
    "size": (
      {**_arrays(1), "sound": np.zeros([2, 9])},
      "has 9 numbers a frame",
    ),
    "none": ({**_arrays(1), "sound": np.zeros([0, 5])}, "has no frame"),
    "lack": ({"clip": _arrays(1)["clip"]}, "no 'sound' among its arrays"),
    "text": ({**_arrays(1), "clip": np.array([["a"]])}, "where numbers are"),
    "object": (
      {**_arrays(1), "sound": np.array([[{}]], object)},
      "holds Python objects",
    ),
  }
  for name, (arrays, _) in clips.items():
    np.savez(directory / f"clips/{name}.npz", **arrays)
  whole = (directory / "clips/c01.npz").read_bytes()
  (directory / "clips/cut.npz").write_bytes(whole[: len(whole) // 2])
  (directory / "clips/empty.npz").write_bytes(b"")
  (directory / "clips/jpeg.npz").write_bytes(b"\xff\xd8\xff\xe0")
  with open(directory / "labels.csv", "a") as stream:
    stream.writelines(
      f"{name},dog,\n" for name in [*clips, "cut", "empty", "jpeg", "ghost"]
    )
    stream.write("c01,cat,\nc02,,\n")  # Once more, without a label.
  said = {name: text for name, (_, text) in clips.items()}
  return {**said, "cut": "", "empty": "it is empty", "jpeg": "no .npz file"}


def test_clips_that_cannot_be_used_are_listed(tmp_path, capsys):
  _write(tmp_path, 12)
  np.savez(
    tmp_path / "clips/uneven.npz",
    **{**_arrays(1, 5), "sound": _arrays(1, 3)["sound"]},
  )
  np.savez(tmp_path / "clips/unlisted.npz", **_arrays(1))
  expected = _damaged(tmp_path)
  (tmp_path / "clips/._c01.npz").write_bytes(b"of a Mac")
  with open(tmp_path / "labels.csv", "a") as stream:
    stream.write("uneven,cat;dog\n")
  assert _make(tmp_path) == program.INCOMPLETE
  with open(tmp_path / "out/skipped.csv", newline="") as stream:
    skipped = {row["file"]: row["why"] for row in csv.DictReader(stream)}
  assert {*skipped} == {f"{name}.npz" for name in expected}
  for name, text in expected.items():
    assert text in skipped[f"{name}.npz"]
  said = capsys.readouterr().out
  for text in (
    "13 clips in",
    "1 clips have features of different lengths",
    "1 clips that --labels does not list are left out",
    "No clip has the ids ghost of --labels",
    "Skipped: 10",
  ):
    assert text in said
  found = {}
  for part in clip_labels.PARTS:
    found |= _records(tmp_path / "out", part)
  assert len(found) == 13 and len(found["uneven"][1]["clip"]) == 3
  assert len(found["c01"][0]) == 2 and len(found["uneven"][0]) == 2


def test_a_folder_without_a_usable_clip_is_an_error(tmp_path):
  (tmp_path / "clips").mkdir()
  with pytest.raises(ValueError, match="neither .npz or .npy files"):
    _make(tmp_path, labels="")
  (tmp_path / "clips/a.npz").write_bytes(b"x")
  with pytest.raises(program.UserError, match="a.npz: it is no .npz file"):
    _make(tmp_path, labels="")


@pytest.mark.parametrize("kind", ["rows.csv", "rows.parquet", "lists.parquet"])
def test_tables_hold_a_row_a_frame_or_a_clip(tmp_path, kind):
  columns = {"id": [], "frame": [], "note": [], "rgb": [], "snd": []}
  clips = {f"c{i}": _arrays(i, 4) for i in range(9)}
  for name, arrays in clips.items():
    frames = [[*arrays["clip"]], [*arrays["sound"]]]
    rows = [frames] if kind == "lists.parquet" else [*zip(*frames)]
    for number, (clip, sound) in enumerate(rows):
      for column, value in zip(columns, (name, number, "x", clip, sound)):
        columns[column].append(value)
  path = tmp_path / kind
  if kind == "rows.csv":
    header = [f"rgb_{i}" for i in range(8)] + [f"snd_{i}" for i in range(5)]
    lines = [",".join(["id", "frame", "note", *header])]
    lines += [
      ",".join(map(str, [*facts, *clip.tolist(), *sound.tolist()]))
      for *facts, clip, sound in zip(*columns.values())
    ]
    lines.append("bad,0,x," + ",".join(["0"] * 12) + ",")
    path.write_text("\n".join(lines))
  else:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for name in ("rgb", "snd"):
      columns[name] = [np.asarray(value).tolist() for value in columns[name]]
    parquet.write_table(pyarrow.table(columns), path)
  labels = "".join(f"c{i};k{i % 2}\n" for i in range(9))
  (tmp_path / "labels.csv").write_text(labels)  # No header, and ; between.
  status = _make(tmp_path, features=str(path), feature_dtype="float32")
  assert status == (program.INCOMPLETE if kind == "rows.csv" else None)
  described = features_file.load(str(tmp_path / "out"))
  assert [(x.name, x.size) for x in described.features] == [
    ("rgb", 8),
    ("snd", 5),
  ]
  found = {}
  for part in clip_labels.PARTS:
    found |= _records(tmp_path / "out", part)
  assert {*found} == {*clips}
  for name, (_, frames) in found.items():
    for stored, given in (("rgb", "clip"), ("snd", "sound")):
      values = [np.frombuffer(frame, "<f4") for frame in frames[stored]]
      np.testing.assert_array_equal(values, clips[name][given])
  assert not (tmp_path / "out/rows").exists()


def test_folders_of_npy_are_features(tmp_path):
  for name in SIZES:
    (tmp_path / "clips" / name).mkdir(parents=True)
    for i in range(6):
      np.save(tmp_path / f"clips/{name}/c{i}.npy", _arrays(i)[name])
  (tmp_path / "clips/sound/c5.npy").unlink()
  source = clip_sources.ArrayFolder(str(tmp_path / "clips"))
  assert list(source.names) == [*SIZES] and len(source.ids) == 6
  np.testing.assert_array_equal(source.load("c3")["sound"], _arrays(3)["sound"])
  with pytest.raises(clip_sources.ClipError, match="no file of it in sound"):
    source.load("c5")
  for i in range(6):
    (tmp_path / f"clips/clip/c{i}.npy").rename(
      tmp_path / f"clips/clip/d{i}.npy"
    )
  with pytest.raises(ValueError, match="have no clip in common"):
    clip_sources.ArrayFolder(str(tmp_path / "clips"))


def test_folders_may_be_labels(tmp_path, capsys):
  for name in CLASSES:
    (tmp_path / "clips" / name).mkdir(parents=True)
    for i in range(6):
      np.save(tmp_path / f"clips/{name}/{i}.npy", _arrays(i)["clip"])
  assert _make(tmp_path, labels="", label_folders=True) is None
  assert "18 clips in" in capsys.readouterr().out
  names = vocabulary.load(str(tmp_path / "out/vocabulary.csv")).names
  for clip_id, (labels, _) in _records(tmp_path / "out", "train").items():
    assert [names[i] for i in labels] == [clip_id.split("/")[0]]


@pytest.mark.slow
def test_sounds_are_extracted_first(tmp_path):
  pytest.importorskip("av")
  from tests.extraction import made

  (tmp_path / "clips").mkdir()
  lines = ["file,label"]
  for name in "abcd":
    made.write(tmp_path / f"clips/{name}.mka", sound=made.tone(1.5))
    lines.append(f"{name}.mka,{'low' if name < 'c' else 'high'}")
  (tmp_path / "clips/e.mka").write_bytes(b"no sound")
  (tmp_path / "labels.csv").write_text("\n".join(lines))
  status = _make(tmp_path, encoder="audio=logmel", pca="audio:2", fps=4.0)
  assert status == program.INCOMPLETE
  assert "e.mka" in (tmp_path / "out/skipped.csv").read_text()
  (feature,) = features_file.load(str(tmp_path / "out")).features
  assert (feature.name, feature.size) == ("audio", 2)
  assert feature.extractor["fps"] == 4.0
  assert len(_records(tmp_path / "out", "train")) == 2

  # New sounds are extracted as those were.
  changes = {"labels": "", "output_dir": str(tmp_path / "again")}
  assert _make(tmp_path, like=str(tmp_path / "out"), **changes) == 3
  assert features_file.load(str(tmp_path / "again")).features == (feature,)


def test_media_of_one_id_are_told_from_no_media(tmp_path):
  pytest.importorskip("av")
  assert clip_media.paths_of(str(tmp_path)) == {}
  for name in ("a.mka", "a.wav", "a.mka.wav"):
    (tmp_path / name).touch()
  with pytest.raises(ValueError, match=r"'a\.mka' more than once"):
    clip_media.paths_of(str(tmp_path))


@pytest.mark.slow
def test_new_clips_are_made_like_those_of_a_model(tmp_path):
  _write(tmp_path, 30)
  assert _make(tmp_path, pca="clip:3") is None
  first = features_file.load(str(tmp_path / "out"))
  assert [x.size for x in first.features] == [3, 5]
  assert first.features[0].fingerprint
  (tmp_path / "new").mkdir()
  np.savez(tmp_path / "new/x.npz", **{k: 9 * v for k, v in _arrays(4).items()})
  changes = {"features": str(tmp_path / "new"), "labels": ""}
  again = str(tmp_path / "again")
  assert (
    _make(tmp_path, **changes, like=str(tmp_path / "out"), output_dir=again)
    is None
  )
  assert features_file.load(again) == first
  assert len(_records(tmp_path / "again", "test")) == 1


@pytest.mark.parametrize(
  "text",
  [
    "id,labels\na.wav,x;y\nsub/b,y\n",
    '\ufeffFile;Tags\n.\\a.npz;"x;y"\nb;y\n',
    "name,clip,x,y,z\nsome text,a,1,1,0\nmore,b.mp4,0,1,\n",
    "clip,label\na,x\na,y\nb,y\n",
    "a,x;y\nb,y\n",
  ],
)
def test_labels_of_several_layouts(tmp_path, text):
  (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
  found = clip_labels.read(
    str(tmp_path / "labels.csv"), ["a", "sub/b", "c", "more/a"]
  )
  of = {
    clip_id: {found.names[i] for i in classes}
    for clip_id, classes in found.of.items()
  }
  assert of == {"a": {"x", "y"}, "sub/b": {"y"}}


@pytest.mark.parametrize(
  ["text", "words"],
  [
    ("id,labels\nq,x\n", "labels of no clip: its ids are such as"),
    ("id,size,width\na,3,4\n", "neither a column of labels"),
    ("", "is empty"),
  ],
)
def test_says_what_is_wrong_with_labels(tmp_path, text, words):
  (tmp_path / "labels.csv").write_text(text)
  with pytest.raises(ValueError, match=words):
    clip_labels.read(str(tmp_path / "labels.csv"), ["a", "b"])


def test_a_clip_stays_in_its_part_when_others_come():
  ids = [f"clip{i}" for i in range(2000)]
  shares = (0.8, 0.1, 0.1)
  all_of = clip_labels.split(ids, shares, {})
  some_of = clip_labels.split(ids[:700], shares, {})
  assert all(all_of[i] == part for i, part in some_of.items())
  counts = [list(all_of.values()).count(part) for part in clip_labels.PARTS]
  np.testing.assert_allclose(counts, [1600, 200, 200], atol=45)
  # Few clips are in every part that is to have some.
  for count in (3, 4, 10):
    parts = {*clip_labels.split(ids[:count], shares, {}).values()}
    assert parts == {*clip_labels.PARTS}
  assert {*clip_labels.split(ids, (0.0, 0.0, 1.0), {}).values()} == {"test"}


def test_a_range_leaves_out_outliers_and_says_what_is_coarse():
  rng = np.random.default_rng(0)
  numbers = clip_statistics.Numbers()
  for _ in range(30):
    values = rng.normal(0.0, [1.0, 1.0, 1e-4], [20_000, 3])
    values[0, 0] = 1e4
    numbers.add(values.astype(np.float32))
  low, high = numbers.range(0.001)
  assert -4.5 < low < -2.5 and 2.5 < high < 4.5
  assert numbers.range(0.0) == (pytest.approx(numbers.low), 1e4)
  assert numbers.num_coarse(low, high) == 1
  same = clip_statistics.Numbers()
  same.add(np.full([4, 2], 3.0, np.float32))
  assert same.range(0.001) == (1.5, 4.5)


def test_halves_are_stored_if_they_hold_the_numbers():
  halves = features_file.StoredFeature("a", 3, dtype="float16")
  described = features_file.Description((halves,))
  frames = np.float32([[0.1, 6e4, -1.0]])
  found, outside = clip_features.stored({"a": frames}, described)
  assert found["a"].dtype == np.float16 and outside == {"a": 0}
  np.testing.assert_array_equal(found["a"], frames.astype(np.float16))
  with pytest.raises(clip_features.ClipError, match="too large for float16"):
    clip_features.stored({"a": 2 * frames}, described)


def test_shards_are_the_set_that_one_run_makes(tmp_path, capsys):
  _write(tmp_path, 24)
  given = {"range": "-4:4", "num_shards": 2}
  with pytest.raises(ValueError, match="--shard: what all clips .* --range"):
    _make(tmp_path, shard="0/3")
  for i in (0, 2, 1):
    joined = str(tmp_path / "out")
    with pytest.raises(ValueError, match="are missing|are no shards"):
      joining.join(joined)
    assert _make(tmp_path, shard=f"{i}/3", **given) is None
  assert joining.join(joined) is None
  pattern = f"--train_data_pattern='{joined}/train-*.tfrecord'"
  assert pattern in capsys.readouterr().out
  _make(tmp_path, output_dir=str(tmp_path / "whole"), **given)
  for part in clip_labels.PARTS:
    found = _records(tmp_path / "out", part)
    assert found and found == _records(tmp_path / "whole", part)
  for name in ("features.json", "vocabulary.csv"):
    found = (tmp_path / "out" / name).read_text()
    assert found == (tmp_path / "whole" / name).read_text()
  said = (tmp_path / "out/report.txt").read_text()
  assert said.startswith("24 clips in") and "cat" in said
  with pytest.raises(ValueError, match="holds something"):
    joining.join(joined)
