"""Tests of records/data_files.py: data flags, and how much they name."""

import pytest

from records import data_files
from tests import record_data as records
from tests.records.framing_test import HUGE, forged, pack


def test_expands_globs_directories_and_lists_once_each(tmp_path):
  for name in ("a1.tfrecord", "a2.tfrecord", "b.tfrecord", "notes.txt"):
    (tmp_path / name).touch()
  pattern = f"{tmp_path}/a*.tfrecord,{tmp_path} , {tmp_path}/notes.txt"
  found = data_files.expand_data_pattern(pattern)
  assert [path.rsplit("/")[-1] for path in found] == [
    "a1.tfrecord",
    "a2.tfrecord",
    "b.tfrecord",
    "notes.txt",
  ]


def test_a_glob_without_a_file_names_flag_and_glob(tmp_path):
  with pytest.raises(ValueError, match=r"--train_data_pattern.*nope\*"):
    data_files.expand_data_pattern(f"{tmp_path}/nope*", "train_data_pattern")
  with pytest.raises(ValueError, match="--train_data_pattern is empty"):
    data_files.expand_data_pattern(" ", "train_data_pattern")


@pytest.mark.parametrize("length", HUGE)
@pytest.mark.parametrize("count", [0, 5])
def test_estimates_without_lengths_that_do_not_fit(tmp_path, length, count):
  contents = [b"12345678"] * count
  path = records.write(tmp_path / "a", contents)
  with open(path, "ab") as stream:
    stream.write(forged(length) + bytes(36 - 12))
  # The file is as long as so many records, and one and a half more.
  expected = round(count + 1.5) if count else 0
  assert data_files.estimate_num_records([path]) == expected


def test_estimates_the_records_of_gzip(tmp_path):
  path = records.write(tmp_path / "a", [b"12345678"] * 500)
  assert data_files.estimate_num_records([pack(path, tmp_path / "b")]) == 500
