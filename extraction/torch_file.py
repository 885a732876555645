"""Reads the tensors of a .pth file in PyTorch's old format, without PyTorch.

Of the pickles in it, only what makes tensors of numbers is carried out: a file
can't run code here.
"""

import collections
import pickle
import typing

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _Tensor(typing.NamedTuple):
  """Where in the file's numbers a tensor's are."""

  storage: tuple[str, str, int]  # Type, key, count.
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _rebuild(storage, offset, shape, strides, *_):
  return _Tensor(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
  """Knows ordered dicts and tensors, and refuses all else."""

  def find_class(self, module, name):
    """See the base class."""
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _rebuild
    if module == "torch" and name in _TYPES:
      return name
    raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

  def persistent_load(self, pid):
    """See the base class."""
    kind, type_name, key, _, count, view = pid
    if kind != "storage" or view is not None or type_name not in _TYPES:
      raise pickle.UnpicklingError(f"{kind} {type_name} is not known")
    return type_name, key, count


def read(path: str) -> dict[str, np.ndarray]:
  """Reads a dict of tensors.

  Args:
    path: of a file that `torch.save` wrote before PyTorch 1.6, or with
      `_use_new_zipfile_serialization=False`.

  Returns:
    {name: array}.

  Raises:
    ValueError: another kind of file, or a damaged one.
  """
  try:
    with open(path, "rb") as file:
      header = [_Unpickler(file).load() for _ in range(2)]
      if header != [_MAGIC, _PROTOCOL]:
        raise ValueError("no such header")
      _Unpickler(file).load()  # The machine's sizes and byte order.
      tensors = _Unpickler(file).load()
      keys = _Unpickler(file).load()
      types = {t.storage[1]: _TYPES[t.storage[0]] for t in tensors.values()}
      storages = {key: _read_storage(file, types[key]) for key in keys}
    return {
      name: _array(storages[tensor.storage[1]], tensor)
      for name, tensor in tensors.items()
    }
  except (
    AttributeError, EOFError, IndexError, KeyError, pickle.UnpicklingError,
    TypeError, ValueError,
  ) as error:  # fmt: skip
    raise ValueError(
      f"{path} is no file of tensors in PyTorch's old format: {error}."
    ) from None


def _read_storage(file, dtype):
  """An array of the numbers that come next, after their count."""
  count = int.from_bytes(file.read(8), "little")
  size = count * np.dtype(dtype).itemsize
  data = file.read(size)
  if len(data) < size:
    raise EOFError("it is cut short")
  return np.frombuffer(data, dtype)


def _array(storage, tensor):
  """The numbers that a tensor is made of; raises ValueError if beyond."""
  span = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
  if min(tensor.shape, default=1) < 1 or min(tensor.strides, default=0) < 0:
    raise ValueError(f"a shape of {tensor.shape}")
  if not 0 <= tensor.offset <= tensor.offset + span < len(storage):
    raise ValueError("a tensor lies beyond its numbers")
  size = storage.itemsize
  return np.lib.stride_tricks.as_strided(
    storage[tensor.offset :],
    tensor.shape,
    [stride * size for stride in tensor.strides],
  ).copy()
