"""Weights stored in fewer bits, for exports that must be small.

Each weight of more than 16,384 elements is a variable of a smaller type, which
the graph turns back into float32 where a layer reads it. Statistics, biases and
gains stay as they are: they are small, and whitening by a covariance of 256
steps would be none.

  float16: each number rounded, to 11 significant bits.
  uint8:   w = low + step * code, with low and step of the range that the
           numbers of a column (the last axis) have; of the whole variable where
           columns are shorter than 64, as two numbers a column would not be
           small any more.

Large weights were stored so by the teams of the second YouTube-8M challenge,
whose models had to fit into 1 GB.

Axes: N numbers of a column, M columns.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

DTYPES = ("float32", "float16", "uint8")
_MIN_ELEMENTS = 16_384
_MIN_COLUMN = 64
_MAX_CODE = 255


@dataclasses.dataclass(frozen=True)
class _Stored:
  """A weight as it is stored.

  Attributes:
    codes: variable of the small type, of the weight's shape.
    low: float32 variable, what code 0 stands for; None of float16.
    step: float32 variable, what a code adds; None of float16.
  """

  codes: Any
  low: Any = None
  step: Any = None

  def read(self):
    """The weight: float32 tensor."""
    values = tf.cast(self.codes, tf.float32)
    return values if self.step is None else self.low + self.step * values

  def load(self, values, session):
    """Gives it values: float32 array."""
    if self.step is None:
      largest = np.abs(values).max()
      if largest > np.finfo(np.float16).max:
        raise ValueError(
          f"{self.codes.op.name} has numbers up to {largest:g}, beyond "
          "float16: give --export_dtype=float32 or uint8."
        )
      self.codes.load(values.astype(np.float16), session)
      return
    codes, low, step = quantize(values)
    for variable, value in zip(
      (self.codes, self.low, self.step), (codes, low, step)
    ):
      variable.load(value, session)


def quantize(values):
  """The nearest codes of numbers.

  Args:
    values: float32 array.

  Returns:
    (uint8 array of the same shape, float32 low, float32 step), the last two of
    the shape of `_range_shape`.
  """
  axes = tuple(range(values.ndim - len(_range_shape(values.shape))))
  low = values.min(axis=axes)
  step = (values.max(axis=axes) - low) / np.float32(_MAX_CODE)
  # Of equal numbers any step will do: all codes are 0.
  codes = np.rint((values - low) / np.where(step > 0, step, np.float32(1.0)))
  return np.minimum(codes, _MAX_CODE).astype(np.uint8), low, step


def _range_shape(shape):
  """[M] where each column has a range of its own, [] for the whole variable."""
  return shape[-1:] if math.prod(shape[:-1]) >= _MIN_COLUMN else shape[:0]


class Compression:
  """Makes large weights small, in the scopes that its getter is given to.

  A graph is built with it, and then given the weights of one built without.
  """

  def __init__(self, dtype):
    """Keeps the type, one of DTYPES."""
    self._dtype = tf.as_dtype(dtype)
    self._stored = {}
    self._plain = {}

  @property
  def count(self):
    """int, weights that were made small."""
    return len(self._stored)

  @property
  def num_bytes(self):
    """int, of all variables that were made."""
    stored = [
      part
      for weight in self._stored.values()
      for part in (weight.codes, weight.low, weight.step)
      if part is not None
    ]
    return sum(
      math.prod(variable.shape.as_list()) * variable.dtype.size
      for variable in [*stored, *self._plain.values()]
    )

  def getter(self, getter, name, *args, **kwargs):
    """A `custom_getter` for `tf.variable_scope`."""
    shape = tf.TensorShape(kwargs.get("shape")).as_list()
    is_weight = kwargs.get("trainable") is not False and len(shape) > 1
    is_large = math.prod(shape) > _MIN_ELEMENTS
    of_floats = tf.as_dtype(kwargs.get("dtype", tf.float32)) == tf.float32
    if self._dtype == tf.float32 or not (is_weight and is_large and of_floats):
      variable = getter(name, *args, **kwargs)
      self._plain[name] = variable
      return variable
    if name not in self._stored:
      self._stored[name] = self._make(getter, name, shape)
    return self._stored[name].read()

  def _make(self, getter, name, shape):
    def make(suffix, size, dtype):
      return getter(
        f"{name}{suffix}",
        shape=size,
        dtype=dtype,
        initializer=tf.zeros_initializer(),
        trainable=False,
      )

    codes = make("", shape, self._dtype)
    if self._dtype == tf.float16:
      return _Stored(codes)
    size = _range_shape(shape)
    return _Stored(
      codes,
      make("/low", size, tf.float32),
      make("/step", size, tf.float32),
    )

  def load(self, weights, session):
    """Gives all variables their values.

    Args:
      weights: dict of a variable's name to its array, as without compression.
      session: `tf.Session`.

    Raises:
      ValueError: a number that the type can't hold.
    """
    for name, variable in self._plain.items():
      variable.load(weights[name], session)
    for name, stored in self._stored.items():
      stored.load(weights[name], session)
