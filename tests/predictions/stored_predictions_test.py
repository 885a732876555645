"""Tests of predictions/stored_predictions.py: what is written is found."""

import numpy as np
import pytest

from predictions import stored_predictions, submission

IDS = [b"aB3d", "é".encode(), b"x"]
CLASSES = np.int32([[4, 0], [1, 2], [3, 5]])
SCORES = np.float32([[0.9, 0.25], [1.0, 1e-3], [0.5, 0.0]])


def write(path, num_classes=6):
  """Two batches, the first video once more in the second."""
  with stored_predictions.PredictionsWriter(path, num_classes) as writer:
    writer.write(np.array(IDS[:2], object), CLASSES[:2], SCORES[:2])
    rest = np.array([IDS[2], IDS[0]], object)
    writer.write(rest, CLASSES[[2, 1]], SCORES[[2, 1]])
  return writer


def write_csv(path):
  with submission.SubmissionWriter(path) as writer:
    writer.write(IDS, CLASSES, SCORES)


@pytest.mark.parametrize("written", [write, write_csv])
def test_each_video_has_its_pairs_and_others_none(tmp_path, written):
  written(tmp_path / "file")
  found = stored_predictions.StoredPredictions(tmp_path / "file", 6)
  assert found.num_videos == 3
  for video_id, classes, scores in zip(IDS, CLASSES, SCORES):
    found_classes, found_scores = found.of(video_id)
    assert found_classes.tolist() == classes.tolist()
    np.testing.assert_allclose(found_scores, scores, rtol=1e-3)
    assert found_scores.dtype == np.float16
  assert found.of(b"another") is None


def test_counts_videos_and_writes_the_first_row_of_each(tmp_path):
  writer = write(tmp_path / "file")
  assert (writer.num_rows, writer.num_duplicates) == (3, 1)
  with stored_predictions.PredictionsWriter(tmp_path / "none", 6):
    pass
  found = stored_predictions.StoredPredictions(tmp_path / "none", 6)
  assert found.num_videos == 0


def test_a_block_that_raises_leaves_nothing(tmp_path):
  with pytest.raises(KeyError):
    with stored_predictions.PredictionsWriter(tmp_path / "file", 6):
      raise KeyError
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("content", "told"),
  [
    (b"PK\3\4rubbish", "is damaged, or was not written by"),
    (b"rubbish", "Need the header"),
    (b"VideoId,LabelConfidencePairs\na,9 0.5\n", "has class 9, but"),
    (b"VideoId,LabelConfidencePairs\na,1 1.5\n", r"outside of \[0, 1\]"),
  ],
)
def test_what_can_not_be_used_is_told_with_its_path(tmp_path, content, told):
  path = tmp_path / "file"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f"{path}.*{told}"):
    stored_predictions.StoredPredictions(path, 6)


def test_other_classes_are_told(tmp_path):
  write(tmp_path / "file", num_classes=7)
  with pytest.raises(ValueError, match="of 7 classes, but --num_classes=6"):
    stored_predictions.StoredPredictions(tmp_path / "file", 6)
