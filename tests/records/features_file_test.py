"""Tests for records/features_file.py."""

import dataclasses
import json

import pytest

from records import features_file
from records.features_file import Description, StoredFeature

RGB = StoredFeature(
  "rgb",
  1280,
  low=-1.5,
  high=3.25,
  extractor={"fps": 1.0, "encoders": {"rgb": {"kind": "x"}}},
  pca="pca-rgb.npz",
  pca_hash="ab12",
)
AUDIO = StoredFeature("audio", 128)


@pytest.mark.parametrize(
  "description",
  [
    Description((RGB, AUDIO)),
    Description((StoredFeature("a b/c", 3, dtype="float16"),)),
  ],
)
def test_reads_what_it_wrote(tmp_path, description):
  features_file.save(str(tmp_path), description)
  assert features_file.load(str(tmp_path)) == description


def test_a_directory_without_one_has_none(tmp_path):
  assert features_file.load(str(tmp_path)) is None


def test_fingerprints_are_of_extractor_and_pca_alone():
  prints = [
    dataclasses.replace(RGB, **change).fingerprint
    for change in (
      {},
      {"name": "other", "size": 5, "low": -9.0, "pca": "pca-other.npz"},
      {"extractor": {"encoders": {"rgb": {"kind": "x"}}, "fps": 1.0}},
      {"extractor": {**RGB.extractor, "fps": 2.0}},
      {"pca_hash": "cd34"},
    )
  ]
  assert prints[0] == prints[1] == prints[2]
  assert len(set(prints)) == 3
  assert all(len(text) == 16 for text in prints)
  assert AUDIO.fingerprint == ""


def _with(**changes):
  feature = {"name": "rgb", "size": 3, "range": [-2, 2], **changes}
  return {"version": 1, "features": [feature]}


@pytest.mark.parametrize(
  ["found", "message"],
  [
    ([], "no list of features"),
    ({**_with(), "version": 2}, "version 2, where 1 is known"),
    ({"version": 1, "features": []}, "different names"),
    ({"version": 1, "features": _with()["features"] * 2}, "different names"),
    (_with(size=0), "size >= 1"),
    (_with(size=True), "'size' of a feature is True"),
    (_with(name=None), "'name' of a feature is None"),
    (_with(name="rgb,audio"), "without commas"),
    (_with(dtype="int8"), "one of uint8, float16, float32, float_list"),
    (_with(range=[2, -2]), "from low to high"),
    (_with(range=[0, float("nan")]), "from low to high"),
    (_with(range=[0]), "'range' of a feature"),
    (_with(pca="../pca-rgb.npz"), "named pca-NAME.npz"),
    (_with(extractor="x"), "'extractor' of a feature"),
  ],
)
def test_says_what_it_does_not_understand(tmp_path, found, message):
  path = tmp_path / features_file.FILE_NAME
  path.write_text(json.dumps(found))
  with pytest.raises(ValueError, match=message) as raised:
    features_file.load(str(tmp_path))
  assert str(path) in str(raised.value)


def test_features_of_a_set_are_stored_alike():
  with pytest.raises(ValueError, match="one dtype"):
    Description((AUDIO, StoredFeature("x", 2, dtype="float32")))
