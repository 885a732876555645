"""What layers let be seen of themselves, when somebody asks for it.

A layer notes a tensor; unless a viewer collects, nothing happens, and no graph
is any different.
"""

import contextlib
import contextvars
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf


class Noted(NamedTuple):
  """What a layer noted.

  Attributes:
    kind: str. "assignments": float [B, T, K] of frames to centres. "weights":
      float [B, T, K] of frames in each of K means. "attention": queries
      [B, H, S, h], keys [B, H, T, h] and their mask, bool [B, T].
    scope: str, the variable scope of the layer.
    tensors: tuple of tensors; on padding they may hold anything.
  """

  kind: str
  scope: str
  tensors: tuple[Any, ...]


_collected: contextvars.ContextVar[list[Noted] | None] = contextvars.ContextVar(
  "collected", default=None
)


@contextlib.contextmanager
def collecting():
  """Yields a list, which gets what is noted in the `with` block."""
  found: list[Noted] = []
  token = _collected.set(found)
  try:
    yield found
  finally:
    _collected.reset(token)


def note(kind: str, *tensors: Any) -> None:
  """Lets tensors be seen, see `Noted`."""
  found = _collected.get()
  if found is not None:
    found.append(Noted(kind, tf.get_variable_scope().name, tensors))
