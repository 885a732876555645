"""Decodes a file: the pictures at given times, and the sound.

By FFmpeg, through PyAV. Times are those of presentation, so a variable frame
rate needs no care of its own; pictures are as a player shows them, turned by
the file's rotation and with square pixels. Axes: S samples, C channels.
"""

import dataclasses
import fractions
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from extraction import packages

RATE = 16000  # Samples a second that `read` gives.
# More pixels are no video, and a decoder would take gigabytes for a picture.
_MAX_PIXELS = 1 << 26
# A silence of the file's times that is filled; shorter ones are rounding.
_GAP = RATE // 10
# Formats that name other files, of the user's or on a network.
_LISTS = frozenset(("concat", "dash", "hls", "imf", "webm_dash_manifest"))
# Why a file gives nothing.
NO_PICTURE, NO_SOUND = "it has no picture", "it has no sound"
_NO_RATE = fractions.Fraction(25)


class MediaError(ValueError):
  """A file that gives no features; the message says why."""


class Picture:
  """A decoded picture as it is shown.

  Attributes:
    height, width: of the picture with square pixels, turned upright.
  """

  def __init__(self, frame: Any, aspect: Any):
    """Keeps the frame.

    Args:
      frame: `av.VideoFrame`.
      aspect: width of a pixel, divided by its height; or None or 0, unknown.
    """
    self._frame = frame
    # Degrees counter-clockwise.
    self._turns = round(frame.rotation / 90) % 4
    size = (frame.height, max(1, round(frame.width * (aspect or 1))))
    self.height, self.width = size[::-1] if self._turns % 2 else size

  def rgb(self, height: int, width: int) -> np.ndarray:
    """The picture, resized: uint8 [height, width, 3]."""
    if self._turns % 2:
      height, width = width, height
    # Resizing and the change of colours are one step. Bicubic, over as wide a
    # window as a smaller picture needs.
    resized = self._frame.reformat(
      width=width, height=height, format="rgb24", interpolation="BICUBIC"
    )
    return np.rot90(resized.to_ndarray(), self._turns)


class Media(NamedTuple):
  """What was read of a file.

  Attributes:
    pictures: list of what `convert` made of each, the k-th of what is shown at
      k / fps seconds; the same object again where the picture is the same.
    sound: float32 [S] at 16 kHz, the mean of the channels, from the first
      picture's time on; None if it was not asked for.
  """

  pictures: list[Any]
  sound: np.ndarray | None


class _Pictures:
  """Picks of a video's pictures those that are on screen at k / fps."""

  def __init__(self, stream, fps, max_frames, convert):
    self.stream = stream
    self.made: list[Any] = []
    self.start = _start(stream)
    self._end = fractions.Fraction(0)
    self._fps = fps
    self._max_frames = max_frames
    self._convert = convert
    self._aspect = stream.sample_aspect_ratio
    self._step = 1 / (stream.average_rate or _NO_RATE)
    self._last = None

  def put(self, frame):
    """Takes the next picture; they come in the order of presentation."""
    size = frame.width * frame.height
    if size > _MAX_PIXELS:
      raise MediaError(f"its pictures have {size:,} pixels")
    time = self._end
    if frame.pts is not None:
      time = fractions.Fraction(frame.pts) * frame.time_base
    if self.start is None:
      self.start = time
    self._show_until(time - self.start)
    self._last, self._last_made = frame, None
    length = frame.duration * frame.time_base if frame.duration else self._step
    self._end = max(self._end, time + length)

  def _show_until(self, time):
    """The last picture is on screen until then."""
    if self._last is None:
      return
    while not self.is_full() and len(self.made) < time * self._fps:
      if self._last_made is None:
        self._last_made = self._convert(Picture(self._last, self._aspect))
      self.made.append(self._last_made)

  def is_full(self):
    return len(self.made) >= self._max_frames

  def finish(self):
    """Takes the last picture to its end."""
    if self._last is None:
      raise MediaError("no picture can be decoded")
    # A picture of a single time is on screen once.
    self._show_until(max(self._end - self.start, self._step))
    expected = _duration(self.stream)
    if expected:
      wanted = min(self._max_frames, math.floor(expected * self._fps))
      if len(self.made) < 0.9 * wanted - 1:
        raise MediaError(
          f"its pictures end after {len(self.made)} of {wanted} frames: "
          "damaged, or cut short"
        )


class _Sound:
  """Gathers a stream's sound as one channel at `RATE`."""

  def __init__(self, stream, seconds, start):
    self.stream = stream
    self._start = _start(stream) if start is None else start
    self._wanted = math.ceil(seconds * RATE)
    self._count = 0
    self._parts: list[np.ndarray] = []
    self._resampler: Any = None
    self._kind: tuple[str, str, int] | None = None

  def put(self, frame):
    """Takes the next samples."""
    kind = (frame.format.name, frame.layout.name, frame.sample_rate)
    if kind != self._kind:
      self._flush()
      av = packages.load("av", "Decoding")
      self._resampler = av.AudioResampler(format="flt", rate=RATE)
      self._kind = kind
    if frame.pts is not None:
      time = fractions.Fraction(frame.pts) * frame.time_base
      if self._start is None:
        self._start = time
      gap = round((time - self._start) * RATE) - self._count
      if gap > _GAP:
        gap = min(gap, self._wanted - self._count)
        self._append(np.zeros(gap, np.float32))
      elif not self._count and gap < 0:
        self._count = gap  # To be dropped: from before the first picture.
    self._take(self._resampler.resample(frame))

  def _flush(self):
    if self._resampler is not None:
      self._take(self._resampler.resample(None))

  def _take(self, frames):
    for frame in frames:
      if frame is None:  # The end of sound that needs no resampling.
        continue
      # As VGGish does: the mean, while FFmpeg's own way would be a sum.
      samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
      self._append(samples.mean(axis=1, dtype=np.float32))

  def _append(self, samples):
    dropped = max(0, min(-self._count, len(samples)))
    self._count += len(samples)
    self._parts.append(samples[dropped:])

  def is_full(self):
    return self._count >= self._wanted

  def finish(self):
    """All of it: float32 [S]."""
    self._flush()
    sound = np.concatenate([np.zeros(0, np.float32), *self._parts])
    if not len(sound):
      raise MediaError("no sound can be decoded")
    expected = min(_duration(self.stream) or 0, self._wanted / RATE)
    if len(sound) < (0.9 * float(expected) - 1) * RATE:
      raise MediaError(
        f"its sound ends after {len(sound) / RATE:.1f} of {float(expected):.1f}"
        " seconds: damaged, or cut short"
      )
    return sound[: self._wanted]


def _start(stream):
  """When a stream begins, in seconds; None if it does not say."""
  if stream.start_time is None:
    return None
  return fractions.Fraction(stream.start_time) * stream.time_base


def _duration(stream):
  """How long a stream says that it is, in seconds; None if it does not."""
  if stream.duration:
    return fractions.Fraction(stream.duration) * stream.time_base
  container = stream.container
  if container.duration and len(container.streams) == 1:
    return fractions.Fraction(container.duration, 1_000_000)
  return None


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What to read of a file.

  Attributes:
    fps: float > 0, pictures a second.
    max_frames: int >= 1, at most so many of them, and sound for as long.
    pictures: bool.
    sound: bool.
    threads: int, of the decoder; 0 for as many as it likes.
  """

  fps: float
  max_frames: int
  pictures: bool = True
  sound: bool = True
  threads: int = 0


def read(
  path: str | os.PathLike, wanted: Wanted, convert: Callable[[Picture], Any]
) -> Media:
  """Reads pictures and sound.

  Args:
    path: of a local file.
    wanted: what is wanted.
    convert: what is kept of a `Picture`.

  Returns:
    `Media`.

  Raises:
    MediaError: the file has no picture or no sound where it is wanted, or it is
      damaged, cut short or nothing that FFmpeg knows.
    OSError: it can't be read.
    ValueError: the package is not installed.
  """
  av = packages.load("av", "Decoding")
  try:
    with av.open(
      f"file:{os.fspath(path)}",
      metadata_errors="ignore",
      options={
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(av.formats_available - _LISTS),
      },
    ) as container:
      return _read(av, container, wanted, convert)
  except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
    code = error.errno or 0
    raise OSError(code, os.strerror(code), str(path)) from None
  except av.ArgumentError:
    raise MediaError("it is a list of other files") from None
  except av.FFmpegError as error:
    raise MediaError(f"FFmpeg: {error.strerror or error}") from None


def _read(av, container, wanted, convert):
  """`read`, of an open container."""
  fps = fractions.Fraction(wanted.fps).limit_denominator(1_000_000)
  takers: dict[int, Any] = {}
  pictures = sound = None
  if wanted.pictures:
    stream = _best(av, container, "video", NO_PICTURE)
    pictures = _Pictures(stream, fps, wanted.max_frames, convert)
    takers[stream.index] = pictures
  if wanted.sound:
    stream = _best(av, container, "audio", NO_SOUND)
    # The last frame's patch begins at its time, and is no longer than a second.
    seconds = (wanted.max_frames - 1) / fps + 1
    sound = _Sound(stream, seconds, pictures.start if pictures else None)
    takers[stream.index] = sound
  for taker in takers.values():
    taker.stream.thread_type = "AUTO"
    taker.stream.codec_context.thread_count = wanted.threads
  _decode(av, container, takers)
  if pictures:
    pictures.finish()
  return Media(
    pictures.made if pictures else [], sound.finish() if sound else None
  )


def _best(av, container, kind, reason):
  """The stream of a kind that a player would choose; not a cover's picture."""
  cover = av.stream.Disposition.attached_pic
  if not container.streams:
    raise MediaError("it holds no picture and no sound")
  best = container.streams.best(kind)
  streams = [best, *getattr(container.streams, kind)] if best else []
  for stream in streams:
    if not stream.disposition & cover:
      if stream.codec_context is None:
        raise MediaError(f"FFmpeg knows no decoder of its {kind}")
      return stream
  raise MediaError(reason)


def _decode(av, container, takers):
  """Gives each stream's frames to its taker, until all have enough."""
  packets = errors = 0
  for packet in container.demux([taker.stream for taker in takers.values()]):
    taker = takers[packet.stream.index]
    if taker.is_full():
      if all(each.is_full() for each in takers.values()):
        break
      continue
    packets += 1
    try:
      for frame in packet.decode():
        taker.put(frame)
    except av.FFmpegError:
      # The decoder goes on with the next; a few lost ones do not show.
      errors += 1
  if errors * 10 > packets:
    raise MediaError(f"{errors} of its {packets} packets are damaged")
