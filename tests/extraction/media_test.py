"""Tests of decoding. Axes: T frames, S samples."""

import math

import numpy as np
import pytest

from extraction import media
from tests.extraction import made

RED, GREEN, BLUE, WHITE = (
  np.array(c, np.uint8)
  for c in ([255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255])
)


def levels(path, fps, max_frames=300, **changes):
  wanted = media.Wanted(fps, max_frames, sound=False, **changes)
  return media.read(
    path, wanted, lambda p: int(p.rgb(p.height, p.width).mean().round())
  ).pictures


def test_pictures_are_those_on_screen_at_each_time(tmp_path):
  # A variable frame rate: what counts is when a picture appears.
  times = [0.0, 0.4, 0.5, 2.3, 2.4, 2.45, 5.0]
  shown = [10, 20, 30, 40, 50, 60, 70]
  path = made.write(tmp_path / "a.mkv", [made.grey(s) for s in shown], times)
  for fps in (1.0, 2.0, 2.5, 10.0, 0.4):
    expected = []
    for k in range(math.ceil(5.1 * fps - 1e-9)):
      last = [s for s, t in zip(shown, times) if t <= k / fps + 1e-9][-1]
      expected.append(last)
    assert levels(path, fps) == expected, fps
  assert levels(path, 1.0, max_frames=2) == [10, 30]


@pytest.mark.parametrize(
  ("turned", "corners"),
  [
    (0, [RED, GREEN, BLUE, WHITE]),
    (90, [GREEN, WHITE, RED, BLUE]),
    (180, [WHITE, BLUE, GREEN, RED]),
    (-90, [BLUE, RED, WHITE, GREEN]),
  ],
)
def test_pictures_are_turned_as_a_player_does(tmp_path, turned, corners):
  picture = made.grey(0, 32, 64)
  picture[:16, :32], picture[:16, 32:] = RED, GREEN
  picture[16:, :32], picture[16:, 32:] = BLUE, WHITE
  path = made.write(tmp_path / "a.mov", [picture], [0.0], turned=turned)
  wanted = media.Wanted(1.0, 1, sound=False)
  (found,) = media.read(
    path, wanted, lambda p: (p.height, p.width, p.rgb(p.height, p.width))
  ).pictures
  height, width, pixels = found
  assert (height, width) == ((64, 32) if turned % 180 else (32, 64))
  assert pixels.shape == (height, width, 3)
  quarters = [(1, 1), (1, 3), (3, 1), (3, 3)]
  for (y, x), colour in zip(quarters, corners):
    seen = pixels[y * height // 4, x * width // 4]
    np.testing.assert_allclose(seen, colour, atol=2)


@pytest.mark.parametrize("rate", [44100, media.RATE])
def test_sound_is_the_mean_of_channels_from_the_first_picture_on(
  tmp_path, rate
):
  sound = made.tone(2.0, rate, channels=2)
  path = made.write(
    tmp_path / "a.mkv",
    [made.grey(0)] * 2,
    [0.0, 2.0],
    sound=sound,
    sound_start=0.5,
    sound_rate=rate,
  )
  found = media.read(path, media.Wanted(1.0, 300), lambda p: 0)
  assert len(found.pictures) == 3
  assert found.sound.dtype == np.float32
  assert abs(len(found.sound) / media.RATE - 2.5) < 0.01
  assert np.abs(found.sound[: int(0.49 * media.RATE)]).max() < 1e-3
  middle = found.sound[media.RATE : 2 * media.RATE]
  spectrum = np.abs(np.fft.rfft(middle))
  assert spectrum.argmax() == 440  # Hertz, of one second.
  np.testing.assert_allclose(spectrum[440] * 2 / len(middle), 0.25, rtol=0.01)
  # What is heard before the first picture is left out.
  made.write(path, [made.grey(0)] * 2, [0.5, 2.0], sound=sound, sound_rate=rate)
  found = media.read(path, media.Wanted(1.0, 300), lambda p: 0)
  assert abs(len(found.sound) / media.RATE - 1.5) < 0.01
  # Sound alone, for as long as the frames that are wanted.
  alone = media.read(path, media.Wanted(1.0, 1, False), lambda p: 0)
  assert alone.pictures == [] and len(alone.sound) == media.RATE


@pytest.mark.parametrize(
  ("name", "told"),
  [
    ("text.mp4", "Invalid data"),
    ("empty.mp4", "Invalid data"),
    ("cut.mp4", "Invalid data|cut short"),
    ("holes.mp4", "packets are damaged|cut short|no picture"),
    ("silent.mkv", "it has no sound"),
    ("blind.mkv", "it has no picture"),
    ("cover.mp3", "it has no picture"),
    ("short.mkv", "its pictures end after 6 of 9 frames"),
    ("list.mp4", "a list of other files"),
    ("list.m3u8", "a list of other files"),
  ],
)
def test_what_gives_no_features_is_told_why(tmp_path, name, told):
  path = tmp_path / name
  real = bytearray(open(made.shipped("bikes.mp4"), "rb").read())
  if name == "text.mp4":
    path.write_text("This is no video.\n" * 100)
  elif name == "cut.mp4":
    path.write_bytes(real[:300_000])
  elif name == "holes.mp4":
    real[1000:400_000] = bytes(399_000)
    path.write_bytes(real)
  elif name == "silent.mkv":
    made.write(path, [made.grey(0)], [0.0])
  elif name == "blind.mkv":
    made.write(path, sound=made.tone(1.0))
  elif name == "cover.mp3":
    made.song_with_cover(path)
  elif name == "short.mkv":
    noise = np.random.default_rng(0).integers(0, 256, [10, 16, 16, 3], "u1")
    made.write(path, noise, range(10))
    path.write_bytes(path.read_bytes()[:-4000])
  elif name.startswith("list"):
    made.write(tmp_path / "other.mkv", [made.grey(0)], [0.0])
    lines = ["ffconcat version 1.0", "file other.mkv"]
    if name == "list.m3u8":
      lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1.0,"]
      lines += ["other.mkv", "#EXT-X-ENDLIST"]
    path.write_text("\n".join(lines) + "\n")
  else:
    path.touch()
  sound = name in ("silent.mkv", "blind.mkv", "cover.mp3")
  with pytest.raises(media.MediaError, match=told):
    media.read(path, media.Wanted(1.0, 300, sound=sound), lambda p: 0)


def test_reads_what_packages_ship():
  path = made.shipped("bigbuckbunny.mp4")
  found = media.read(path, media.Wanted(1.0, 300), lambda p: p.rgb(8, 8))
  assert np.array(found.pictures).shape == (6, 8, 8, 3)
  assert abs(len(found.sound) / media.RATE - 5.3) < 0.1
  # Pixels that are not square: 144 x 176 of them, 128 / 117 as wide as high.
  path = made.shipped("carphone_pristine.mp4")
  wanted = media.Wanted(1.0, 300, sound=False)
  sizes = media.read(path, wanted, lambda p: (p.height, p.width)).pictures
  assert sizes == [(144, 193)] * 5
