"""Features of a file, as a declaration says: what `features.json` stores.

    {"fps": 1.0, "max_frames": 300, "encoders": {
      "rgb": {"kind": "efficientnet-lite0"}, "audio": {"kind": "logmel"}}}

Axes: T rows, one each 1 / fps seconds; D features.
"""

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from console import messages
from extraction import encoders, inputs, media, preprocessing

_KEYS = ("fps", "max_frames", "encoders")


class Extractor:
  """Makes the features of files.

  Attributes:
    declaration: dict, see the module.
    sizes: {feature: D}.
    takes: {feature: `preprocessing.Preprocessing`}.
  """

  def __init__(
    self, declaration: Mapping[str, Any], search: Iterable[str] = ()
  ):
    """Loads the encoders.

    Args:
      declaration: see the module.
      search: directories to look for encoders' files in.

    Raises:
      ValueError: the declaration is malformed, or see `encoders.build`.
    """
    self.declaration = checked(declaration)
    search = list(search)
    self._encoders = {
      name: encoders.build(each, search)
      for name, each in self.declaration["encoders"].items()
    }
    self.sizes = {name: each.size for name, each in self._encoders.items()}
    self.takes: dict[str, preprocessing.Preprocessing] = {
      name: each.takes for name, each in self._encoders.items()
    }

  def extract(self, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The features of a file.

    Returns:
      {feature: float32 [T, D]}, T being the same for all, and at least 1.

    Raises:
      as `inputs.decode`; `media.MediaError` for features that are no numbers.
    """
    return self.encode(
      inputs.decode(
        os.fspath(path),
        self.declaration["fps"],
        self.declaration["max_frames"],
        self.takes,
      )
    )

  def encode(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The features of what `inputs.decode` returned; see `extract`."""
    found = {name: each(arrays[name]) for name, each in self._encoders.items()}
    for name, rows in found.items():
      if not np.isfinite(rows).all():
        raise media.MediaError(f"{name} has features that are not finite")
    return found


def checked(declaration: Mapping[str, Any]) -> dict[str, Any]:
  """The declaration, with its keys in order.

  Raises:
    ValueError: it is none.
  """
  try:
    fps, max_frames = declaration["fps"], declaration["max_frames"]
    is_right = (
      set(declaration) == set(_KEYS)
      and 0 < fps <= 1000
      and math.isfinite(fps)
      and 1 <= max_frames == int(max_frames)
      and len(declaration["encoders"]) > 0
      and all("kind" in each for each in declaration["encoders"].values())
    )
  except (AttributeError, KeyError, TypeError):
    is_right = False
  if not is_right:
    raise ValueError(
      "Need an extractor's declaration, with fps, max_frames and encoders, got "
      f"{messages.short(declaration)}."
    )
  return {
    "fps": float(fps),
    "max_frames": int(max_frames),
    "encoders": {k: dict(v) for k, v in declaration["encoders"].items()},
  }


def split(declaration: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """{feature: the declaration of it alone}, as features.json has them."""
  return {
    name: checked({**declaration, "encoders": {name: each}})
    for name, each in declaration["encoders"].items()
  }


def merge(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """The declaration that `split` was given.

  Raises:
    ValueError: parts that no one declaration has.
  """
  parts = [checked(part) for part in parts]
  timings = {(part["fps"], part["max_frames"]) for part in parts}
  if len(timings) != 1:
    raise ValueError(
      "Features that are extracted together need the same fps and max_frames, "
      f"got {sorted(timings)}."
    )
  together: dict[str, Any] = {}
  for part in parts:
    together.update(part["encoders"])
  return checked({**parts[0], "encoders": together})
