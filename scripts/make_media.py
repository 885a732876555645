"""Makes a folder of small videos and a spreadsheet of labels to try things on.

  python scripts/make_media.py --output_dir=/tmp/media
  python scripts/make_media.py --output_dir=/tmp/media --num_videos=90

Each video shows one moving shape of one colour and plays one kind of sound; its
labels name the three. `labels.csv` has a line a video: id,labels.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import csv
import dataclasses

import av
import numpy as np

import files
from console import flag_fields

_COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 230)}
_SHAPES = ("circle", "square", "stripes")
_SOUNDS = ("low tone", "high tone", "noise")

_WIDTH, _HEIGHT, _FPS = 128, 96, 8
_SAMPLE_RATE = 16000
_SOUND_FRAME = 1024  # Samples that the encoder takes at a time.


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="What"):
  """What the flags say."""

  output_dir: str = flag_fields.path(
    None, "Directory to make; it must be new or empty.", required=True
  )
  num_videos: int = flag_fields.integer(
    60, "Videos to make.", low=1, high=100000
  )
  seconds: float = flag_fields.real(5.0, "Length of each.", low=0.5, high=600.0)
  seed: int = flag_fields.integer(0, "Another one makes other videos.", low=0)


def _picture(shape, colour, x, y, background, rng):
  """A frame: uint8 [height, width, 3]."""
  rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
  if shape == "circle":
    inside = (rows - y) ** 2 + (columns - x) ** 2 < 24**2
  elif shape == "square":
    inside = (abs(rows - y) < 22) & (abs(columns - x) < 22)
  else:
    inside = (rows + columns - int(x + y)) % 24 < 12
  picture = background + rng.normal(0, 8, [_HEIGHT, _WIDTH, 3])
  picture[inside] = colour + rng.normal(0, 8, [int(inside.sum()), 3])
  return np.clip(picture, 0, 255).astype(np.uint8)


def _sound(kind, num_samples, rng):
  """int16 [samples]."""
  times = np.arange(num_samples) / _SAMPLE_RATE
  if kind == "noise":
    wave = rng.normal(0, 0.3, num_samples)
  else:
    low, high = (180, 260) if kind == "low tone" else (1200, 1800)
    wave = 0.5 * np.sin(2 * np.pi * rng.uniform(low, high) * times)
  wave = wave + rng.normal(0, 0.01, num_samples)
  return (np.clip(wave, -1, 1) * 32767).astype(np.int16)


def _write_video(path, colour, shape, sound, seconds, rng):
  """Writes an MP4 file."""
  with av.open(path, "w", format="mp4") as container:
    video = container.add_stream("mpeg4", rate=_FPS)
    video.width, video.height, video.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
    audio = container.add_stream("aac", rate=_SAMPLE_RATE, layout="mono")
    background = rng.uniform(90, 160, 3)
    start, speed = rng.uniform(20, 70, 2), rng.uniform(-6, 6, 2)
    for number in range(round(seconds * _FPS)):
      x, y = (start + speed * number) % (_WIDTH, _HEIGHT)
      picture = _picture(shape, _COLOURS[colour], x, y, background, rng)
      container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
    container.mux(video.encode())
    samples = _sound(sound, round(seconds * _SAMPLE_RATE), rng)
    for at in range(0, len(samples), _SOUND_FRAME):
      part = samples[np.newaxis, at : at + _SOUND_FRAME]
      frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
      frame.sample_rate, frame.pts = _SAMPLE_RATE, at
      container.mux(audio.encode(frame))
    container.mux(audio.encode())


def main():
  """Makes the folder."""
  config = flag_fields.from_flags(Config)
  if os.path.isdir(config.output_dir) and os.listdir(config.output_dir):
    raise program.UserError(
      f"--output_dir={config.output_dir} is not empty: name a new directory."
    )
  os.makedirs(config.output_dir, exist_ok=True)
  rng = np.random.default_rng(config.seed)
  rows = []
  with program.progress_bar(config.num_videos, "videos") as bar:
    for number in range(config.num_videos):
      name = f"clip{number:03d}"
      colour, shape, sound = (
        str(rng.choice(kind)) for kind in (list(_COLOURS), _SHAPES, _SOUNDS)
      )
      path = os.path.join(config.output_dir, f"{name}.mp4")
      _write_video(path, colour, shape, sound, config.seconds, rng)
      rows.append((name, f"{colour};{shape};{sound}"))
      bar.update(1)
  with files.ReplacedFile(
    os.path.join(config.output_dir, "labels.csv")
  ) as stream:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("id", "labels"))
    writer.writerows(rows)


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
