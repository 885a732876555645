"""The models by their names. Imports none: `models/__init__.py` imports all.

A model is registered where it stands:

  @registry.register(aliases=("NameInThePaper",))
  class MyModel(pooled.PooledModel):
    ...
"""

from collections.abc import Iterable, Mapping
from typing import Any

from console import flag_fields
from models import base

_MODELS: dict[str, type[base.BaseModel]] = {}
_ALIASES: dict[str, str] = {}

# The flag of `configs.Classified`.
_CLASSIFIER = "video_level_classifier_model"


def register(model=None, *, aliases=()):
  """A decorator, with brackets or without, that makes a model known.

  Args:
    model: class, known by its name.
    aliases: sequence of str, names that it was published under.

  Returns:
    The decorator, or the class; ValueError for a name or a flag that is taken.
  """

  def decorate(cls):
    for name in (cls.__name__, *aliases):
      if name in choices():
        raise ValueError(f"There is a model {name} already.")
    known = specs()
    for name, spec in flag_fields.specs(cls.Config).items():
      if known.get(name, spec) is not spec:
        raise ValueError(
          f"--{name} of {cls.__name__} is a flag of another model already: "
          "inherit from the class that has it."
        )
    _MODELS[cls.__name__] = cls
    _ALIASES.update(dict.fromkeys(aliases, cls.__name__))
    return cls

  return decorate if model is None else decorate(model)


def names(is_frame_level: bool | None = None) -> list[str]:
  """The models that can be trained, of one level if given."""
  return sorted(
    name
    for name, cls in _MODELS.items()
    if cls.is_trainable and is_frame_level in (None, cls.is_frame_level)
  )


def choices() -> list[str]:
  """The registered models and their aliases."""
  return sorted([*_MODELS, *_ALIASES])


def resolve(name: str) -> str:
  """The model's own name."""
  return _ALIASES.get(name, name)


def get(name: str) -> type[base.BaseModel]:
  """The class of a model, by its name or an alias."""
  return _MODELS[resolve(name)]


def specs() -> dict[str, flag_fields.Spec]:
  """{name: `flag_fields.Spec`} of all models' flags."""
  found = {}
  for cls in _MODELS.values():
    found.update(flag_fields.specs(cls.Config))
  return found


def config_classes(
  name: str, values: Mapping[str, Any]
) -> list[type[flag_fields.Config]]:
  """The configurations of a model and of the classifier in it.

  Args:
    name: str, the model's.
    values: mapping; value of each flag.
  """
  cls = get(name)
  found: list[type[flag_fields.Config]] = [cls.Config]
  if hasattr(cls.Config, _CLASSIFIER):
    found += config_classes(values[_CLASSIFIER], values)
  return found


def build(
  name: str, values: Mapping[str, Any], features: Iterable[base.Feature]
) -> base.BaseModel:
  """Builds a model from the values of flags.

  Args:
    name: str, the model's.
    values: mapping; value of each flag of the model, and of its classifier.
    features: list of `base.Feature`.

  Returns:
    `base.BaseModel`.

  Raises:
    ValueError: a value, or features, that the model refuses.
  """
  cls = get(name)
  config = flag_fields.from_values(cls.Config, values)
  classifier = None
  if hasattr(config, _CLASSIFIER):
    classifier = build(values[_CLASSIFIER], values, features)
  return cls(config, features=features, classifier=classifier)
