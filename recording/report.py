"""What make_records.py says at its end: what was written, and what to run."""

import collections
import dataclasses
import glob
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from recording import clip_labels
from records import features_file

FILE_NAME = "report.txt"
# train.py reads so many frames of a video if nothing else is said.
_MAX_FRAMES = 300
_SHOWN = 5
# Of the training that is proposed: minutes without a GPU.
_STEPS, _BATCH, _FRAMES = 600, 32, 64
_MIN_EPOCHS = 5


@dataclasses.dataclass(frozen=True)
class Facts:
  """What there is to report.

  Attributes:
    output_dir: str.
    features: str, where the clips came from.
    description: `features_file.Description`.
    notes: {feature: what was measured, in words}.
    labels: `clip_labels.Labels`, or None.
    names: of the classes.
    strays: ids of the table of labels that no file has.
    num_unlisted: clips that the table of labels lacks, left out.
    num_cut: clips whose features had different numbers of frames.
    skipped: list of (file, why).
    parts: {part: dict of `clips`, `frames`, `longest`, `unlabelled`,
      `outside`, {feature: numbers}, and `labels`, {class: clips}}.
    example: a file to predict for, or "".
  """

  output_dir: str
  features: str
  description: features_file.Description
  notes: Mapping[str, str]
  labels: clip_labels.Labels | None
  names: Sequence[str]
  strays: Sequence[str]
  num_unlisted: int
  num_cut: int
  skipped: Sequence[tuple[str, str]]
  parts: Mapping[str, Mapping[str, Any]]
  example: str

  def total(self, key: str) -> int:
    """The sum over the parts."""
    return sum(part[key] for part in self.parts.values())

  def longest(self) -> int:
    """The frames of the longest clip."""
    return max((part["longest"] for part in self.parts.values()), default=0)


def totals(
  shards: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
  """`Facts.parts` of what is known of each shard."""
  found: dict[str, dict[str, Any]] = {}
  for file, shard in shards.items():
    part = found.setdefault(
      file.split("-")[0],
      {"clips": 0, "frames": 0, "longest": 0, "unlabelled": 0,
       "outside": collections.Counter(), "labels": collections.Counter()},
    )  # fmt: skip
    for key in ("clips", "frames", "unlabelled"):
      part[key] += shard[key]
    part["longest"] = max(part["longest"], shard["longest"])
    part["outside"].update(shard["outside"])
    part["labels"].update(shard["labels"])
  return found


def counts(facts: Facts, part: str = "") -> list[int]:
  """Clips of each class, of a part or of all."""
  return [
    sum(
      own["labels"].get(str(i), 0)
      for name, own in facts.parts.items()
      if part in ("", name)
    )
    for i in range(len(facts.names))
  ]


def text(facts: Facts) -> str:
  """The report."""
  parts = ", ".join(f"{n} {own['clips']}" for n, own in facts.parts.items())
  lines = [
    f"{facts.total('clips')} clips in {facts.output_dir}: {parts}.",
    f"{facts.total('frames')} frames, {facts.longest()} in the longest clip.",
    *(_feature_line(facts, each) for each in facts.description.features),
  ]
  if facts.num_cut:
    lines.append(
      f"{facts.num_cut} clips have features of different lengths: cut to the "
      "shortest."
    )
  lines += _label_lines(facts)
  if facts.skipped:
    lines.append(f"Skipped: {len(facts.skipped)}, listed in skipped.csv:")
    lines += [f"  {file}: {why}" for file, why in facts.skipped[:_SHOWN]]
  return "\n".join(lines) + "\n"


def _feature_line(facts, feature):
  line = f"Feature {feature.name}: {feature.size} numbers a frame, "
  if feature.dtype != "uint8":
    return f"{line}stored as {feature.dtype}."
  numbers = facts.total("frames") * feature.size
  outside = sum(own["outside"][feature.name] for own in facts.parts.values())
  line += (
    f"bytes over {feature.low:.4g} to {feature.high:.4g}; "
    f"{outside / max(numbers, 1):.2%} of the numbers lie outside and are cut "
    "to that"
  )
  note = facts.notes.get(feature.name)
  return f"{line}; {note}." if note else f"{line}."


def _label_lines(facts):
  """What there is to say of labels."""
  labels = facts.labels
  if labels is None:
    return ["Without labels: the clips are to predict for, not to train on."]
  of_all = counts(facts)
  order = sorted(range(len(of_all)), key=lambda i: (-of_all[i], i))
  few = [f"{facts.names[i]} {of_all[i]}" for i in order[:_SHOWN]]
  clips = max(facts.total("clips"), 1)
  lines = [
    f"{len(of_all)} classes, {sum(of_all) / clips:.2f} a clip; the most "
    f"frequent: {', '.join(few)}."
  ]
  untaught = [
    facts.names[i] for i, n in enumerate(counts(facts, "train")) if not n
  ]
  if untaught:
    lines.append(
      f"No training clip has {_some(untaught)}: these can't be learnt."
    )
  if number := facts.total("unlabelled"):
    lines.append(
      f"{number} clips are listed without a label: no class is right for them."
    )
  if facts.num_unlisted:
    lines.append(
      f"{facts.num_unlisted} clips that --labels does not list are left out."
    )
  if facts.strays:
    lines.append(f"No clip has the ids {_some(facts.strays)} of --labels.")
  if labels.unknown:
    lines.append(
      f"Labels left out, as --like does not know them: {_some(labels.unknown)}."
    )
  if labels.unused:
    lines.append(f"Columns of --labels not used: {_some(labels.unused)}.")
  return lines


def _some(values):
  """The first of some values, and how many there are."""
  values = list(values)
  shown = ", ".join(map(str, values[:_SHOWN]))
  more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
  return shown + more


def table(facts: Facts) -> str:
  """Clips of each class in each part, for the file."""
  if facts.labels is None:
    return ""
  parts = list(facts.parts)
  columns = [counts(facts, part) for part in parts]
  lines = ["", "\t".join(["class", *parts])]
  lines += [
    "\t".join([name, *(str(column[i]) for column in columns)])
    for i, name in enumerate(facts.names)
  ]
  return "\n".join(lines) + "\n"


def commands(facts: Facts) -> str:
  """The commands that go on from here; "" if there is nothing to train on."""
  train = facts.parts.get("train")
  if facts.labels is None or not train or not train["clips"]:
    return ""
  name = os.path.basename(os.path.abspath(facts.output_dir))
  train_dir = shlex.quote(os.path.join("runs", name))

  def pattern(part):
    return shlex.quote(os.path.join(facts.output_dir, f"{part}-*.tfrecord"))

  batch = min(_BATCH, max(2, train["clips"] // 4))
  epochs = max(_MIN_EPOCHS, round(_STEPS * batch / train["clips"]))
  longest = facts.longest()
  lines = [
    "Train, evaluate and predict:",
    "",
    f"python train.py --train_dir={train_dir} \\",
    f"  --train_data_pattern={pattern('train')} \\",
    *(_model_lines(longest)),
    f"  --batch_size={batch} --num_epochs={epochs} "
    "--base_learning_rate=0.001 --save_checkpoints_steps=200",
  ]
  held = [part for part in ("validate", "test") if part in facts.parts]
  if held:
    lines += [
      f"python eval.py --train_dir={train_dir} --run_once \\",
      f"  --eval_data_pattern={pattern(held[0])}",
    ]
  # One file, as predict.py takes no patterns.
  last = glob.glob(
    os.path.join(glob.escape(facts.output_dir), f"{[*facts.parts][-1]}-*")
  )
  example = shlex.quote(facts.example or min(last))
  lines.append(f"python predict.py --model={train_dir} {example}")
  return "\n".join(lines) + "\n"


def _model_lines(longest):
  """The model for clips of up to so many frames."""
  if longest == 1:
    return ["  --model=MeanModel \\"]
  more = f" --max_frames={longest}" if longest > _MAX_FRAMES else ""
  iterations = min(longest, _FRAMES)
  return [
    f"  --model=NetVLADModelLF --iterations={iterations}{more} \\",
    "  --netvlad_cluster_size=8 --netvlad_hidden_size=64 --gating=True \\",
  ]
