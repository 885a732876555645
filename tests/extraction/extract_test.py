"""Tests of extract.py and of finding files. Axes: T frames, D features."""

import csv
import os
import re
import shutil
import types
from concurrent import futures
from typing import ClassVar

import numpy as np
import pytest

import extract
from console import program
from extraction import clips, decoding
from records import features_file
from tests import programs
from tests.extraction import made

WEIGHTS = np.eye(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Good clips, and files that are broken in different ways."""
  root = tmp_path_factory.mktemp("clips")
  (root / "more").mkdir()
  shutil.copy(made.shipped("bigbuckbunny.mp4"), root / "more" / "bunny.mp4")
  grey, tone = made.grey(50), made.tone(2.0)
  made.write(root / "a.mkv", [grey] * 2, [0.0, 1.9], sound=tone)
  made.write(root / "silent.mkv", [grey], [0.0])
  made.write(root / "blind.mkv", sound=tone)
  (root / "text.mp4").write_text("no video")
  (root / "empty.avi").touch()
  for name in ("notes.txt", "more/._bunny.mp4"):
    (root / name).write_text("not looked at")
  # A decoder that waits for ever: nobody writes into this pipe.
  os.mkfifo(root / "hangs.mp4")
  return root


def _skipped(directory):
  with open(directory / "skipped.csv") as stream:
    return {
      os.path.basename(row["file"]): row["reason"]
      for row in csv.DictReader(stream)
    }


@pytest.mark.slow
def test_a_folder_becomes_features_and_the_rest_is_listed(folder, tmp_path):
  model = made.onnx_model(tmp_path / "colour.onnx", WEIGHTS)
  output = tmp_path / "features"
  command = [
    "extract.py", f"--input={folder}", f"--output_dir={output}",
    f"--encoder=rgb={model}", "--encoder=audio=logmel", "--timeout_secs=3",
    "--jobs=2",
  ]  # fmt: skip
  status, _, said = programs.run_program(*command)
  assert status == 3, said
  assert "2 clips in" in said and "2 made, 0 there before, 5 skipped" in said
  found = sorted(str(p.relative_to(output)) for p in output.rglob("*.*"))
  assert found == ["a.npz", "features.json", "more/bunny.npz", "skipped.csv"]
  with np.load(output / "a.npz") as arrays:
    np.testing.assert_allclose(arrays["rgb"], [[50.0] * 3] * 2, rtol=1e-4)
    assert arrays["audio"].shape == (2, 6144)
  with np.load(output / "more" / "bunny.npz") as arrays:
    assert {n: (a.shape, a.dtype.name) for n, a in arrays.items()} == {
      "rgb": ((6, 3), "float32"),
      "audio": ((6, 6144), "float32"),
    }
  reasons = _skipped(output)
  for name, reason in {
    "silent.mkv": "it has no sound",
    "blind.mkv": "it has no picture",
    "text.mp4": "Invalid data",
    "empty.avi": "Invalid data",
    "hangs.mp4": "decoding took more than 3 seconds",
  }.items():
    assert reason in reasons.pop(name)
  assert not reasons
  stored = features_file.load(str(output))
  assert [(f.name, f.size, f.dtype) for f in stored.features] == [
    ("rgb", 3, "float32"),
    ("audio", 6144, "float32"),
  ]
  assert len({f.fingerprint for f in stored.features} - {""}) == 2
  # Again: what is there is kept, also if it is not ours.
  (output / "a.npz").write_text("mine")
  (folder / "hangs.mp4").unlink()
  status, _, said = programs.run_program(*command)
  assert status == 3 and "0 made, 2 there before, 4 skipped" in said
  assert (output / "a.npz").read_text() == "mine"
  declarations, search = extract.parse_encoders(f"rgb={model}")
  other = {"fps": 1.0, "max_frames": 300, "encoders": declarations}
  with pytest.raises(ValueError, match="features audio, which .* same flags"):
    clips.extract_all([], clips.Job(other, search, str(output)))


class _Pool:
  """Processes that are never done in time."""

  timeouts: ClassVar[list[float]] = []

  def __init__(self, unused_jobs, context):
    del context

  def schedule(self, unused_function, args, timeout):
    del args
    self.timeouts.append(timeout)
    found = futures.Future()
    found.set_exception(futures.TimeoutError())
    return found

  def stop(self):
    """Nothing runs."""

  join = stop


def test_a_file_has_the_time_that_the_flag_says(tmp_path, monkeypatch):
  pebble = types.SimpleNamespace(ProcessPool=_Pool)
  monkeypatch.setattr(decoding, "require", lambda: pebble)
  (tmp_path / "a.mp4").touch()
  config = extract.Config(
    input=str(tmp_path), output_dir=str(tmp_path / "features"),
    encoder="audio=logmel", timeout_secs=5.0,
  )  # fmt: skip
  assert extract.run(config) == program.INCOMPLETE
  assert _Pool.timeouts == [5.0]
  (reason,) = _skipped(tmp_path / "features").values()
  assert reason == "decoding took more than 5 seconds"


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("file\na.mp4\nsub/b.mp4\n", {"a": "a.mp4", "sub/b": "sub/b.mp4"}),
    ("ID,Path\n x , a.mp4\ny,/far/a.mp4\n", {"x": "a.mp4", "y": "/far/a.mp4"}),
    ("file\n../a.mp4\n/far/b.mp4\n", {"a": "../a.mp4", "b": "/far/b.mp4"}),
    ("file\na.mp4\na.wav\n", {"a.mp4": "a.mp4", "a.wav": "a.wav"}),
    ("name\na.mp4\n", "needs a header with a column file, got ['name']"),
    ("file\n", "names no file"),
    ("id,file\n../x,a.mp4\n", "line 2: need a file and, for an id"),
    ("id,file\nx,\n", "line 2: need a file"),
    ("id,file\nx,a.mp4\nx,b.mp4\n", "names 'x.mp4' more than once"),
    ("file\na.mp4\na.mp4\n", "names 'a.mp4' more than once"),
  ],
)
def test_a_csv_names_clips(tmp_path, text, expected):
  path = tmp_path / "list.csv"
  path.write_text(text)
  if isinstance(expected, str):
    with pytest.raises(ValueError, match=re.escape(expected)):
      clips.find(str(path))
    return
  found = {clip.id: clip.path for clip in clips.find(str(path))}
  assert found == {k: os.path.join(tmp_path, v) for k, v in expected.items()}


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("logmel", "--encoder=logmel: need NAME=ENCODER"),
    ("a=logmel,a=logmel", "--encoder=a=logmel: .* each name once"),
    ("rgb=x.onnx", "--encoder=rgb=x.onnx: There is no encoder x.onnx"),
    (" , ", "--encoder names no encoder"),
  ],
)
def test_encoders_that_are_none_are_named(text, told):
  with pytest.raises(ValueError, match=told):
    extract.parse_encoders(text)
