"""Packages of the extra [extract], imported where they are needed."""

import importlib
import types


def load(name: str, purpose: str) -> types.ModuleType:
  """Imports a package.

  Args:
    name: str, the module's.
    purpose: str, what needs it, for the error.

  Raises:
    ValueError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(
      f"{purpose} needs the package {name} ({error}): "
      "pip install -c constraints.txt -e '.[extract]'"
    ) from None
