"""Tests of what encoders take. Axes: N pictures, H, W, C colours."""

import json

import numpy as np
import pytest

from extraction import media, preprocessing


class Drawn:
  """A picture whose pixels hold their place: row, column and 7."""

  def __init__(self, height, width):
    self.height, self.width = height, width

  def rgb(self, height, width):
    rows, columns = np.mgrid[:height, :width]
    self.asked = (height, width)
    return np.stack([rows, columns, np.full_like(rows, 7)], -1).astype(np.uint8)


@pytest.mark.parametrize(
  ("keys", "shape", "asked", "corner"),
  [
    ({"resize": 16, "crop": 8}, (20, 40), (16, 32), (4, 12)),
    ({"crop": 8}, (20, 10), (16, 8), (4, 0)),
    ({"resize": [10, 12], "crop": [6, 12]}, (99, 3), (10, 12), (2, 0)),
    # Wide enough for a crop that is no square.
    ({"resize": 4, "crop": [4, 8]}, (10, 10), (8, 8), (2, 0)),
  ],
)
def test_is_resized_and_cut_from_the_middle(keys, shape, asked, corner):
  picture = Drawn(*shape)
  takes = preprocessing.from_json(keys)
  found = takes.cut(picture)
  assert picture.asked == asked
  assert found.shape == (*takes.crop_size, 3)
  assert tuple(found[0, 0]) == (*corner, 7)


def test_a_line_of_pixels_is_refused():
  with pytest.raises(media.MediaError, match="100000 x 1 pixels"):
    preprocessing.IMAGENET_LITE.cut(Drawn(1, 100000))


def test_pixels_become_numbers():
  batch = np.array([[[[10, 20, 30]], [[40, 50, 60]]]], np.uint8)  # [1, 2, 1, 3]
  takes = preprocessing.from_json(
    {"crop": [2, 1], "scale": 0.5, "mean": [1, 2, 3], "std": [2.0, 4.0, 8.0]}
  )
  plain = [[[[2, 2, 1.5]], [[9.5, 5.75, 3.375]]]]
  np.testing.assert_allclose(takes.normalise(batch), plain)
  changed = preprocessing.from_json(
    {**takes.to_json(), "layout": "NCHW", "colours": "BGR"}
  ).normalise(batch)
  blue_first = [[[[14.0 / 2], [29.0 / 2]], [[2], [5.75]], [[0.25], [17 / 8]]]]
  np.testing.assert_allclose(changed, blue_first)


@pytest.mark.parametrize(
  ("keys", "told"),
  [
    ({"size": 3}, "unknown 'size'; the keys are input, resize"),
    ({"crop": 0}, '"crop" needs pixels'),
    ({"crop": 10**6}, '"crop" needs pixels'),
    ({"resize": 100}, '"crop" needs at most resize'),
    ({"mean": [1, 2]}, '"mean" needs a number, or three'),
    ({"std": [1, 0, 1]}, '"std" needs numbers other than 0'),
    ({"scale": float("nan")}, '"scale" needs a number'),
    ({"layout": "CHW"}, '"layout" needs'),
    ({"colours": "GRAY"}, '"colours" needs'),
    ({"input": "text"}, '"input" needs'),
    ([1], "need {...}"),
  ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, keys, told):
  model = tmp_path / "a.onnx"
  (tmp_path / "a.onnx.json").write_text(json.dumps(keys))
  with pytest.raises(ValueError, match="a.onnx.json: preprocessing") as error:
    preprocessing.beside(model)
  assert told in str(error.value)


def test_no_file_and_no_json_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"needs a file a\.onnx\.json beside"):
    preprocessing.beside(tmp_path / "a.onnx")
  (tmp_path / "a.onnx.json").write_text("{")
  with pytest.raises(ValueError, match=r"a\.onnx\.json: Expecting"):
    preprocessing.beside(tmp_path / "a.onnx")
