"""Tests of inference.py and extract.py with --shard."""

import signal

import pytest

import extract
import inference
import merge
import model_flags
import readers
from extraction import clips, media
from predictions import submission
from tests import programs, runs
from tests.eval_test import pattern, shared

__all__ = ["pattern", "shared"]  # Fixtures.


def _run(config, directory):
  """A shard in this process: its exit status."""
  paths = readers.expand_data_pattern(config.input_data_pattern)
  return inference._write_shard(
    config, str(directory), model_flags.load(str(directory)), paths, None
  )


@pytest.mark.slow
def test_a_killed_shard_is_made_again_and_the_others_stay(
  shared, pattern, tmp_path
):
  out, log = tmp_path / "out.csv", tmp_path / "log.txt"
  flags = {"input_data_pattern": pattern, "output_file": str(out)}
  # Two files: the last of three shards is empty.
  configs = [
    inference.Config(**flags, shard=f"{i}/3", batch_size=5) for i in range(3)
  ]
  assert [_run(configs[i], shared[0]) for i in (0, 2)] == [None, None]
  others = [tmp_path / f"out-0000{i}-of-00003.csv" for i in (0, 2)]
  before = [path.stat() for path in others]
  killed = programs.start_program(
    "inference.py",
    *runs.flag_list({**flags, "train_dir": shared[0], "shard": "1/3"}),
    log=log,
  )
  programs.wait_for_log(killed, log, lambda text: "Shard 1/3: 1 of 2" in text)
  killed.send_signal(signal.SIGKILL)
  programs.finish(killed)
  assert not (tmp_path / "out-00001-of-00003.csv").exists()
  with pytest.raises(ValueError, match="run them with --shard=1/3"):
    merge.join(merge.Config(output_file=str(out)))

  assert [_run(config, shared[0]) for config in configs] == [None] * 3
  assert [path.stat() for path in others] == before
  assert merge.join(merge.Config(**flags)) is None
  whole = tmp_path / "whole.csv"
  runs.run_infer(shared[0], pattern, whole)
  found, expected = map(submission.read_submission, (out, whole))
  assert sorted(found) == sorted(expected)
  for video_id, (classes, scores) in expected.items():
    assert dict(zip(*found[video_id])) == pytest.approx(
      dict(zip(classes, scores)), rel=1e-4
    )
  # What another command makes does not take the place of this one's.
  other = inference.Config(**flags, shard="0/3", top_k=1)
  with pytest.raises(ValueError, match="00000-.* another --top_k: give anoth"):
    _run(other, shared[0])


def test_extraction_deals_clips_by_size_into_one_folder(tmp_path, monkeypatch):
  for name, size in {"a": 5, "b": 9, "c": 3}.items():
    (tmp_path / f"{name}.mp4").write_bytes(b"x" * size)
  found = []

  def extract_all(own, job):
    found.append(([clip.id for clip in own], job.skipped))
    return clips.Report(0, 0, [("a", media.NO_SOUND)])

  monkeypatch.setattr(clips, "extract_all", extract_all)
  for part in ("0/2", "1/2", ""):
    extract.run(
      extract.Config(
        input=str(tmp_path), output_dir=str(tmp_path / "out"), shard=part,
        encoder="audio=logmel",
      )
    )  # fmt: skip
  assert found == [
    (["b"], "skipped-00000-of-00002.csv"),
    (["a", "c"], "skipped-00001-of-00002.csv"),
    (["a", "b", "c"], "skipped.csv"),
  ]
