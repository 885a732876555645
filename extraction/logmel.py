"""Log-mel patches, as the front end of VGGish makes them.

Hershey et al. 2017, CNN Architectures for Large-Scale Audio Classification:
sound of 16 kHz, magnitudes of the Fourier transform of 25 ms (periodic Hann
window) every 10 ms, 64 mel bands from 125 to 7500 Hz, log(mel + 0.01), patches
of 96 frames. Axes: P patches, S samples, F = 96 frames, M = 64 bands.
"""

import functools

import numpy as np

RATE = 16000
FRAMES, BANDS = 96, 64
SIZE = FRAMES * BANDS
_WINDOW, _HOP, _FFT = 400, 160, 512
# Samples that a patch is made of: 0.975 s.
SAMPLES = (FRAMES - 1) * _HOP + _WINDOW
_LOW, _HIGH = 125.0, 7500.0
_OFFSET = 0.01


def patches(windows: np.ndarray) -> np.ndarray:
  """The patches of pieces of sound.

  Args:
    windows: float32 [P, SAMPLES], at 16 kHz, within [-1, 1].

  Returns:
    float32 [P, 6144], flattened from [P, F, M].
  """
  frames = np.lib.stride_tricks.sliding_window_view(windows, _WINDOW, axis=1)
  found = []
  for patch in frames[:, ::_HOP]:  # One at a time: [F, 400].
    spectrum = np.abs(np.fft.rfft(patch * _hann(), _FFT))
    found.append(np.log(spectrum @ _bands() + _OFFSET).ravel())
  return np.array(found, np.float32).reshape(-1, SIZE)


def _mel(hertz):
  return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


@functools.cache
def _hann():
  """[400]: periodic, so its last value is not 0."""
  return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)


@functools.cache
def _bands():
  """Triangles that are linear in mel: [257, M]."""
  edges = np.linspace(_mel(_LOW), _mel(_HIGH), BANDS + 2)
  low, centre, high = edges[:-2], edges[1:-1], edges[2:]
  mel = _mel(np.arange(_FFT // 2 + 1) * (RATE / _FFT))[:, np.newaxis]
  rising = (mel - low) / (centre - low)
  falling = (high - mel) / (high - centre)
  bands = np.maximum(0.0, np.minimum(rising, falling))
  bands[0] = 0.0  # Not the constant part.
  return bands
