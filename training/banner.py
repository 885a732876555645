"""What a run says when it begins and when it has ended: what, and what next."""

import os
import shlex

import tensorflow.compat.v1 as tf

from checkpoints import evaluations
from console import flag_fields, program


def begin(values, built, devices, *, videos, files, batch_size, steps):
  """What is trained, on what, where: str, some lines.

  Args:
    values: dict of the model flags.
    built: `graph.Graph`.
    devices: `placement.Devices`.
    videos: int, about how many there are; 0 if unknown.
    files: int.
    batch_size: int, videos of a step.
    steps: (int, int or None), where the run is and where it ends, about.
  """
  names = flag_fields.parse_names(values["feature_names"])
  sizes = flag_fields.parse_ints(values["feature_sizes"])
  features = ", ".join(f"{name} {size}" for name, size in zip(names, sizes))
  kind = "frames" if values["frame_features"] else "one vector a video"
  number = f"about {videos:,}" if videos else "an unknown number of"
  held_out = values["holdout_fraction"]
  start, end = steps
  rows = {
    "model": f"{values['model']}, {built.num_parameters:,} parameters, "
    f"{values['num_classes']:,} classes",
    "videos": f"{number} in {files:,} files, {batch_size:,} a step"
    + (f", {held_out:.0%} held out" if held_out else ""),
    "features": f"{features} ({kind})",
    "devices": f"{_machine()}; {len(devices.towers)} in use",
    "steps": f"{start:,} to {f'{end:,}' if end else 'whatever comes'}",
  }
  return "\n".join(f"  {name:9} {text}" for name, text in rows.items())


def _machine():
  """The GPUs, or the processor."""
  found = [
    tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    for gpu in program.gpus()
  ]
  if not found:
    return f"processor, {os.cpu_count()} cores, no GPU"
  return ", ".join(f"{found.count(name)} x {name}" for name in sorted({*found}))


def end(train_dir, train_pattern):
  """What to do next, and the best GAP so far: str, some lines.

  Args:
    train_dir: str.
    train_pattern: str, the files that were trained on.
  """
  rows = {
    "evaluate": f"python eval.py --train_dir={shlex.quote(train_dir)} "
    f"--run_once --eval_data_pattern={shlex.quote(_other(train_pattern))}",
    "look at": "tensorboard --logdir="
    + shlex.quote(os.path.dirname(os.path.abspath(train_dir))),
  }
  directory = os.path.join(train_dir, evaluations.DIRECTORY)
  if best := evaluations.find_best(directory, ""):
    rows["best GAP"] = f"{best['gap']:.4f}, of step {best['step']}"
  return "\n".join(f"  {name:9} {text}" for name, text in rows.items())


def _other(train_pattern):
  """The files to evaluate on, if they are named as YouTube-8M's are."""
  for name in ("validate", "validation", "test"):
    head, train, tail = train_pattern.rpartition("train")
    pattern = f"{head}{name}{tail}"
    if train and "," not in pattern and tf.io.gfile.glob(pattern):
      return pattern
  return "VALIDATION_FILES"
