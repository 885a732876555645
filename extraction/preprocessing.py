"""What an encoder takes, as the JSON file beside its model file says.

  {"resize": 256, "crop": 224, "mean": [123.675, 116.28, 103.53],
   "std": [58.395, 57.12, 57.375], "layout": "NCHW"}

Axes: N pictures or pieces of sound, H height, W width, C = 3 colours.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from console import messages
from extraction import logmel, media

PICTURE, LOGMEL, WAVEFORM = "picture", "logmel", "waveform"
_MAX_SIZE = 4096


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """The keys of the file; each has a default.

  Attributes:
    input: "picture"; or "logmel", patches [96, 64] of `logmel`; or "waveform",
      `samples` numbers in [-1, 1] at 16 kHz.
    resize: the shorter side becomes so many pixels, the other in proportion;
      or [H, W], whatever the proportions. 0 for `crop`.
    crop: the middle square of so many pixels, or [H, W].
    scale, mean, std: a pixel from 0 to 255 becomes (pixel * scale - mean) /
      std, with a number for all colours or a list for red, green and blue.
    colours: "RGB" or "BGR", the order that the network takes, of mean and std
      too.
    layout: "NHWC" or "NCHW".
    samples: of a waveform.
    input_name, output_name: of the network; "" for its only one.
  """

  input: str = PICTURE
  resize: Any = 0
  crop: Any = 224
  scale: float = 1.0
  mean: Any = 0.0
  std: Any = 1.0
  colours: str = "RGB"
  layout: str = "NHWC"
  samples: int = logmel.SAMPLES
  input_name: str = ""
  output_name: str = ""

  def __post_init__(self):
    self._check(
      "input", self.input in (PICTURE, LOGMEL, WAVEFORM),
      "'picture', 'logmel' or 'waveform'",
    )  # fmt: skip
    self._check("layout", self.layout in ("NHWC", "NCHW"), "'NHWC' or 'NCHW'")
    self._check("colours", self.colours in ("RGB", "BGR"), "'RGB' or 'BGR'")
    self._check("crop", _is_size(self.crop), "pixels, or [height, width]")
    self._check(
      "resize", self.resize == 0 or _is_size(self.resize),
      "pixels, or [height, width]",
    )  # fmt: skip
    self._check("samples", _is_count(self.samples, 1 << 20), "a number > 0")
    for name in ("mean", "std"):
      value = getattr(self, name)
      self._check(name, _is_colours(value), "a number, or three")
    self._check("scale", _is_number(self.scale), "a number")
    self._check(
      "std", np.all(np.asarray(self.std) != 0), "numbers other than 0"
    )
    for name in ("input_name", "output_name"):
      self._check(name, isinstance(getattr(self, name), str), "a string")
    if self.resize:
      # Of a number, the longer side may have room for more.
      limit, needed = _pair(self.resize), self.crop_size
      if not isinstance(self.resize, list):
        needed = (min(needed), 1)
      self._check(
        "crop",
        needed[0] <= limit[0] and needed[1] <= limit[1],
        "at most resize",
      )

  def _check(self, name, is_right, wanted):
    if not is_right:
      found = messages.short(getattr(self, name))
      raise ValueError(f'preprocessing: "{name}" needs {wanted}, got {found}.')

  @property
  def crop_size(self) -> tuple[int, int]:
    """(H, W) of what the network takes."""
    return _pair(self.crop)

  def to_json(self) -> dict[str, Any]:
    """The keys that differ from the defaults."""
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != field.default
    }

  def cut(self, picture: media.Picture) -> np.ndarray:
    """The resized, cropped picture: uint8 [H, W, C]."""
    height, width = self.crop_size
    if isinstance(self.resize, list):
      full_height, full_width = self.resize
    else:
      # Never smaller than the crop, also of one that is no square.
      factor = max(
        (self.resize or 0) / min(picture.height, picture.width),
        height / picture.height,
        width / picture.width,
      )
      full_height = max(height, round(picture.height * factor))
      full_width = max(width, round(picture.width * factor))
    # A picture that is 1 pixel high would become millions of pixels wide.
    limit = 64 * max(height, width)
    if max(full_height, full_width) > limit:
      raise media.MediaError(
        f"its pictures are {picture.width} x {picture.height} pixels"
      )
    top, left = (full_height - height) // 2, (full_width - width) // 2
    full = picture.rgb(full_height, full_width)
    return np.ascontiguousarray(full[top : top + height, left : left + width])

  def normalise(self, batch: np.ndarray) -> np.ndarray:
    """What the network takes of `cut` pictures, or of sound as it is.

    Args:
      batch: uint8 [N, H, W, C], or float32 of sound.

    Returns:
      float32 [N, H, W, C], [N, C, H, W], or the sound.
    """
    if self.input == LOGMEL:
      return batch.reshape(-1, logmel.FRAMES, logmel.BANDS)
    if self.input == WAVEFORM:
      return batch
    if self.colours == "BGR":
      batch = batch[..., ::-1]
    scaled = batch.astype(np.float32) * np.float32(self.scale)
    scaled -= np.asarray(self.mean, np.float32)
    scaled /= np.asarray(self.std, np.float32)
    if self.layout == "NCHW":
      scaled = scaled.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(scaled)


def from_json(values: Mapping[str, Any]) -> Preprocessing:
  """Reads what `Preprocessing.to_json` gives, or a file.

  Raises:
    ValueError: an unknown key, or a value that does not fit.
  """
  if not isinstance(values, Mapping):
    raise ValueError(
      f"preprocessing: need {{...}}, got {messages.short(values)}."
    )
  known = [field.name for field in dataclasses.fields(Preprocessing)]
  if unknown := sorted(set(values) - set(known)):
    raise ValueError(
      f"preprocessing: unknown {', '.join(map(repr, unknown))}; the keys are "
      f"{', '.join(known)}."
    )
  return Preprocessing(**values)


def beside(path: pathlib.Path) -> Preprocessing:
  """Reads the file beside a model file: model.onnx.json of model.onnx.

  Raises:
    ValueError: there is none, or it is malformed; names it.
  """
  file = path.with_name(path.name + ".json")
  try:
    return from_json(json.loads(file.read_text(encoding="utf-8")))
  except FileNotFoundError:
    raise ValueError(
      f"{path} needs a file {file.name} beside it that says what the network "
      'takes, such as {"crop": 224, "mean": 127, "std": 128}; '
      "docs/extraction.md lists the keys."
    ) from None
  except ValueError as error:  # Also of JSON, and of UTF-8.
    raise ValueError(f"{file}: {error}") from None


def _is_number(value):
  return (
    isinstance(value, (int, float))
    and not isinstance(value, bool)
    and math.isfinite(value)
  )


def _is_count(value, high):
  return _is_number(value) and value == int(value) and 0 < value <= high


def _is_size(value):
  if isinstance(value, list):
    return len(value) == 2 and all(_is_count(v, _MAX_SIZE) for v in value)
  return _is_count(value, _MAX_SIZE)


def _is_colours(value):
  if isinstance(value, list):
    return len(value) == 3 and all(map(_is_number, value))
  return _is_number(value)


def _pair(size):
  height, width = size if isinstance(size, list) else (size, size)
  return height, width


# Of EfficientNet-Lite0: as TensorFlow's release evaluates it.
IMAGENET_LITE = Preprocessing(resize=256, crop=224, mean=127.0, std=128.0)
LOGMEL_PATCHES = Preprocessing(input=LOGMEL)
