"""Every model, a family a file; `models.BaseModel` is their contract."""

import importlib
import pkgutil

from models.base import BaseModel as BaseModel

# So that each is registered.
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
  importlib.import_module(_module.name)
