"""Tests of models/registry.py, and of the way to add a model.

The model here is a function, a class and nothing else.
"""

import dataclasses

import pytest
import tensorflow.compat.v1 as tf
from absl import flags

import data_flags
import eval as eval_program
import inference
import losses
import model_flags
import models
from console import flag_fields, flag_help
from models import base, configs, mixture, pooled, registry
from pooling.affine_frames import formed
from predictions import predictor
from tests import runs
from training import config as training_config


def power_mean(frames, mask, power):
  """The power mean of a video's frames, float32 [B, D]; 0 of an empty one."""
  weights = tf.cast(mask, tf.float32)[:, :, tf.newaxis]
  count = tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
  powers = tf.maximum(tf.abs(frames), 1e-6) ** power
  mean = tf.reduce_sum(weights * powers, axis=1) / count
  return tf.maximum(mean, 1e-6) ** (1.0 / power)


class PowerMeanModel(pooled.PooledModel):
  """A power mean of the frames."""

  @dataclasses.dataclass(frozen=True)
  class Config(configs.Pooled, group="Power mean"):
    """The flags."""

    iterations: int = 7
    mean_power: float = flag_fields.real(2.0, "Which mean.", low=1.0)

  def _pool(self, frames, mask, name, mode):
    del name, mode
    return power_mean(formed(frames), mask, self.config.mean_power), []


@pytest.fixture
def own_registry(monkeypatch):
  """What a test registers is forgotten after it."""
  monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
  monkeypatch.setattr(registry, "_ALIASES", dict(registry._ALIASES))


@pytest.fixture
def toy(own_registry):
  registry.register(aliases=("Toy",))(PowerMeanModel)


def _parse(*args):
  own = flags.FlagValues()
  model_flags.define(own)
  own(["prog", *args])
  return own


def test_every_model_is_registered_by_importing_the_package():
  assert "NetVLADModelLF" in registry.names()
  assert issubclass(registry.get("NetVladV2"), models.BaseModel)
  assert registry.names(is_frame_level=False) == [
    "ChainMoeModel",
    "LogisticModel",
    "MoeModel",
  ]
  assert "NetVladV2" in set(registry.choices()) - set(registry.names())


def test_every_model_is_documented_and_has_a_configuration():
  for name in registry.names():
    cls = registry.get(name)
    assert cls.__doc__, f"{name} needs a docstring: --help={name} shows it."
    assert issubclass(cls.Config, flag_fields.Config), name
    for spec in flag_fields.specs(cls.Config).values():
      assert spec.help, f"--{spec.name} of {name} needs a help text."
      assert spec.group, (
        f"--help has no place for --{spec.name}: what makes it, such as "
        f'{name}.Config, needs a group: class Config(..., group="Model").'
      )


def _subclasses(cls):
  for sub in cls.__subclasses__():
    yield sub
    yield from _subclasses(sub)


def test_every_model_of_the_package_is_registered():
  known = {registry.get(name) for name in registry.choices()}
  for cls in set(_subclasses(base.BaseModel)) - {mixture.MixtureModel, *known}:
    # Others inherit from what is not.
    if cls.__module__.startswith("models.") and not cls.__subclasses__():
      raise AssertionError(
        f"No program finds {cls.__name__}: write @registry.register() above it "
        f"in {cls.__module__}."
      )


def _taken():
  """{name: (whose, spec)} of flags beside which programs define the models'."""
  configs = {
    "train.py": training_config.Config,
    "eval.py": eval_program.Config,
    "inference.py": inference.Config,
    "data_flags.py": data_flags.Reading,
    "model_flags.py": model_flags.Choice,
    "models/mixture.py": mixture.Config,
  }
  found = {name: ("losses.py", spec) for name, spec in losses.specs().items()}
  for owner, config_class in configs.items():
    for spec in flag_fields.specs(config_class).values():
      for name in {spec.name, spec.alias or spec.name}:
        found[name] = (owner, spec)
  return found


def test_no_flag_of_a_model_is_one_of_a_program():
  taken = _taken()
  for name in registry.choices():
    for flag, spec in flag_fields.specs(registry.get(name).Config).items():
      owner, other = taken.get(flag, ("", spec))
      assert spec is other, (
        f"--{flag} of {name} is {owner}'s already: rename it."
      )


@pytest.mark.parametrize(
  ("name", "aliases"),
  [("MoeModel", ()), ("NetVladV1", ()), ("New", ("MoeModel",))],
)
def test_a_name_that_is_taken_is_refused(own_registry, name, aliases):
  cls = type(name, (base.BaseModel,), {"is_frame_level": False})
  with pytest.raises(ValueError, match="There is a model "):
    registry.register(aliases=aliases)(cls)


def test_a_flag_that_another_model_has_is_refused(own_registry):
  @dataclasses.dataclass(frozen=True)
  class Config(flag_fields.Config, group="Model"):
    moe_l2: float = flag_fields.real(0.5, "Another.")

  members = {"Config": Config, "is_frame_level": False}
  with pytest.raises(ValueError, match="--moe_l2 of New is a flag of another"):
    registry.register()(type("New", (base.BaseModel,), members))
  # The same flag, with a default of its own.
  Config = dataclasses.make_dataclass(
    "Config",
    [("moe_l2", float, 0.5)],
    bases=(registry.get("MoeModel").Config,),
    frozen=True,
  )
  registry.register()(
    type("New", (base.BaseModel,), {**members, "Config": Config})
  )
  assert model_flags.from_flags(_parse("--model=New"))["moe_l2"] == 0.5


def test_a_new_model_has_its_flags_and_its_help(toy):
  values = model_flags.from_flags(_parse("--model=Toy", "--mean_power=3"))
  assert values["model"] == "PowerMeanModel"
  assert (values["mean_power"], values["iterations"]) == (3.0, 7)
  own = _parse()
  assert "PowerMeanModel" in own["model"].parser.enum_values
  everything = flag_help.of_program("", own)
  assert "\nPower mean:\n  --mean_power=X  (default: 2.0)" in everything
  assert "7 in PowerMeanModel." in " ".join(everything.split())
  text = flag_help.of_topic("Toy", own)
  assert "A power mean of the frames." in text
  assert "--frame_features=True" in text
  for flag in ("iterations=N  (default: 7)", "mean_power", "moe_num_mixtures"):
    assert f"--{flag}" in text
  assert "--transformer_head_size" not in text


@pytest.mark.slow
def test_a_new_model_is_trained_evaluated_inferred_and_exported(toy, tmp_path):
  pattern = runs.write_data(tmp_path / "data")
  directory = tmp_path / "model"
  checkpoint = runs.run_train(
    directory, pattern, model="PowerMeanModel", mean_power=3.0, max_steps=2
  )
  assert model_flags.load(str(directory))["mean_power"] == 3.0
  assert runs.run_eval(directory, pattern)["num_videos"] == 12
  assert runs.run_infer(directory, pattern, tmp_path / "x.csv") == (12, [])
  values = model_flags.load(str(directory))
  predictor.export(checkpoint, values, str(tmp_path / "exported"))
  assert (tmp_path / "exported" / "saved_model.pb").exists()
