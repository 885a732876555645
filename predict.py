"""Names what is in videos, sounds, arrays or records.

  python predict.py --model=runs/own clips/dog.mp4 features/cat.npz
  python predict.py --model=model.tgz --window=5 --picture_dir=pictures clips/*

--model is a train_dir, an archive that inference.py --output_model_tgz wrote,
or a SavedModel that export_model.py wrote. Each word that is no flag is a file,
or a directory, which is searched for such files:

- a video or a sound, where the model's features.json names what makes its
  features from it (needs the extra [extract]);
- .npz: arrays [frames, size] by the features' names; .npy: that of a model's
  one feature; floats as an encoder gives them, or bytes as records hold them;
- .tfrecord: records of the model's kind.

Features are made, projected and quantised as the training data were. A file
that can't be used is listed at the end, costs nothing else, and makes the exit
status 3.
"""

from console import program  # isort: skip  (before TensorFlow)

import dataclasses
import os
import sys
from typing import Any

from absl import logging

import files
from console import flag_fields
from named import model as model_lib
from named import output, picture, sources
from records import vocabulary as vocabulary_lib

# Videos that are predicted at once.
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class _Shown(flag_fields.Config, group="Output"):
  """What is shown, and how."""

  top_k: int = flag_fields.integer(5, "Classes to show of each video.", low=1)
  json: bool = flag_fields.boolean(
    False, "Print a JSON object a line and video."
  )
  csv: bool = flag_fields.boolean(False, "Print CSV, a row a prediction.")
  window: float = flag_fields.real(
    0.0,
    "Predict for each part of so many seconds as well. Where features.json "
    "does not say how many frames a second has, it has one, as in YouTube-8M: "
    "then these are frames.",
    low=0.0,
  )
  picture_dir: str = flag_fields.path(
    "",
    "With --window: a directory for pictures of the predictions over time, a "
    "PNG a video; needs the extra [plots].",
  )


@dataclasses.dataclass(frozen=True)
class Config(_Shown, group="Model"):
  """What predict.py is told."""

  model: str = flag_fields.path(
    "", "A train_dir, a model.tgz, or a SavedModel.", required=True
  )
  checkpoint: str = flag_fields.path(
    "", "Path prefix of a checkpoint; the newest if not given."
  )
  vocabulary: str = vocabulary_lib.flag()
  encoder_dir: str = flag_fields.path(
    "",
    "Where encoders' files are that the model's features.json names, if not "
    "with the model.",
  )

  def __post_init__(self):
    super().__post_init__()
    if self.json and self.csv:
      raise ValueError("Give --json or --csv, not both.")
    if self.picture_dir and not self.window:
      raise ValueError("--picture_dir needs --window.")


class _Predictions:
  """Predicts for videos, a few at a time, and shows what is found."""

  def __init__(self, config, model, stream):
    self._config = config
    self._model = model
    kind: Any = output.Text
    if config.json or config.csv:
      kind = output.Json if config.json else output.Csv
    self._shown = kind(stream)
    self._waiting = []
    self._pictures = set()
    self.broken = []

  def add(self, video):
    """Takes a `sources.Video`."""
    self._waiting.append(video)
    if len(self._waiting) >= _BATCH:
      self.flush()

  def flush(self):
    """Predicts for what waits."""
    for video, prediction in zip(self._waiting, self._predict(self._waiting)):
      windows = self._windows(video)
      self._shown.add(video, prediction, windows)
      if self._config.picture_dir:
        name = video.video_id or video.file
        path = picture.path_for(self._config.picture_dir, name, self._pictures)
        picture.draw(path, video.name, windows)
    self._waiting = []

  def _predict(self, videos):
    return self._model.predict(
      [video.features for video in videos],
      top_k=self._config.top_k,
      is_stored=True,
    )

  def _windows(self, video):
    """list of `output.Window`."""
    if not self._config.window:
      return []
    fps = self._model.input.fps
    step = max(1, round(self._config.window * fps))
    starts = range(0, video.num_frames, step)
    ends = [min(start + step, video.num_frames) for start in starts]
    parts = [video.cut(start, end) for start, end in zip(starts, ends)]
    found = self._predict(parts)
    return [
      output.Window(start / fps, end / fps, prediction)
      for start, end, prediction in zip(starts, ends, found)
    ]


def _run(config, paths, stream):
  """Predicts for some files; returns the exit status."""
  with model_lib.load(
    config.model, config.checkpoint, config.vocabulary
  ) as model:
    if config.window and not model.input.is_frame_level:
      raise ValueError("--window needs a model of frames, not of whole videos.")
    predictions = _Predictions(config, model, stream)
    encoder_dirs = [config.encoder_dir] if config.encoder_dir else []
    reader = sources.Sources(model.input, model.directory, encoder_dirs)
    for path in _with_bar(paths):
      for found in reader.videos(path):
        if isinstance(found, sources.BrokenError):
          predictions.broken.append((path, str(found)))
        else:
          predictions.add(found)
    predictions.flush()
  if not predictions.broken:
    return None
  for name, reason in predictions.broken:
    logging.error("%s: %s.", name, reason.rstrip("."))
  logging.error("%d of these gave no prediction.", len(predictions.broken))
  return program.INCOMPLETE


def _with_bar(paths):
  """Yields the paths; where predictions go to a file, with a bar."""
  if len(paths) < 2 or sys.stdout.isatty():
    yield from paths
    return
  with program.progress_bar(len(paths), "files") as bar:
    for path in paths:
      yield path
      bar.update(1)


def main(words):
  """Predicts for the files of the command line."""
  config = flag_fields.from_flags(Config)
  paths = sources.expand(words)
  if not paths:
    raise program.UserError(
      "Give files to predict for: videos, sounds, .npz, .npy or .tfrecord."
    )
  if config.picture_dir:
    picture.require()
    files.require_writable(config.picture_dir, "Give another --picture_dir.")
    os.makedirs(config.picture_dir, exist_ok=True)
  try:
    return _run(config, paths, sys.stdout)
  except BrokenPipeError:  # Say, `| head` has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return None


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main, takes_arguments=True)
