"""Synthetic videos: labels, the frames that show them, distractors, noise.

Axes: T frames, L labels of a video, C classes, S sources (the backgrounds,
then the labels of a video), D size of a feature, M directions, P = M / 2 pairs
of them.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from records import writer

_NUM_BACKGROUNDS = 8
# A background lasts twenty frames on average.
_CUT_PROBABILITY = 0.05
# The clutter of a set, and how much of it one video shows. The pool is larger
# than a small feature, so no projection of the mean is free of it.
_NUM_CLUTTER = 64
_CLUTTER_OF_VIDEO = 4
# Deviation of a frame of a burst from the first one, relative to the noise.
_BURST_JITTER = 0.02
# Directions whose pairs tell classes apart by covariance: 519 million classes.
NUM_DIRECTIONS = 16
# Popularity of the class at rank r is 1 / (r + 2). Plain Zipf, 1 / r, would
# give nearly a third of all videos to the first of 3,862 classes; this gives
# it one in eight.
_POPULARITY_OFFSET = 2
# Standard deviation of all values before they are quantised: fewer than one in
# a thousand lie beyond the +-2 that a byte can express.
_VALUE_STD = 0.6
# The noise of a frame is a mixture of fresh noise and that of the frame
# before, which gives neighbours a correlation of 0.4.
_FRESH, _CARRIED = 0.8**0.5, 0.2**0.5


class Looks(NamedTuple):
  """What one feature of all videos of a data set is made of.

  Attributes:
    pictures: float32 [8 + 64, D], backgrounds and clutter, unit variance.
    prototypes: float32 [C, D], unit variance.
    directions: float32 [M, D], orthogonal, of squared norm D / M; None unless
      label_signature is covariance.
    codes: float32 [C, P, M], see `_draw_codes`; None likewise.
  """

  pictures: np.ndarray
  prototypes: np.ndarray
  directions: np.ndarray | None = None
  codes: np.ndarray | None = None


class Video(NamedTuple):
  """One video, before it is serialised.

  Attributes:
    video_id: 11 characters of YouTube's alphabet.
    labels: int64 [L], ascending, L >= 1.
    shows: bool [T, L], True where a label shows.
    clutter: bool [T], True where clutter shows.
    burst: bool [T], True in the burst.
    frames: uint8 [T, D] by feature name.
  """

  video_id: bytes
  labels: np.ndarray
  shows: np.ndarray
  clutter: np.ndarray
  burst: np.ndarray
  frames: dict[str, Any]


def make_looks(config: Any) -> list[Looks]:
  """Draws what all videos share, from `prototype_seed`, feature by feature.

  Args:
    config: `make_dataset.DatasetConfig`.
  """
  return [_draw_looks(config, *item) for item in enumerate(config.sizes)]


def generate_video(config: Any, looks: Sequence[Looks], index: int) -> Video:
  """Makes one video.

  It depends on the seed, the split and `index`, but not on the number of
  videos or shards, the level, or the names of the features.

  Args:
    config: `make_dataset.DatasetConfig`.
    looks: `make_looks(config)`, or that of a configuration with the same
      prototype_seed, num_classes, feature_sizes and label_signature.
    index: int >= 0, number of the video in its split.
  """
  key = config.seed, config.split, index
  rng = _generator("video", *key)
  num_frames = int(
    rng.integers(config.min_frames, config.max_frames, endpoint=True)
  )
  labels = _draw_labels(rng, config.num_classes, config.labels_per_video)
  shows = _place_labels(rng, num_frames, len(labels), config.label_frames)
  shown, burst = _place_distractors(config, key, shows)
  distracts = shown >= 0
  mixture = _mix_sources(rng, shows)
  # Loud noise makes the prototypes fainter instead of clipping the sum.
  scale = _VALUE_STD / math.sqrt(1 + config.noise**2)
  frames = {}
  for position, name in enumerate(config.names):
    # With generators of its own, a feature stays the same when others are
    # added after it.
    own, look = (*key, position), looks[position]
    weights, sources = _sources(own, look, labels, mixture)
    values = weights @ (sources * np.float32(scale))  # [T, D]
    values[distracts] = look.pictures[shown[distracts]] * np.float32(scale)
    _add_noise(_generator("noise", *own), values, config.noise * scale)
    _still(values, burst)
    frames[name] = writer.quantize(values)
  clutter = distracts & ~burst
  return Video(_video_id(*key), labels, shows, clutter, burst, frames)


def _generator(*key):
  """A generator for `key`, independent of those of all other keys."""
  return np.random.Generator(np.random.PCG64(_hash(*key, num_bytes=16)))


def _hash(*key, num_bytes):
  """A number that, unlike Python's hash, is the same in every process."""
  text = "/".join(map(str, key)).encode()
  digest = hashlib.blake2b(text, digest_size=num_bytes).digest()
  return int.from_bytes(digest, "big")


def _video_id(seed, split, index):
  """64 bits in 11 characters, as YouTube's ids.

  An odd factor permutes the 64-bit numbers, so no two ids of a split are
  equal; other seeds and splits start from elsewhere.
  """
  start = _hash("id", seed, split, num_bytes=8)
  number = (start + int(index) * 0x9E3779B97F4A7C15) % 2**64
  return base64.urlsafe_b64encode(number.to_bytes(8, "big")).rstrip(b"=")


def _draw_looks(config, position, size):
  # Generators of their own: a set without clutter has the same prototypes.
  rng, clutter_rng, covariance_rng = (
    _generator(name, config.prototype_seed, position)
    for name in ("prototypes", "clutter pool", "covariance")
  )

  def normal(generator, rows):
    return generator.standard_normal([rows, size], dtype=np.float32)

  backgrounds = normal(rng, _NUM_BACKGROUNDS)
  prototypes = normal(rng, config.num_classes)
  pictures = np.concatenate([backgrounds, normal(clutter_rng, _NUM_CLUTTER)])
  if config.label_signature == "mean":
    return Looks(pictures, prototypes)
  # The sum of the directions has unit mean square.
  normals = covariance_rng.standard_normal([size, NUM_DIRECTIONS])
  directions = np.linalg.qr(normals)[0].T * math.sqrt(size / NUM_DIRECTIONS)
  codes = _draw_codes(covariance_rng, config.num_classes, NUM_DIRECTIONS)
  return Looks(pictures, prototypes, directions.astype(np.float32), codes)


def _draw_codes(rng, num_classes, num_directions):
  """Draws a perfect matching of the directions, with signs, for each class.

  Frames of a class are random signs [P] times its code [P, M] times the
  directions. The coefficients of the directions have mean 0 and the covariance
  code^T code: 1 on the diagonal, the sign where two are paired, else 0.

  Returns:
    float32 [C, P, M]: row p of a class has 1 in one column of its pair and the
    pair's sign in the other. No two classes have the same covariance.
  """
  pair = np.arange(num_directions // 2)
  codes = {}  # By covariance.
  while len(codes) < num_classes:
    one, other = rng.permutation(num_directions).reshape(2, -1)
    code = np.zeros([len(pair), num_directions], np.float32)
    code[pair, one] = 1
    code[pair, other] = rng.choice([-1, 1], len(pair))
    codes.setdefault((code.T @ code).tobytes(), code)
  return np.stack(list(codes.values()))


def _draw_labels(rng, num_classes, mean):
  """Draws int64 [L] distinct labels, ascending, by popularity."""
  # A binomial has the wanted mean and never asks for more than all classes.
  others = num_classes - 1
  num_labels = 1 + rng.binomial(others, (mean - 1) / others)
  popularity = 1 / (np.arange(1.0, num_classes + 1) + _POPULARITY_OFFSET)
  popularity /= popularity.sum()
  # The first arrivals of processes with these rates are a draw without
  # replacement with these weights.
  arrivals = rng.standard_exponential(num_classes) / popularity
  first = np.argpartition(arrivals, num_labels - 1)[:num_labels]
  return np.sort(first).astype(np.int64)


def _place_labels(rng, num_frames, num_labels, fraction):
  """Chooses the frames of each label: bool [T, L].

  Every label gets max(1, round(fraction * T)) frames; half of the labels in
  one run, the others scattered.
  """
  count = max(1, round(fraction * num_frames))
  shows = np.zeros([num_frames, num_labels], bool)
  for label in range(num_labels):
    if rng.random() < 0.5:
      start = rng.integers(num_frames - count, endpoint=True)
      shows[start : start + count, label] = True
    else:
      shows[rng.permutation(num_frames)[:count], label] = True
  return shows


def _place_distractors(config, key, shows):
  """Chooses the frames of the burst and of the clutter, and what they show.

  They replace frames without a label as long as there are any, then frames
  with labels, and leave every label one frame; short of that, the burst comes
  before the clutter.

  Args:
    config: the data set.
    key: seed, split and number of the video.
    shows: bool [T, L], cleared in the frames that are chosen.

  Returns:
    int64 [T], the row of the pictures, or -1; bool [T], True in the burst.
  """
  num_frames = len(shows)
  shown = np.full([num_frames], -1)
  if count := round(config.burst_frames * num_frames):
    rng = _generator("burst", *key)
    picture = rng.integers(_NUM_BACKGROUNDS + _NUM_CLUTTER)
    order = _expendable(rng, shows, shown < 0)
    num_free = np.count_nonzero(~shows.any(axis=1))
    # Frames with a label cut into the burst instead of ending it.
    frames = np.sort(order[: max(count, num_free)])
    start = rng.integers(max(0, len(frames) - count), endpoint=True)
    shown[frames[start : start + count]] = picture
  burst = shown >= 0
  shows[burst] = False
  if count := round(config.clutter_frames * num_frames):
    rng = _generator("clutter", *key)
    own = rng.choice(_NUM_CLUTTER, _CLUTTER_OF_VIDEO, replace=False)
    frames = _expendable(rng, shows, ~burst)[:count]
    shown[frames] = _NUM_BACKGROUNDS + rng.choice(own, len(frames))
    shows[frames] = False
  return shown, burst


def _expendable(rng, shows, available):
  """The available frames but one of each label, in the order to replace them.

  Returns:
    int64 [N], frames without a label first, otherwise in random order.
  """
  order = rng.permutation(np.flatnonzero(available))
  kept = order[shows[order].argmax(axis=0)]
  order = order[~np.isin(order, kept)]
  return order[np.argsort(shows[order].any(axis=1), kind="stable")]


def _mix_sources(rng, shows):
  """Weights of backgrounds and labels in each frame: float32 [T, S].

  Frames without a label show one background, which changes now and then.
  Rows have unit norm, so that a frame with two labels is no louder.
  """
  num_frames = len(shows)
  scene = np.cumsum(rng.random(num_frames) < _CUT_PROBABILITY)  # [T]
  background_of_scene = rng.integers(_NUM_BACKGROUNDS, size=scene[-1] + 1)
  empty = np.flatnonzero(~shows.any(axis=1))
  mixture = np.concatenate(
    [np.zeros([num_frames, _NUM_BACKGROUNDS]), shows], axis=1, dtype=np.float32
  )
  mixture[empty, background_of_scene[scene[empty]]] = 1
  return mixture / np.linalg.norm(mixture, axis=1, keepdims=True)


def _sources(key, look, labels, mixture):
  """What the frames of a feature are sums of.

  Args:
    key: seed, split, number of the video, and position of the feature.
    look: `Looks` of the feature.
    labels: int64 [L].
    mixture: float32 [T, S].

  Returns:
    Weights [T, S] and sources [S, D]; with covariance, weights [T, 8 + M] and
    sources [8 + M, D]. float32.
  """
  backgrounds = look.pictures[:_NUM_BACKGROUNDS]
  if look.codes is None:
    return mixture, np.concatenate([backgrounds, look.prototypes[labels]])
  shared, own = np.split(mixture, [_NUM_BACKGROUNDS], axis=1)
  codes = look.codes[labels]  # [L, P, M]
  signs = _generator("signs", *key).choice(
    np.array([-1, 1], np.float32), [*own.shape, codes.shape[1]]
  )  # [T, L, P]
  loads = np.einsum("tl,tlp,lpm->tm", own, signs, codes)
  weights = np.concatenate([shared, loads], axis=1)
  return weights, np.concatenate([backgrounds, look.directions])


def _add_noise(rng, values, stddev):
  """Adds noise that is correlated between frames to float32 [T, D], in place.

  It is a sum of two uniform variables: normal ones take four times as long,
  and were half of the program's time.
  """
  num_frames, size = values.shape
  fresh = rng.random([num_frames + 1, size], dtype=np.float32)
  fresh -= np.float32(0.5)
  # A uniform variable's variance is 1/12.
  fresh *= np.float32(stddev * math.sqrt(12) * _FRESH)
  values += fresh[1:]
  values += fresh[:-1] * np.float32(_CARRIED / _FRESH)


def _still(values, burst):
  """Moves frames of a burst to its first: float32 [T, D], in place.

  They show the same picture, so what sets them apart is noise.
  """
  if burst.any():
    first = values[burst.argmax()].copy()
    values[burst] = first + np.float32(_BURST_JITTER) * (values[burst] - first)
