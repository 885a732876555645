"""Tests of PCA. Axes: T frames, D features, d components."""

import numpy as np
import pytest

from extraction import pca

RNG = np.random.default_rng(0)
# Far from zero, and of very different spread.
FRAMES = (RNG.normal(size=[300, 7]) * 3.0 ** -np.arange(7)) @ np.linalg.qr(
  RNG.normal(size=[7, 7])
)[0] + 100.0


@pytest.mark.parametrize(
  ("frames", "chunk"),
  # Several chunks, one, and fewer frames than features.
  [(FRAMES, 64), (FRAMES, 2048), (FRAMES[:6], 64)],
)
def test_matches_the_singular_vectors(monkeypatch, frames, chunk):
  monkeypatch.setattr(pca, "_CHUNK", chunk)
  found = pca.fit([frames[:1], frames[1:4], *np.split(frames[4:], 2)], 4)
  mean = frames.mean(axis=0)
  _, singular, vectors = np.linalg.svd(frames - mean, full_matrices=False)
  np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
  np.testing.assert_allclose(
    found.eigenvalues, singular[:4] ** 2 / len(frames), rtol=1e-4
  )
  for component, vector in zip(found.components.T, vectors):
    assert component[np.abs(component).argmax()] > 0
    np.testing.assert_allclose(abs(component @ vector), 1.0, rtol=1e-5)
  white = found.apply(frames)
  assert white.dtype == np.float32 and white.shape == (len(frames), 4)
  np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=1e-2)
  deviations = np.sqrt(found.eigenvalues)
  np.testing.assert_allclose(
    white.std(axis=0), deviations / (deviations + 1e-4), rtol=1e-3
  )


def test_is_stored_and_told_from_others(tmp_path):
  found = pca.fit([FRAMES], 3)
  found.save(tmp_path / "pca-rgb.npz")
  read = pca.load(tmp_path / "pca-rgb.npz")
  assert (read.size, read.hash) == (3, found.hash)
  np.testing.assert_array_equal(read.apply(FRAMES), found.apply(FRAMES))
  assert pca.fit([FRAMES], 2).hash != found.hash
  assert pca.fit([FRAMES[1:]], 3).hash != found.hash
  (tmp_path / "x.npz").write_text("no arrays")
  np.savez(tmp_path / "y.npz", mean=np.zeros(2))
  for name in ("x.npz", "y.npz"):
    with pytest.raises(ValueError, match=f"{name} is no PCA file"):
      pca.load(tmp_path / name)


def test_equal_frames_have_no_direction():
  found = pca.fit([np.ones([4, 9])], 2)
  np.testing.assert_array_equal(found.components, 0.0)
  np.testing.assert_array_equal(found.apply(np.full([1, 9], 3.0)), 0.0)


def test_what_does_not_fit_is_refused():
  for clips, size in (([FRAMES[:3]], 3), ([FRAMES], 8), ([FRAMES], 0), ([], 1)):
    with pytest.raises(ValueError, match=f"A PCA to {size} components"):
      pca.fit(clips, size)
  with pytest.raises(ValueError, match=r"shape \[5\] among others"):
    pca.fit([np.zeros(5)], 1)
  with pytest.raises(ValueError, match="PCA is of 7 features"):
    pca.fit([FRAMES], 2).apply(FRAMES[:, :6])
