"""Tests of sharding/shard.py: who takes what."""

import random

import pytest

from sharding import shard


@pytest.mark.parametrize(
  ("sizes", "count"),
  [
    ([5, 5, 5, 5, 5, 5], 3),
    ([9, 1, 4, 4, 7, 2, 0, 0], 3),
    ([3, 1], 5),
    ([0] * 8, 4),
    ([], 2),
  ],
)
def test_each_file_is_in_one_shard_and_shards_are_even(sizes, count):
  files = {f"f{i}": size for i, size in enumerate(sizes)}
  others = list(files.items())
  random.Random(0).shuffle(others)
  shards = [shard.Shard(i, count) for i in range(count)]
  dealt = [each.deal(files) for each in shards]
  assert sorted(name for own in dealt for name in own) == sorted(files)
  # However the files are listed.
  assert dealt == [each.deal(dict(others)) for each in shards]
  loads = [sum(files[name] for name in own) for own in dealt]
  assert max(loads) - min(loads) <= max(sizes, default=0)
  if not sum(sizes):
    assert {len(own) for own in dealt} == {len(sizes) // count}


@pytest.mark.parametrize("text", ["16/16", "/4", "1", "-1/4", "a/b", "1/2/3"])
def test_what_is_no_shard_is_told(text):
  with pytest.raises(ValueError, match=r"--shard=I/N with I from 0 .* got"):
    shard.Config(shard=text)


def test_shards_are_found_by_name_and_the_missing_ones_are_named(tmp_path):
  path = str(tmp_path / "a.b.csv")
  for i in (0, 2):
    open(shard.Shard(i, 9).path(path), "w").close()
  (tmp_path / "a.b-00001-of-00009.csv.json").touch()
  found = shard.find(path)
  assert {each.index for each in found} == {0, 2}
  told = r"7 of 9 shards .*: run them with --shard=1/9, --shard=3/9, .* 2 more"
  with pytest.raises(ValueError, match=told):
    shard.check_complete(found, path)
  (tmp_path / "a.b-00000-of-00002.csv").touch()
  with pytest.raises(ValueError, match="shards of 2 and of 9"):
    shard.check_complete(shard.find(path), path)
  with pytest.raises(ValueError, match="no shards .*b-00000-of-00001.csv"):
    shard.check_complete(shard.find(str(tmp_path / "b.csv")), "b.csv")


def test_files_that_would_be_dealt_otherwise_are_others():
  sizes = {"/a/x": 1, "/a/y": 2}
  assert shard.fingerprint(sizes) == shard.fingerprint({"/b/y": 2, "/b/x": 1})
  for other in ({"/a/x": 2, "/a/y": 2}, {"/a/x": 1}, {"/b/x": 1, "/a/y": 2}):
    assert shard.fingerprint(sizes) != shard.fingerprint(other)
