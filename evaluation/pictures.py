"""What a checkpoint makes of a few fixed videos: names, and pictures of why.

Axes: B videos, T frames, K centres or means, H heads.
"""

import base64
import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from tensorboard.plugins.histogram import summary_v2 as histogram

import files
from pooling import observe
from predictions import predictor

# Videos that the use of centres is told of; the first of them are shown.
_VIDEOS = 64
_PREDICTIONS = 5
# Maps of a video; models with many layers have more.
_MAPS = 12
# About how large a picture is to be, in pixels.
_WIDTH, _HEIGHT = 480, 160
# From nothing to much: the colours between which a map's are mixed.
_COLOURS = np.array(
  [[13, 22, 60], [41, 74, 140], [58, 144, 156], [150, 200, 110], [253, 231, 80]]
)


class Map(NamedTuple):
  """A picture: columns are frames.

  Attributes:
    name: str, of the layer.
    kind: str, as `observe.Noted`'s.
    png: bytes.
  """

  name: str
  kind: str
  png: bytes


class Example(NamedTuple):
  """A video.

  Attributes:
    video_id: str.
    num_frames: int.
    labels: list of str, names.
    predictions: list of (str, float), the best first.
    maps: list of `Map`.
  """

  video_id: str
  num_frames: int
  labels: list
  predictions: list
  maps: list


class Look(NamedTuple):
  """What was seen.

  Attributes:
    examples: list of `Example`.
    usage: dict of a layer's name to float64 [K], the share of frames that each
      centre gets.
  """

  examples: list
  usage: dict


def look(checkpoint, values, paths, name, num_examples, holdout=False):
  """Looks at the first videos of some files.

  Args:
    checkpoint: path prefix.
    values: dict of the model flags.
    paths: list of str, the files.
    name: function of a class, its name.
    num_examples: int >= 1.
    holdout: bool, at those that training held out.

  Returns:
    `Look`.
  """
  data = {}
  if holdout:
    share = values["holdout_fraction"]
    data = {"holdout": True, "holdout_fraction": share}
  with contextlib.ExitStack() as stack:
    noted = stack.enter_context(observe.collecting())

    def fetch(batch, predictions):
      return _shown(batch, predictions, noted, num_examples)

    videos = stack.enter_context(
      predictor.Predictor(
        values,
        # One file after the other: the first videos are always the same.
        paths,
        fetch,
        batch_size=max(_VIDEOS, num_examples),
        num_readers=1,
        **data,
      )
    )
    videos.restore(checkpoint)
    found = videos.first()
  if found is None:
    return Look([], {})
  layers = _names(noted)
  assigned = [n for n, each in zip(layers, noted) if each.kind == "assignments"]
  usage = {
    n: np.asarray(sums, np.float64) / max(float(np.sum(sums)), 1e-30)
    for n, sums in zip(assigned, found["usage"])
  }
  return Look(_examples(found, noted, layers, name), usage)


def _shown(batch, predictions, noted, num_examples):
  """Tensors of the first videos, and of all how the centres are used."""
  classes, scores = predictor.top_k(predictions, _PREDICTIONS)
  shown = {
    **{key: batch[key] for key in ("video_ids", "num_frames", "labels")},
    "classes": classes,
    "scores": scores,
  }
  return {
    **{key: tensor[:num_examples] for key, tensor in shown.items()},
    "maps": [_map(each, num_examples) for each in noted[:_MAPS]],
    "usage": [
      tf.reduce_sum(each.tensors[0], axis=[0, 1])
      for each in noted
      if each.kind == "assignments"
    ],
  }


def _examples(found, noted, layers, name):
  """A list of `Example`.

  Args:
    found: dict, what `_shown` gave.
    noted: list of `observe.Noted`.
    layers: list of their names.
    name: function of a class, its name.
  """
  pictures = iter(
    _pictures(
      _real(each.kind, values[i])
      for i in range(len(found["video_ids"]))
      for each, values in zip(noted, found["maps"])
    )
  )
  return [
    Example(
      found["video_ids"][i].decode(errors="replace"),
      int(found["num_frames"][i]),
      [name(int(c)) for c in np.flatnonzero(found["labels"][i])],
      [
        (name(int(c)), float(s))
        for c, s in zip(found["classes"][i], found["scores"][i])
      ],
      [
        Map(layer, each.kind, next(pictures))
        for layer, each in zip(layers, noted[:_MAPS])
      ],
    )
    for i in range(len(found["video_ids"]))
  ]


def _map(noted, num_examples):
  """Tensor of the first videos' maps: float32 [B, rows, T]."""
  tensors = [tensor[:num_examples] for tensor in noted.tensors]
  if noted.kind != "attention":
    return tf.cast(tf.linalg.matrix_transpose(tensors[0]), tf.float32)
  queries, keys, mask = tensors
  logits = tf.matmul(queries, keys, transpose_b=True)  # [B, H, S, T]
  logits = tf.where_v2(mask[:, tf.newaxis, tf.newaxis], logits, -1e30)
  weights = tf.reduce_mean(tf.nn.softmax(logits), axis=1)
  return tf.cast(weights, tf.float32)


def _names(noted: list[observe.Noted]) -> list[str]:
  """A name for each that was noted, all different."""
  found: list[str] = []
  for each in noted:
    scope = re.sub(r"^\w+?/", "", each.scope) or each.kind
    same = sum(re.fullmatch(rf"{re.escape(scope)}( \d+)?", n) is not None
               for n in found)  # fmt: skip
    found.append(f"{scope} {same + 1}" if same else scope)
  return found


def _real(kind: str, values: NDArray) -> NDArray:
  """A map without padding: [rows, T], one column at least."""
  used = np.flatnonzero(values.max(axis=0) > 0)
  length = int(used[-1]) + 1 if used.size else 1
  values = values[:, :length]
  if kind == "attention" and len(values) > length:
    values = values[:length]  # Frames look at each other.
  return values


def _pictures(maps: Iterable[NDArray]) -> list[bytes]:
  """A PNG of each map, float [rows, T], each number a rectangle."""
  # A graph of its own: GPUs have other work.
  config = tf.ConfigProto(device_count={"GPU": 0})
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    images = [
      tf.image.encode_png(tf.constant(_pixels(values))) for values in maps
    ]
    # An empty graph can't be run.
    return session.run(images) if images else []


def _pixels(values: NDArray) -> NDArray:
  """A map's colours, uint8 [height, width, 3]."""
  top = float(values.max()) or 1.0
  place = np.clip(values / top, 0, 1) * (len(_COLOURS) - 1)
  low = np.minimum(place.astype(int), len(_COLOURS) - 2)
  part = (place - low)[..., np.newaxis]
  pixels = _COLOURS[low] * (1 - part) + _COLOURS[low + 1] * part
  for axis, wanted in ((0, _HEIGHT), (1, _WIDTH)):
    times = max(1, wanted // values.shape[axis])
    pixels = np.repeat(pixels, times, axis=axis)
  return pixels.round().astype(np.uint8)


def summary(seen: Look, kind: str = "") -> tf.Summary:
  """What TensorBoard shows of it; `events.common` explains the kind."""
  found = tf.Summary()
  text = found.value.add(tag=f"examples{kind}")
  text.tensor.CopyFrom(tf.make_tensor_proto([_table(seen.examples)]))
  text.metadata.plugin_data.plugin_name = "text"
  for number, example in enumerate(seen.examples, 1):
    for each in example.maps:
      value = found.value.add(
        tag=f"{each.kind}{kind}/{each.name}/video {number}"
      )
      value.image.encoded_image_string = each.png
      # IHDR: eight bytes of signature, eight of its head, then the sizes.
      value.image.width = int.from_bytes(each.png[16:20], "big")
      value.image.height = int.from_bytes(each.png[20:24], "big")
      value.image.colorspace = 3
  for name, shares in seen.usage.items():
    found.value.add(
      tag=f"centres in use{kind}/{name}", simple_value=effective(shares)
    )
    relative = histogram.histogram_pb(f"use of centres{kind}/{name}", shares)
    found.MergeFromString(relative.SerializeToString())
  return found


def effective(shares: NDArray) -> float:
  """The share of centres that are in use: e^entropy / K, in [0, 1].

  1 if all get as many frames, 1 / K if one gets all.
  """
  some = shares[shares > 0]
  if not some.size:
    return 0.0
  return float(np.exp(-np.sum(some * np.log(some))) / shares.size)


def _table(examples: list[Example]) -> str:
  """Markdown: a video a row."""
  rows = ["| video | frames | labels | predictions |", "|---|---|---|---|"]
  for number, example in enumerate(examples, 1):
    guesses = [
      f"**{name}** {score:.2f}" if name in example.labels
      else f"{name} {score:.2f}"
      for name, score in example.predictions
    ]  # fmt: skip
    cells = [
      f"{number}: {example.video_id}",
      str(example.num_frames),
      ", ".join(example.labels),
      ", ".join(guesses),
    ]
    rows.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
  return "\n".join(rows)


def write(path: str, seen: Look) -> None:
  """Writes what was seen as JSON, pictures in base64, for report.py."""
  rows: list[dict[str, Any]] = []
  for example in seen.examples:
    maps = [
      {**each._asdict(), "png": base64.b64encode(each.png).decode()}
      for each in example.maps
    ]
    rows.append({**example._asdict(), "maps": maps})
  usage = {name: shares.tolist() for name, shares in seen.usage.items()}
  files.write_text(path, json.dumps({"examples": rows, "usage": usage}) + "\n")
