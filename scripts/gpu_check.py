"""Checks and measures models on one GPU: a table in Markdown.

The parts, in turn, as far as --minutes reaches:

  models     a step of each model on the GPU and on the CPU, from the same
             weights and videos, without TF32: how far the updated variables are
             apart
  as it is   speed: a step of each model at the paper's sizes, on a batch in
             memory; then with --mixed_precision, --xla and both, the parts
             "mixed", "XLA" and "mixed XLA"
  batch      the most videos of a step that fit, by doubling
  layers     the tests of pooling/, which compare each layer and its gradient
             with loops, on the GPU, without TF32

All of them take an hour and more, most of it XLA's compiler: --parts, --models
and --minutes choose. The table is written after each figure.

`share of peak` is what a step's matrix products take of the speed of one large
product on the same device, in TF32 where the GPU has it. What fails is told in
its row; the exit status is 1 then. What there was no time for is left empty.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import functools
import shlex
import statistics
import subprocess
import tempfile
import time
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

import files
import model_flags
from console import flag_fields
from scripts import markdown, measuring, sizes

# Of the paper and of NeXtVLAD's, and what a test has time for.
_PAPER: dict[str, Any] = {
  "clusters": 256,
  "hidden_size": 1024,
  "frames": 300,
  "batch_size": 80,
}
_SMALL: dict[str, Any] = {
  "clusters": 4,
  "hidden_size": 8,
  "frames": 3,
  "batch_size": 4,
  "feature_sizes": "32,16",
  "max_frames": 9,
  "num_classes": 30,
  "num_videos": 17,
  "seconds": 0.0,
}
_VARIANTS: dict[str, dict[str, Any]] = {
  "as it is": {},
  "mixed": {"mixed_precision": True},
  "XLA": {"xla": True},
  "mixed XLA": {"mixed_precision": True, "xla": True},
}
_PARTS = ("models", *_VARIANTS, "batch", "layers")
# Without chance, which devices draw differently; updates are gradients.
_EXACT = {
  "transformer_dropout": 0.0,
  "descriptor_dropout": 0.0,
  "frame_sampling": "uniform",
  "optimizer": "GradientDescentOptimizer",
  "base_learning_rate": 1.0,
  "clip_gradient_norm": 0.0,
}
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="GPU check"):
  """All flags."""

  device: str = flag_fields.choice(
    "gpu", ("gpu", "cpu"), "What is checked: the first GPU, or the CPU."
  )
  small: bool = flag_fields.boolean(
    False, "Tiny sizes, to try the program itself."
  )
  models: str = flag_fields.text(
    "", "Comma-separated models; all if not given."
  )
  parts: str = flag_fields.text(
    ",".join(_PARTS), "Comma-separated parts to go through."
  )
  layer_tests: str = flag_fields.text(
    "tests/pooling -m 'not slow'", "What pytest is given."
  )
  minutes: float = flag_fields.real(
    9.0, "Nothing is begun after so many.", low=0
  )
  max_batch_size: int = flag_fields.integer(
    4096, "Largest batch that is tried.", low=1
  )
  output: str = flag_fields.path("gpu_check.md", "The file to write.")

  def __post_init__(self):
    super().__post_init__()
    unknown = set(flag_fields.parse_names(self.parts)) - set(_PARTS)
    if unknown:
      raise ValueError(
        f"--parts: {', '.join(sorted(unknown))}: not among {', '.join(_PARTS)}."
      )

  @property
  def is_gpu(self) -> bool:
    """Whether a GPU is checked."""
    return self.device == "gpu"


class Check:
  """Goes through the parts, and keeps what they find."""

  def __init__(self, config: Config, data_dir: str):
    """Makes the data.

    Args:
      config: `Config`.
      data_dir: where synthetic records go.
    """
    self._config = config
    self._end = time.monotonic() + 60 * config.minutes
    own = _SMALL if config.small else {**_PAPER, "seconds": 1.0}
    self._sizes, self._tiny = (
      sizes.Settings(data_dir=os.path.join(data_dir, name), **each)
      for name, each in (("speed", own), ("models", _SMALL))
    )
    sizes.make_data(self._sizes)
    sizes.make_data(self._tiny)
    self.models = flag_fields.parse_names(config.models)
    self.models = self.models or model_flags.model_names()
    self.columns: list[str] = []
    self.rows: dict[str, dict[str, str]] = {name: {} for name in self.models}
    self.notes: list[str] = []
    self.failures = 0

  def run(self) -> None:
    """All parts, as far as the time reaches."""
    parts = flag_fields.parse_names(self._config.parts)
    if "models" in parts:
      self._each("CPU and device differ by", self._compare)
    variants = {name: _VARIANTS[name] for name in _VARIANTS if name in parts}
    mixed = {"mixed_precision" in flags for flags in variants.values()}
    peaks = {each: self._product(each) for each in sorted(mixed)}
    for variant, flags in variants.items():
      peak = peaks["mixed_precision" in flags]
      self._each(
        f"{variant}: examples/s, share of peak, GB",
        functools.partial(self._speed, flags=flags, peak=peak),
      )
    if "batch" in parts:
      self._each("largest batch", self._largest_batch)
    if "layers" in parts and time.monotonic() < self._end:
      self.notes.append(f"Layers: {self._test_layers()}.")

  def _each(self, column, part):
    self.columns.append(column)
    for name in self.models:
      if time.monotonic() > self._end:
        return
      try:
        self.rows[name][column] = part(name)
      except Exception as error:  # The other rows are told.
        self.failures += 1
        text = str(error).strip().splitlines() or [repr(error)]
        self.rows[name][column] = f"FAILED: {text[0][:200]}"
      print(f"{column} | {name} | {self.rows[name][column]}", flush=True)
      self.write()

  def _test_layers(self):
    """The last line of pytest."""
    environment = {
      **os.environ,
      "NVIDIA_TF32_OVERRIDE": "0",
      "TF_FORCE_GPU_ALLOW_GROWTH": "true",
      **({} if self._config.is_gpu else {"CUDA_VISIBLE_DEVICES": "-1"}),
    }
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(
      [sys.executable, *words, *shlex.split(self._config.layer_tests)],
      env=environment,
      capture_output=True,
      text=True,
    )
    self.failures += found.returncode != 0
    return (found.stdout.strip().splitlines() or ["pytest did not run"])[-1]

  def _trainer(self, settings, name, **flags):
    tf.config.experimental.enable_tensor_float_32_execution(True)
    given = sizes.train_flags(settings, name, **flags)
    return measuring.make_trainer(given)[0]

  def _compare(self, name):
    """How far a step's updates on device and CPU are apart, at most."""
    start: dict[str, Any] = {}
    stored: dict[str, Any] = {}
    ends = []
    for num_gpu in (0, int(self._config.is_gpu)):
      trainer = self._trainer(self._tiny, name, **_EXACT, num_gpu=num_gpu)
      with measuring.begin(trainer) as training:
        tf.config.experimental.enable_tensor_float_32_execution(False)
        session = training.session
        variables = {v.op.name: v for v in training.built.model_variables}
        if not start:
          start, stored = session.run(variables), training.stored
        training.stored = stored
        training.refill()
        for variable in variables:
          variables[variable].load(start[variable], session)
        training.fed()
        ends.append(session.run(variables))
    found = _apart(*([end[v] for v in start] for end in (start, *ends)))
    if not found < _TOLERANCE:
      raise ValueError(f"{found:.1e} of the update, more than {_TOLERANCE}.")
    return f"{found:.0e}"

  def _product(self, mixed):
    """Operations a second of one large product."""
    dtype = tf.bfloat16 if mixed else tf.float32
    size = 512 if self._config.small or not self._config.is_gpu else 8192
    with measuring.large_product(size, dtype) as (product, flops):
      seconds = measuring.measure({"": product}, self._sizes.seconds)[""]
    rate = flops / min(seconds)
    kind = "bfloat16" if mixed else "float32, TF32 where it is"
    self.notes.append(f"A large product ({kind}): {rate / 1e12:.2f} TFLOP/s.")
    return rate

  def _speed(self, name, flags, peak):
    trainer = self._trainer(
      self._sizes, name, **flags, num_gpu=int(self._config.is_gpu)
    )
    xla = flags.get("xla", False)
    with measuring.begin(trainer, xla=xla) as training:
      seconds = statistics.median(
        measuring.measure({"": training.fed}, self._sizes.seconds)[""]
      )
      trace = training.trace()
      rate = len(training.stored["num_frames"]) / seconds
      # XLA's products have no trace of their own.
      share = measuring.count_flops(trace) / seconds / peak
      memory = measuring.memory_in_use(trace, self._config.is_gpu)
    shown = "" if xla else f", {share:.2f}"
    return f"{rate:,.0f}{shown}" + (f", {memory / 1e9:.1f}" if memory else "")

  def _largest_batch(self, name):
    """Doubles a batch until it does not fit."""
    fits = 0
    trainer = self._trainer(self._sizes, name, num_gpu=int(self._config.is_gpu))
    with measuring.begin(trainer) as training:
      while time.monotonic() < self._end:
        number = len(training.stored["num_frames"])
        if number > self._config.max_batch_size:
          break
        try:
          training.refill()
          training.fed()
        except tf.errors.ResourceExhaustedError:
          return f"{fits:,}"
        fits = number
        training.stored = {
          key: np.concatenate([value] * 2) if np.ndim(value) else value
          for key, value in training.stored.items()
        }
    return f"{fits:,} or more"

  def write(self) -> None:
    """Writes what is known so far."""
    files.write_text(self._config.output, self.text() + "\n")

  def text(self) -> str:
    """The table, and what it was measured on."""
    machine = measuring.describe_machine()
    told = [f"{key} {value}" for key, value in machine.items() if value]
    lines = [
      [name, *(row.get(column, "") for column in self.columns)]
      for name, row in self.rows.items()
    ]
    own = {key: getattr(self._sizes, key) for key in _PAPER}
    return "\n\n".join(
      [
        f"Machine: {', '.join(told)}.",
        *self.notes,
        f"Sizes: {own}.",
        markdown.table(["model", *self.columns], lines),
      ]
    )


def _apart(starts, ones, others):
  """The largest distance of two updates of a variable over their size.

  What is only rounding counts as no update: that of weights by their size, and
  that of an update which is 0 by theory, such as that of an offset before batch
  normalisation, by the largest update.

  Args:
    starts: list of arrays, variables before a step.
    ones: list of arrays, after it.
    others: list of arrays, after it elsewhere.
  """
  norm = np.linalg.norm
  sizes = [norm(one - start) for start, one in zip(starts, ones)]
  found = [
    norm(one - other) / (size + 1e-3 * (norm(start) + max(sizes)) + 1e-6)
    for start, one, other, size in zip(starts, ones, others, sizes)
  ]
  # `max` may pass over NaN.
  return float(np.max(found))


def main() -> int:
  """Checks, measures and writes: the exit status."""
  config = flag_fields.from_flags(Config)
  if config.is_gpu and not program.gpus():
    raise program.UserError(
      "TensorFlow finds no GPU: install its CUDA libraries with "
      "pip install -c constraints.txt -e '.[gpu]', or give --device=cpu."
    )
  with tempfile.TemporaryDirectory() as directory:
    check = Check(config, directory)
    try:
      check.run()
    finally:
      check.write()
      print(f"\n{check.text()}\n\nWrote {config.output}.")
  return program.FAILED if check.failures else 0


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
