"""Tests of log-mel patches against VGGish's description, as loops."""

import cmath
import math

import numpy as np
import pytest

from extraction import inputs, logmel, preprocessing
from tests.extraction import made


def _band(number, bin_number):
  """The weight of a bin of the transform in a mel band, from 0."""

  def mel(hertz):
    return 1127 * math.log(1 + hertz / 700)

  step = (mel(7500) - mel(125)) / 65
  low = mel(125) + number * step
  place = mel(bin_number * 16000 / 512)
  if bin_number == 0 or not low < place < low + 2 * step:
    return 0.0
  return 1 - abs(place - low - step) / step


def test_matches_the_loop():
  sound = np.random.default_rng(0).uniform(-1, 1, [2, logmel.SAMPLES])
  found = logmel.patches(sound.astype(np.float32)).reshape(2, 96, 64)
  weights = np.array([[_band(m, k) for m in range(64)] for k in range(257)])
  window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
  for patch, frame in ((0, 0), (0, 95), (1, 7)):
    piece = sound[patch, frame * 160 : frame * 160 + 400]
    for band in (0, 1, 30, 63):
      energy = 0.0
      for k in np.flatnonzero(weights[:, band]):
        wave = [cmath.exp(-2j * math.pi * k * n / 512) for n in range(400)]
        value = sum(x * w * e for x, w, e in zip(piece, window, wave))
        energy += weights[k, band] * abs(value)
      np.testing.assert_allclose(
        found[patch, frame, band], math.log(energy + 0.01), atol=1e-4
      )


def test_silence_is_the_offset_and_nothing_gives_nothing():
  silence = logmel.patches(np.zeros([1, logmel.SAMPLES], np.float32))
  np.testing.assert_allclose(silence, math.log(0.01), rtol=1e-6)
  empty = logmel.patches(np.zeros([0, logmel.SAMPLES], np.float32))
  assert empty.shape == (0, 6144) and empty.dtype == np.float32


@pytest.mark.parametrize("fps", [1.0, 2.0, 0.5])
def test_sound_has_a_row_for_each_picture(tmp_path, fps):
  """Cut where it is longer, silent where it is shorter."""
  mel = preprocessing.LOGMEL_PATCHES
  wave = preprocessing.Preprocessing(input="waveform", samples=1600)
  pictures = preprocessing.Preprocessing(crop=4)
  grey = [made.grey(0)] * 2
  wanted = {"rgb": pictures, "audio": mel, "wave": wave}
  for seconds, end in ((4.0, 1.9), (1.5, 3.9)):
    path = made.write(
      tmp_path / "a.mkv", grey, [0.0, end], sound=made.tone(seconds)
    )
    found = inputs.decode(path, fps, 300, wanted)
    rows = math.ceil((end + 0.1) * fps)
    assert {len(rows) for rows in found.values()} == {rows}
    assert found["rgb"].shape[1:] == (4, 4, 3)
    starts = np.arange(rows) / fps
    loud = np.abs(found["wave"]).max(axis=1) > 0.4
    np.testing.assert_array_equal(loud, starts < seconds)
  alone = inputs.decode(path, fps, 300, {"audio": mel})
  assert len(alone["audio"]) == math.ceil(1.5 * fps)
  assert len(inputs.decode(path, fps, 1, {"audio": mel})["audio"]) == 1
