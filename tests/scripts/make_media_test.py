"""Tests for `scripts/make_media.py`."""

import csv
import os

import av
import pytest

from console import flag_fields, program
from scripts import make_media


def test_makes_videos_with_sound_and_their_labels(tmp_path, monkeypatch):
  config = make_media.Config(str(tmp_path / "new"), num_videos=2, seconds=1.0)
  monkeypatch.setattr(flag_fields, "from_flags", lambda _: config)
  make_media.main()
  with open(tmp_path / "new" / "labels.csv", newline="") as stream:
    header, *rows = csv.reader(stream)
  assert header == ["id", "labels"]
  assert [name for name, _ in rows] == ["clip000", "clip001"]
  assert all(len(labels.split(";")) == 3 for _, labels in rows)
  for name, _ in rows:
    with av.open(str(tmp_path / "new" / f"{name}.mp4")) as container:
      assert sum(1 for _ in container.decode(video=0)) == 8
      container.seek(0)
      samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples == pytest.approx(16000, abs=2048)
  with pytest.raises(program.UserError, match="not empty"):
    make_media.main()
  assert len(os.listdir(tmp_path / "new")) == 3
