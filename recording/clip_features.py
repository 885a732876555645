"""How make_records.py stores features: sizes, PCA, the range of bytes.

Axes: T frames, D numbers of a frame.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from console import program
from recording import clip_sources, clip_statistics
from recording.clip_sources import Clip, ClipError
from records import features_file, writer

# Bytes of a number.
_WIDTHS = {"uint8": 1, "float16": 2, "float32": 4, "float_list": 4}
MEASURED = "measured"
# A shard of about so many bytes is read at once, and shuffled well.
_SHARD_BYTES = 64_000_000


class Loader:
  """Gives clips whose features have the same frames, and the sizes wanted.

  Attributes:
    sizes: {feature: D}, as the source has them.
    pcas: {feature: `extraction.pca.Pca`} to apply.
    num_cut: clips whose features had different numbers of frames.
    skipped: {clip id: why}; whoever loads adds to it.
  """

  def __init__(self, source: clip_sources.Source, skipped: dict[str, str]):
    """Looks into some clips.

    Raises:
      program.UserError: none of them can be used.
    """
    self._source = source
    self.skipped = skipped
    self.pcas: dict[str, Any] = {}
    self.num_cut = 0
    self.sizes, self._mean_frames = self._probe()

  def _probe(self):
    """({feature: D of most clips}, mean T) of some clips."""
    sizes = {name: collections.Counter() for name in self._source.names}
    lengths, reason = [], ""
    for clip_id in clip_sources.spread(self._source.ids):
      try:
        clip = self._source.load(clip_id)
      except ClipError as error:
        reason = reason or f"{self._source.path(clip_id)}: {error}"
        continue
      lengths.append(min(map(len, clip.values())))
      for name, frames in clip.items():
        sizes[name][frames.shape[1]] += 1
    if not lengths:
      raise program.UserError(
        f"No clip of --features can be used. The first: {reason}."
      )
    found = {
      name: counts.most_common(1)[0][0] for name, counts in sizes.items()
    }
    return found, sum(lengths) / len(lengths)

  def num_shards(
    self, num_clips: int, description: features_file.Description
  ) -> int:
    """How many shards so many clips make, of about 64 MB."""
    sizes = sum(each.size for each in description.features)
    width = _WIDTHS[description.dtype]
    total = num_clips * self._mean_frames * sizes * width
    return max(1, round(total / _SHARD_BYTES))

  def path(self, clip_id: str) -> str:
    """Where a clip comes from."""
    return self._source.path(clip_id)

  def load(self, clip_id: str) -> Clip:
    """A clip as it is to be stored, in floats.

    Raises:
      ClipError: it can't be used.
    """
    clip = self._source.load(clip_id)
    for name, frames in clip.items():
      if frames.shape[1] != self.sizes[name]:
        raise ClipError(
          f"{name!r} has {frames.shape[1]} numbers a frame, where most clips "
          f"have {self.sizes[name]}"
        )
    shortest = min(map(len, clip.values()))
    self.num_cut += any(len(frames) > shortest for frames in clip.values())
    clip = {name: frames[:shortest] for name, frames in clip.items()}
    for name, pca in self.pcas.items():
      clip[name] = np.asarray(pca.apply(clip[name]), np.float32)
    return clip

  def each(self, ids: Sequence[str], doing: str) -> Iterator[tuple[str, Clip]]:
    """Yields (id, clip) of those that can be used; keeps why others can't."""
    with program.progress_bar(len(ids), "clips") as bar:
      bar.set_description(doing)
      for clip_id in ids:
        bar.update()
        if clip_id in self.skipped:
          continue
        try:
          clip = self.load(clip_id)
        except ClipError as error:
          self.skipped[clip_id] = str(error)
          continue
        yield clip_id, clip


def parse_pca(text: str) -> dict[str, int]:
  """{feature: size} of 'rgb:1024,audio:128'.

  Raises:
    ValueError: it is none.
  """
  found = {}
  for part in filter(None, text.replace(" ", "").split(",")):
    name, _, size = part.rpartition(":")
    if not name or not size.isdecimal() or not int(size):
      raise ValueError(f"Need --pca=NAME:SIZE,NAME:SIZE, got {text!r}.")
    found[name] = int(size)
  return found


def file_of_pca(names: Sequence[str], name: str) -> str:
  """The name of the file of a feature's PCA, fit for any file system."""
  plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
  return (
    f"pca-{plain}-{names.index(name)}.npz"
    if (plain != name)
    else f"pca-{name}.npz"
  )


def fit_pcas(
  loader: Loader, sizes: Mapping[str, int], ids: Sequence[str]
) -> None:
  """Fits the PCA of each feature that is to have one, on some clips.

  Raises:
    ValueError: too few frames for it, or no such feature.
  """
  for name, size in sizes.items():
    if name not in loader.sizes:
      raise ValueError(
        f"--pca: no feature {name!r} among {', '.join(loader.sizes)}."
      )
    from extraction import pca

    clips = loader.each(ids, f"PCA of {name}")
    try:
      fitted = pca.fit((clip[name] for _, clip in clips), size)
    except ValueError as error:
      raise ValueError(f"--pca={name}:{size}: {error}") from None
    loader.pcas[name] = fitted


@dataclasses.dataclass(frozen=True)
class Wish:
  """How features are to be stored.

  Attributes:
    dtype: one of `features_file.DTYPES`.
    ranges: list of (low, high), one or one a feature; none to measure.
    outside: float, the share of the numbers that a measured range leaves out.
    extractors: {feature: declaration of what made it, or None}.
  """

  dtype: str
  ranges: Sequence[tuple[float, float]]
  outside: float
  extractors: Mapping[str, Any]


def describe(
  loader: Loader, wish: Wish, ids: Sequence[str]
) -> tuple[features_file.Description, dict[str, Any]]:
  """Measures some clips, and says how to store all.

  Returns:
    (the description, {feature: what was measured, in words}).

  Raises:
    ValueError: neither one range nor one a feature.
    program.UserError: no clip can be used.
  """
  names = list(loader.sizes)
  if len(wish.ranges) not in (0, 1, len(names)):
    raise ValueError(
      f"Need one --range, or one for each of {', '.join(names)}; got "
      f"{len(wish.ranges)}."
    )
  numbers = {name: clip_statistics.Numbers() for name in names}
  if wish.dtype == "uint8" and not wish.ranges:
    is_empty = True
    for _, clip in loader.each(ids, "Measuring"):
      is_empty = False
      for name, frames in clip.items():
        numbers[name].add(frames)
    if is_empty:
      raise program.UserError(
        "No clip can be used to measure the range of. The first: "
        + next(iter(loader.skipped.values()), "there is none")
      )
  features, notes = [], {}
  for i, name in enumerate(names):
    low, high = features_file.DEFAULT_RANGE
    if wish.ranges:
      low, high = wish.ranges[i if len(wish.ranges) > 1 else 0]
    elif wish.dtype == "uint8":
      low, high = numbers[name].range(wish.outside)
      notes[name] = _note(numbers[name], low, high)
    pca = loader.pcas.get(name)
    features.append(
      features_file.StoredFeature(
        name,
        pca.size if pca else loader.sizes[name],
        wish.dtype,
        low,
        high,
        wish.extractors.get(name),
        file_of_pca(names, name) if pca else None,
        pca.hash if pca else "",
      )
    )
  return features_file.Description(tuple(features)), notes


def _note(numbers, low, high):
  """What was measured of a feature, in words."""
  text = f"its numbers lie between {numbers.low:.4g} and {numbers.high:.4g}"
  if coarse := numbers.num_coarse(low, high):
    text += (
      f"; {coarse} numbers of a frame vary by less than a step of the bytes: "
      "store them with --feature_dtype=float16, or give --pca"
    )
  return text


def like(
  loader: Loader,
  directory: str,
  description: features_file.Description,
  dtype: str | None,
  extractors: Mapping[str, Any],
) -> None:
  """Makes a loader give features as those of another set; see `--like`.

  Raises:
    ValueError: these are other features.
  """
  path = os.path.join(directory, features_file.FILE_NAME)
  if dtype and dtype != description.dtype:
    raise ValueError(
      f"--feature_dtype={dtype}, but --like: {path} has {description.dtype}."
    )
  for feature in description.features:
    made = extractors.get(feature.name)
    if made and feature.extractor and made != feature.extractor:
      raise ValueError(
        f"--features: {feature.name!r} was made by another extractor than that "
        f"of --like: {path}."
      )
    if feature.pca:
      from extraction import pca

      loader.pcas[feature.name] = pca.load(os.path.join(directory, feature.pca))
    fitted = loader.pcas.get(feature.name)
    size = len(fitted.mean) if fitted else feature.size
    if loader.sizes[feature.name] != size:
      raise ValueError(
        f"--features: {feature.name!r} has {loader.sizes[feature.name]} "
        f"numbers a frame, but --like: {path} needs {size}."
      )


def stored(
  clip: Clip, description: features_file.Description
) -> tuple[dict[str, NDArray], dict[str, int]]:
  """(a clip as `writer.frame_record` takes it, {feature: numbers outside}).

  Raises:
    ClipError: numbers too large for float16.
  """
  found, outside = {}, {}
  for feature in description.features:
    frames: NDArray = clip[feature.name]
    outside[feature.name] = 0
    if feature.dtype == "uint8":
      outside[feature.name] = clip_statistics.num_outside(
        frames, feature.low, feature.high
      )
      frames = writer.quantize(frames, feature.low, feature.high)
    elif feature.dtype == "float16":
      with np.errstate(over="ignore"):
        frames = frames.astype(np.float16)
      if not np.isfinite(frames).all():
        raise ClipError(
          f"{feature.name!r} has numbers too large for float16: give "
          "--feature_dtype=float32"
        )
    found[feature.name] = frames
  return found, outside
