"""Principal components with whitening, as YouTube-8M's features have them.

y = (x - mean) V / (sqrt(e) + 1e-4), with the eigenvectors V of the largest
eigenvalues e of the covariance: Abu-El-Haija et al. 2016. One pass over the
frames, with a D x D matrix in memory. Axes: T frames, D features, d components.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

import files

_EPSILON = 1e-4
# Frames that are multiplied at once, or D if that is more.
_CHUNK = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class Pca:
  """What was fitted.

  Attributes:
    mean: float32 [D].
    components: float32 [D, d], a unit vector each, by falling eigenvalue; the
      largest of each one's numbers is positive, so that a fit can be repeated.
    eigenvalues: float32 [d].
  """

  mean: np.ndarray
  components: np.ndarray
  eigenvalues: np.ndarray

  @property
  def size(self) -> int:
    """The number of components, d."""
    return self.components.shape[1]

  @functools.cached_property
  def hash(self) -> str:
    """16 hexadecimal digits that tell it from others."""
    digest = hashlib.sha256()
    for field in dataclasses.fields(self):
      array = np.ascontiguousarray(getattr(self, field.name), "<f4")
      digest.update(f"{field.name} {array.shape}\0".encode())
      digest.update(array.tobytes())
    return digest.hexdigest()[:16]

  @functools.cached_property
  def _whitening(self):
    """[D, d]."""
    return self.components / (np.sqrt(self.eigenvalues) + _EPSILON)

  def apply(self, frames: np.ndarray) -> np.ndarray:
    """Components of features: float [T, D] to float32 [T, d].

    Raises:
      ValueError: another D.
    """
    if frames.ndim != 2 or frames.shape[1] != len(self.mean):
      raise ValueError(
        f"The PCA is of {len(self.mean)} features, got frames of shape "
        f"{list(frames.shape)}."
      )
    return (frames.astype(np.float32) - self.mean) @ self._whitening

  def save(self, path: str | os.PathLike) -> None:
    """Writes an .npz file."""
    arrays = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
    with files.ReplacedFile(path, binary=True) as stream:
      np.savez(stream, **arrays)


def load(path: str | os.PathLike) -> Pca:
  """Reads what `Pca.save` wrote.

  Raises:
    OSError: it can't be read.
    ValueError: it is no such file.
  """
  try:
    with np.load(path) as stored:
      found = Pca(
        **{
          field.name: stored[field.name].astype(np.float32)
          for field in dataclasses.fields(Pca)
        }
      )
    size = found.components.shape
    if size != (*found.mean.shape, *found.eigenvalues.shape):
      raise ValueError(f"components of shape {size}")
  except OSError:
    raise
  except Exception as error:  # Of zipfile, pickle and NumPy.
    raise ValueError(f"{path} is no PCA file of ours: {error}") from None
  return found


def fit(clips: Iterable[np.ndarray], size: int) -> Pca:
  """Fits components to frames.

  Args:
    clips: arrays [T, D] of floats; read once.
    size: int >= 1, d.

  Raises:
    ValueError: fewer frames or features than components, or arrays that do not
      fit each other.
  """
  chunks = _chunks(clips)
  first = next(chunks, np.zeros([0, 0]))
  second = next(chunks, None)
  if second is None and len(first) <= first.shape[1]:
    count, features = first.shape
    mean, values, vectors = _of_few(first)
  else:
    later = chunks if second is None else itertools.chain([second], chunks)
    features = first.shape[1]
    count, mean, values, vectors = _of_many(first, later)
  if not 1 <= size <= min(features, count - 1):
    raise ValueError(
      f"A PCA to {size} components needs more than {size} frames of at least "
      f"{size} features, got {count} frames of {features}."
    )
  # They come with the smallest first.
  values, vectors = values[::-1][:size], vectors[:, ::-1][:, :size]
  largest = np.abs(vectors).argmax(axis=0)
  vectors = vectors * np.sign(vectors[largest, np.arange(size)])
  return Pca(
    mean.astype(np.float32),
    vectors.astype(np.float32),
    np.maximum(values, 0.0).astype(np.float32),
  )


def _of_many(first, later):
  """(T, mean, eigenvalues, eigenvectors [D, D]) of the covariance of chunks."""
  # Close to the mean, so that squares are no larger than they need be.
  shift = first.mean(axis=0, dtype=np.float64)
  count, total, products = 0, np.zeros_like(shift), 0.0
  for frames in itertools.chain([first], later):
    centred = frames.astype(np.float64) - shift
    count += len(centred)
    total += centred.sum(axis=0)
    products = products + centred.T @ centred
  if len(shift) > _CHUNK:
    logging.info("The PCA of %d numbers takes minutes.", len(shift))
  mean = total / count
  covariance = products / count - np.outer(mean, mean)
  return count, mean + shift, *np.linalg.eigh(covariance)


def _of_few(frames):
  """(mean, eigenvalues, eigenvectors [D, T]) of T <= D frames.

  Of their T x T products: a set of some hundred frames of 6144 features takes a
  moment, and minutes by the covariance. Directions without any variance are 0.
  """
  count = max(1, len(frames))
  mean = frames.sum(axis=0, dtype=np.float64) / count
  centred = frames - mean
  values, left = np.linalg.eigh(centred @ centred.T / count)
  is_real = values > 1e-12 * values.max(initial=0.0)
  lengths = np.sqrt(np.where(is_real, values, 1.0) * count)
  return mean, values, centred.T @ (left * (is_real / lengths))


def _chunks(clips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Joins clips to some thousand frames, D or more: these multiply faster."""
  waiting: list[np.ndarray] = []
  count = 0
  for frames in clips:
    if frames.ndim != 2 or (
      waiting and frames.shape[1:] != waiting[0].shape[1:]
    ):
      raise ValueError(f"Frames of shape {list(frames.shape)} among others.")
    waiting.append(frames)
    count += len(frames)
    if count >= max(_CHUNK, frames.shape[1]):
      yield np.concatenate(waiting)
      waiting, count = [], 0
  if count:
    yield np.concatenate(waiting)
