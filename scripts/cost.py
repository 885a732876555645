"""What an epoch of YouTube-8M costs on GPUs, from counted operations.

  python scripts/cost.py
  python scripts/cost.py --models=gated-netvlad-256 --share_of_peak=0.4 \\
      --precision=tf32 --cores=32
  python scripts/cost.py --check

A training step of each model is run here, at its published sizes on two batch
sizes, and the operations of its matrix products and the bytes that its
operations read and write are counted in the trace; both are linear in the
batch. A step then takes

    operations / (peak * share_of_peak)
    + bytes / (bandwidth * share_of_bandwidth)
    + the bytes of a ring's all-reduce / link

Input bounds it: by what the storage gives, and by what the cores can parse.
Peaks are those of the makers' data sheets. --check runs a model for some steps
here, with this machine's own speed at one large product and one large copy, and
prints the seconds that the formula says beside those that it takes.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import statistics
import tempfile
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from console import flag_fields
from scripts import markdown, measuring, sizes

_GPUS = (1, 2, 4, 8)
# Batches whose steps are counted.
_COUNTED = (2, 4)
# Bytes of the array that is copied.
_COPIED = 1 << 28


class Chip(NamedTuple):
  """Tera-operations a second by precision, GB/s of memory and of its links."""

  tflops: dict[str, float]
  bandwidth: float
  link: float


# NVIDIA's data sheets: "Tesla P100" (SXM2), "A100 80GB" and "H100" (both SXM);
# tensor cores without sparsity. Links are NVLink's, both directions together.
CHIPS = {
  "P100": Chip({"float32": 10.6, "tf32": 10.6, "bfloat16": 10.6}, 732, 160),
  "A100": Chip({"float32": 19.5, "tf32": 156, "bfloat16": 312}, 2039, 600),
  "H100": Chip({"float32": 67, "tf32": 494.7, "bfloat16": 989.4}, 3350, 900),
}


@dataclasses.dataclass(frozen=True)
class _Machine(flag_fields.Config, group="Machine"):
  """What is known, or assumed, of the machine."""

  precision: str = flag_fields.choice(
    "float32", ["float32", "tf32", "bfloat16"], "Of the matrix products."
  )
  share_of_peak: float = flag_fields.real(
    0.5,
    "What matrix products take of the peak: an assumption, until "
    "scripts/gpu_check.sh has measured it on the GPU.",
    low=0.001,
    high=1.0,
  )
  share_of_bandwidth: float = flag_fields.real(
    0.7, "The same of the memory's bandwidth: an assumption.", low=0.001, high=1
  )
  cores: int = flag_fields.integer(16, "Cores that read, of all GPUs.", low=1)
  videos_per_core: float = flag_fields.real(
    2870.0,
    "Videos a second that a core reads and parses (scripts/benchmark.py "
    "--cases=input, over the cores).",
    low=0.001,
  )
  storage_gb: float = flag_fields.real(
    2.0, "GB a second that the storage gives.", low=0.001
  )


@dataclasses.dataclass(frozen=True)
class Config(_Machine, group="What"):
  """What cost.py is told."""

  models: str = flag_fields.text(
    "gated-netvlad-256,nextvlad-128,AttentionNetVLADModel,SecondOrderModel",
    "Comma-separated models, as of scripts/benchmark.py --models.",
  )
  videos: float = flag_fields.real(3.9e6, "Training videos.", low=1)
  terabytes: float = flag_fields.real(1.5, "Their records.", low=1e-6)
  gpu_batch: int = flag_fields.integer(80, "Videos a step of a GPU.", low=1)
  clusters: int = flag_fields.integer(256, "Centres.", low=1)
  hidden_size: int = flag_fields.integer(1024, "Units after pooling.", low=1)
  frames: int = flag_fields.integer(256, "Frames sampled of a video.", low=1)
  feature_sizes: str = flag_fields.integers("1024,128", "Of rgb and audio.")
  num_classes: int = flag_fields.integer(3862, "Classes.", low=3)
  check: bool = flag_fields.boolean(False, "Compare with a run on this CPU.")


class Counted(NamedTuple):
  """Of a training step: what it takes by itself, and more for each video."""

  parameter_bytes: float
  flops: tuple[float, float]
  moved: tuple[float, float]

  def seconds(self, batch: int, peak: float, bandwidth: float) -> float:
    """A step's time, by operations and bytes a second."""
    flops, moved = (a + b * batch for a, b in (self.flops, self.moved))
    return flops / peak + moved / bandwidth


# They hand on what is there, or only say where or how much.
_FREE = frozenset(
  "Const Enter Exit ExpandDims Identity IdentityN Merge NextIteration NoOp "
  "Placeholder ReadVariableOp Reshape Shape Squeeze StopGradient Switch "
  "VarHandleOp _Arg _Recv _Retval _Send".split()
)


def moved_bytes(trace: tf.RunMetadata) -> float:
  """Bytes that a run's operations read and wrote, as if none was in a cache."""
  made: dict[str, float] = {}
  for device in trace.step_stats.dev_stats:
    for run in device.node_stats:
      for output in run.output:
        found = output.tensor_description
        size = tf.as_dtype(found.dtype).size * np.prod(
          [dim.size for dim in found.shape.dim], dtype=float
        )
        key = f"{run.node_name}:{output.slot}"
        made[key] = made.get(key, 0.0) + size
  total = 0.0
  for graph in trace.partition_graphs:
    for node in graph.node:
      if node.op in _FREE:
        continue
      read = sum(
        made.get(name if ":" in name else f"{name}:0", 0.0)
        for name in node.input
        if not name.startswith("^")
      )
      # An optimiser reads and writes two slots and the variable.
      total += read * (7 if node.op == "ResourceApplyAdam" else 1)
      total += sum(made.get(f"{node.name}:{i}", 0.0) for i in range(4))
  return total


def _step(settings, model, batch):
  """Context of a model's steps, see `measuring.Training`."""
  given = sizes.train_flags(settings, model, batch_size=batch)
  return measuring.begin(measuring.make_trainer(given)[0])


def _settings(config, directory, **changes):
  """`sizes.Settings` with made data of the longest videos."""
  names = ("clusters", "hidden_size", "frames", "feature_sizes", "num_classes")
  own = {name: getattr(config, name) for name in names}
  settings = sizes.Settings(
    **{**own, "data_dir": directory, "num_videos": 32, **changes}
  )
  sizes.make_data(settings)
  return settings


def count(settings: sizes.Settings, model: str) -> Counted:
  """Counts the operations and bytes of a model's training step."""
  flops, moved = [], []
  for batch in _COUNTED:
    with _step(settings, model, batch) as training:
      trace = training.trace()
      flops.append(measuring.count_flops(trace))
      moved.append(moved_bytes(trace))
      size = sum(v.shape.num_elements() for v in tf.trainable_variables())

  def line(values):
    slope = (values[1] - values[0]) / (_COUNTED[1] - _COUNTED[0])
    return values[0] - slope * _COUNTED[0], slope

  return Counted(4.0 * size, line(flops), line(moved))


class Epoch(NamedTuple):
  """An epoch on some GPUs: its hours, and what bounds it."""

  hours: float
  limit: str
  rate: float  # Videos a second that the GPUs could take.


def epoch(config: Config, counted: Counted, chip: Chip, gpus: int) -> Epoch:
  """What an epoch takes."""
  step = counted.seconds(
    config.gpu_batch,
    1e12 * chip.tflops[config.precision] * config.share_of_peak,
    1e9 * chip.bandwidth * config.share_of_bandwidth,
  )
  # A ring sends each byte so often; a link's two directions carry half each.
  ring = 2 * (gpus - 1) / gpus * counted.parameter_bytes
  step += ring / (1e9 * chip.link / 2)
  rates = {
    "GPU": gpus * config.gpu_batch / step,
    "cores": config.cores * config.videos_per_core,
    "storage": 1e-3 * config.storage_gb / config.terabytes * config.videos,
  }
  limit = min(rates, key=lambda name: rates[name])
  return Epoch(config.videos / rates[limit] / 3600, limit, rates["GPU"])


def table(config: Config, counts: dict[str, Counted]) -> str:
  """A row a model and chip."""
  titles = ["model", "GPU", *(f"{n} GPU" for n in _GPUS)]
  titles += ["cores to keep 8 busy", "GB/s of storage"]
  rows = []
  for model, counted in counts.items():
    for name, chip in CHIPS.items():
      found = [epoch(config, counted, chip, gpus) for gpus in _GPUS]
      rate = found[-1].rate
      rows.append(
        [
          model,
          name,
          *(
            f"{each.hours:.2f} h" + f" ({each.limit})" * (each.limit != "GPU")
            for each in found
          ),
          f"{rate / config.videos_per_core:.1f}",
          f"{1e3 * config.terabytes * rate / config.videos:.2f}",
        ]
      )
  return markdown.table(titles, rows)


def told(config: Config, counts: dict[str, Counted]) -> str:
  """What was counted, and what input costs whatever the model."""
  rows = []
  for model, counted in counts.items():
    moved = counted.moved[0] + config.gpu_batch * counted.moved[1]
    rows.append(
      [
        model,
        f"{counted.parameter_bytes / 4e6:.1f}",
        f"{counted.flops[1] / 1e9:.1f}",
        f"{counted.flops[1] * config.videos / 1e15:,.0f}",
        f"{moved / 1e9:.1f}",
      ]
    )
  titles = [
    "model", "million parameters", "GFLOP a video", "PFLOP an epoch",
    f"GB moved a step of {config.gpu_batch}",
  ]  # fmt: skip
  hours = 1e3 * config.terabytes / config.storage_gb / 3600
  cpu = config.videos / config.videos_per_core / 3600
  return (
    markdown.table(titles, rows)
    + f"\n\nReading {config.terabytes:g} TB takes {hours:.2f} h at "
    f"{config.storage_gb:g} GB/s, parsing it {cpu:.2f} core hours: "
    f"{cpu / config.cores:.2f} h on {config.cores} cores."
  )


def check(config: Config, settings: sizes.Settings, model: str) -> str:
  """The formula on this CPU beside a run: predicted and measured seconds."""
  counted = count(settings, model)
  array = np.ones(_COPIED // 4, np.float32)
  with measuring.large_product() as (product, flops):
    with _step(settings, model, settings.batch_size) as training:
      ways = {"step": training.take, "product": product, "copy": array.copy}
      found = measuring.measure(ways, settings.seconds)
  peak = flops / min(found["product"])
  bandwidth = 2.0 * _COPIED / min(found["copy"])
  predicted = counted.seconds(settings.batch_size, peak, bandwidth)
  measured = statistics.median(found["step"])
  return (
    f"{model}, {settings.batch_size} videos a step: {peak / 1e9:.0f} GFLOP/s "
    f"and {bandwidth / 1e9:.1f} GB/s here give {predicted:.3f} s; a step takes "
    f"{measured:.3f} s: measured / predicted = {measured / predicted:.2f}."
  )


def main():
  """Counts and prints, or checks."""
  config = flag_fields.from_flags(Config)
  models = flag_fields.parse_names(config.models)
  with tempfile.TemporaryDirectory() as directory:
    if config.check:
      own = {"clusters": 64, "hidden_size": 512, "frames": 64}
      settings = _settings(config, directory, **own)
      for model in models:
        print(check(config, settings, model))
      return
    settings = _settings(config, directory)
    counts = {model: count(settings, model) for model in models}
  print(f"{told(config, counts)}\n\n{table(config, counts)}")


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
