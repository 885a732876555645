"""features.json: how the features of a data set were made and are stored.

It stands beside the shards, with `vocabulary.csv` and the `pca-NAME.npz` that
it names; train.py copies all of them into its train_dir, so that whoever
predicts makes features in the same way.

    {"version": 1, "features": [{"name": "rgb", "size": 1280, "dtype": "uint8",
      "range": [-1.5, 3.25], "extractor": {...} or null,
      "pca": "pca-rgb.npz" or null, "pca_hash": "..."}]}
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import files
from console import messages

FILE_NAME = "features.json"
# Regular expression of the names of the files that it may name: plain ones.
PCA_FILES = r"pca-[\w.-]+\.npz"
# How a frame is stored: one string of bytes, little endian, or a float list.
DTYPES = ("uint8", "float16", "float32", "float_list")
# What bytes stand for in YouTube-8M, and where nothing is said.
DEFAULT_RANGE = (-2.0, 2.0)

_VERSION = 1
_FINGERPRINT_DIGITS = 16
# Of a feature that JSON describes: {key: its type}.
_KEYS = {
  "name": str,
  "size": int,
  "dtype": str,
  "range": list | None,
  "extractor": dict | None,
  "pca": str | None,
  "pca_hash": str | None,
}


@dataclasses.dataclass(frozen=True)
class StoredFeature:
  """One feature of a data set.

  Attributes:
    name: str, its key in the records.
    size: int, numbers of a frame.
    dtype: one of `DTYPES`.
    low: float, what the byte 0 stands for, less half a step.
    high: float, what the byte 255 stands for, less half a step.
    extractor: the JSON declaration of what made it from media; None if that is
      not known.
    pca: name of the file of the PCA that followed; None for none.
    pca_hash: str, of that file; "" for none.

  Raises:
    ValueError: a value that no data set has.
  """

  name: str
  size: int
  dtype: str = "uint8"
  low: float = DEFAULT_RANGE[0]
  high: float = DEFAULT_RANGE[1]
  extractor: Mapping[str, Any] | None = None
  pca: str | None = None
  pca_hash: str = ""

  def __post_init__(self):
    if not self.name or "," in self.name or self.name != self.name.strip():
      raise ValueError(
        f"Need a feature's name without commas, got {self.name!r}."
      )
    if self.size < 1:
      raise ValueError(f"Need size >= 1 of {self.name!r}, got {self.size}.")
    if self.dtype not in DTYPES:
      raise ValueError(
        f"Need dtype of {self.name!r} to be one of {', '.join(DTYPES)}, got "
        f"{self.dtype!r}."
      )
    check_range(self.low, self.high, f"range of {self.name!r}")
    if self.pca is not None and not re.fullmatch(PCA_FILES, self.pca):
      raise ValueError(
        f"Need pca of {self.name!r} to be named pca-NAME.npz, got {self.pca!r}."
      )

  @functools.cached_property
  def fingerprint(self) -> str:
    """Differs where features can't be compared; "" if nothing is known."""
    if not self.extractor and not self.pca_hash:
      return ""
    made = {"extractor": self.extractor, "pca_hash": self.pca_hash}
    text = json.dumps(made, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT_DIGITS]


@dataclasses.dataclass(frozen=True)
class Description:
  """What `features.json` says.

  Attributes:
    features: tuple of `StoredFeature`, in the order in which models see them.

  Raises:
    ValueError: no feature, a name twice, or different dtypes.
  """

  features: tuple[StoredFeature, ...]

  def __post_init__(self):
    names = [feature.name for feature in self.features]
    if not names or len(set(names)) != len(names):
      raise ValueError(f"Need features of different names, got {names}.")
    if len({feature.dtype for feature in self.features}) > 1:
      dtypes = {feature.name: feature.dtype for feature in self.features}
      raise ValueError(f"Need one dtype for all features, got {dtypes}.")

  @property
  def dtype(self) -> str:
    """How all features are stored."""
    return self.features[0].dtype


def check_range(low: float, high: float, name: str) -> None:
  """Raises ValueError unless low < high, both finite."""
  if not (math.isfinite(low) and math.isfinite(high) and low < high):
    raise ValueError(f"Need a {name} from low to high, got {low}:{high}.")


def load(directory: str) -> Description | None:
  """Reads a directory's `features.json`; None if it has none.

  Raises:
    ValueError: it is not of this format; the message names it.
  """
  path = os.path.join(directory, FILE_NAME)
  try:
    found = json.loads(files.read_text(path))
    if not isinstance(found, dict) or not isinstance(
      found.get("features"), list
    ):
      raise ValueError("no list of features")
    if found.get("version") != _VERSION:
      raise ValueError(
        f"version {messages.short(found.get('version'))}, where {_VERSION} is "
        "known"
      )
    return Description(tuple(map(_from_json, found["features"])))
  except FileNotFoundError:
    return None
  except (RecursionError, ValueError) as error:  # Of Unicode, too.
    raise ValueError(f"{path} does not describe features: {error}") from None


def save(directory: str, description: Description) -> None:
  """Writes a directory's `features.json`."""
  found = {
    "version": _VERSION,
    "features": [_to_json(feature) for feature in description.features],
  }
  text = json.dumps(found, indent=2) + "\n"
  files.write_text(os.path.join(directory, FILE_NAME), text)


def _to_json(feature):
  """What `_from_json` reads; floats that are stored as such have no range."""
  values = dataclasses.asdict(feature)
  low, high = values.pop("low"), values.pop("high")
  return {**values, "range": [low, high] if feature.dtype == "uint8" else None}


def _from_json(values):
  """A `StoredFeature`; raises ValueError for what is none."""
  if not isinstance(values, dict):
    raise ValueError(f"a feature is {messages.short(values)}")
  known: dict[str, Any] = {key: values.get(key) for key in _KEYS}
  known["dtype"] = values.get("dtype", "uint8")
  for key, wanted in _KEYS.items():
    value = known[key]
    if not isinstance(value, wanted) or isinstance(value, bool):
      raise ValueError(f"{key!r} of a feature is {messages.short(value)}")
  low, high = _range(known.pop("range"))
  known["pca_hash"] = known["pca_hash"] or ""
  return StoredFeature(**known, low=low, high=high)


def _range(values):
  """(low, high) of a list of two numbers, or of None."""
  if values is None:
    return DEFAULT_RANGE
  if len(values) != 2 or not all(
    isinstance(value, int | float) and not isinstance(value, bool)
    for value in values
  ):
    raise ValueError(f"'range' of a feature is {messages.short(values)}")
  return float(values[0]), float(values[1])
