"""Tests of optimizers.py."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from training import optimizers


class TestClipGradients:
  @pytest.fixture(autouse=True)
  def some_are_large(self, monkeypatch):
    monkeypatch.setattr(optimizers, "_LARGE", 4)

  def clip(self, arrays, max_norm, by_global_norm):
    with tf.Graph().as_default(), tf.Session() as session:
      pairs = [
        (tf.constant(a, tf.float32), tf.get_variable(f"v{i}", np.shape(a)))
        for i, a in enumerate(arrays)
      ]
      clipped, norm = optimizers.clip_gradients(pairs, max_norm, by_global_norm)
      assert [v.op.name for _, v in clipped] == [v.op.name for _, v in pairs]
      return session.run(([gradient for gradient, _ in clipped], norm))

  def arrays(self):
    rng = np.random.RandomState(0)
    return [
      10 * rng.randn(3, 2),
      0.01 * rng.randn(5),
      np.zeros([2]),
      np.float64(-2.5),
    ]

  @staticmethod
  def norm(*arrays):
    return sum(float(x) ** 2 for a in arrays for x in np.ravel(a)) ** 0.5

  @pytest.mark.parametrize("by_global_norm", [False, True])
  @pytest.mark.parametrize("max_norm", [0.0, -1.0, 1.0, 1e4])
  def test_matches_numpy(self, max_norm, by_global_norm):
    arrays = self.arrays()
    actual, norm = self.clip(arrays, max_norm, by_global_norm)
    total = self.norm(*arrays)
    assert norm == pytest.approx(total, rel=1e-5)
    for array, found in zip(arrays, actual):
      own = total if by_global_norm else self.norm(array)
      if max_norm > 0 and own > max_norm:
        array = array * (max_norm / own)
      np.testing.assert_allclose(found, array, rtol=1e-5)

  @pytest.mark.parametrize("by_global_norm", [False, True])
  def test_bounds_the_norm(self, by_global_norm):
    actual, _ = self.clip(self.arrays(), 1.0, by_global_norm)
    norms = [self.norm(gradient) for gradient in actual]
    if by_global_norm:
      assert self.norm(*actual) == pytest.approx(1.0, rel=1e-5)
    else:
      assert norms[0] == pytest.approx(1.0, rel=1e-5)
      assert norms[3] == pytest.approx(1.0, rel=1e-5)
      assert norms[1] == pytest.approx(self.norm(self.arrays()[1]), rel=1e-5)

  @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
  @pytest.mark.parametrize("by_global_norm", [False, True])
  @pytest.mark.parametrize("max_norm", [0.0, 1.0])
  def test_norm_tells_of_one_bad_element(self, bad, by_global_norm, max_norm):
    arrays = self.arrays()
    arrays[1][3] = bad
    _, norm = self.clip(arrays, max_norm, by_global_norm)
    assert not np.isfinite(norm)
