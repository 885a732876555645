"""Tests for losses. Axes: B videos, C classes."""

import functools
import inspect
import math

import hypothesis
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from absl.testing import parameterized
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

import losses

_B, _C = 3, 5  # Different: a swapped axis cannot pass.
_NAMES = (
  "AsymmetricLoss",
  "CrossEntropyLoss",
  "FocalLoss",
  "HingeLoss",
  "MultiTaskCrossEntropyLoss",
  "SoftmaxLoss",
)


def _cross_entropy_np(predictions, labels, weights):
  total = 0.0
  for p, y, w in zip(predictions, labels, weights):
    if y == 1:
      total -= w * math.log(p + 1e-5)
    elif y == 0:
      total -= w * math.log(1 - p + 1e-5)
    else:
      total -= w * (y * math.log(p + 1e-5) + (1 - y) * math.log(1 - p + 1e-5))
  return total


def _focal_np(predictions, labels, weights, alpha=0.25, gamma=2.0):
  """Lin et al. 2017, equation 5, of p_t: the probability of what is."""
  total = 0.0
  for p, y, w in zip(predictions, labels, weights):
    for share, p_t, alpha_t in ((y, p, alpha), (1 - y, 1 - p, 1 - alpha)):
      total -= w * share * alpha_t * (1 - p_t) ** gamma * math.log(p_t + 1e-5)
  return total


def _asymmetric_np(predictions, labels, weights, pos=1.0, neg=4.0, margin=0.05):
  """Ridnik et al. 2021, equations 4 to 7."""
  total = 0.0
  for p, y, w in zip(predictions, labels, weights):
    p_m = max(p - margin, 0.0)
    total -= w * y * (1 - p) ** pos * math.log(p + 1e-5)
    total -= w * (1 - y) * p_m**neg * math.log(1 - p_m + 1e-5)
  return total


def _hinge_np(predictions, labels, weights):
  total = 0.0
  for p, y, w in zip(predictions, labels, weights):
    distance = 1.0 - (2 * y - 1) * p
    if distance > 0:
      total += w * distance
  return total


def _softmax_np(predictions, labels, weights):
  kept = [y if w != 0 else 0.0 for y, w in zip(labels, weights)]
  if sum(kept) == 0:
    return 0.0
  partition = sum(math.exp(p) for p in predictions)
  total = 0.0
  for p, y, w in zip(predictions, kept, weights):
    total -= w * (y / sum(kept)) * math.log(math.exp(p) / partition)
  return total


_REFERENCES = {
  "AsymmetricLoss": _asymmetric_np,
  "CrossEntropyLoss": _cross_entropy_np,
  "FocalLoss": _focal_np,
  "HingeLoss": _hinge_np,
  "MultiTaskCrossEntropyLoss": _cross_entropy_np,
  "SoftmaxLoss": _softmax_np,
}


def _expected(name, predictions, labels, weights=None):
  """Float64 [B], one Python loop a video."""
  if weights is None:
    weights = np.ones(labels.shape)
  return np.array(
    [
      _REFERENCES[name](
        [float(p) for p in predictions[b]],
        [float(y) for y in labels[b]],
        [float(w) for w in weights[b]],
      )
      for b in range(len(predictions))
    ]
  )


def _examples(seed=0):
  """Predictions, labels (the middle video has none) and weights (two 0)."""
  rng = np.random.RandomState(seed)
  predictions = rng.uniform(0.02, 0.98, [_B, _C]).astype(np.float32)
  labels = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 1]], bool)
  weights = rng.uniform(0.5, 2.0, [_B, _C]).astype(np.float32)
  weights[0, 3] = 0.0  # A positive label.
  weights[2, 2] = 0.0  # A negative one.
  return predictions, labels, weights


_TYPES = {
  np.bool_: st.booleans(),
  np.int64: st.integers(0, 1),
  # Soft labels; sums of other numbers would not be exact.
  np.float32: st.sampled_from([0.0, 0.25, 0.5, 1.0]),
}


@st.composite
def _batches(draw):
  """Predictions, labels of any type, weights or None: of [B, C], B >= 0."""
  shape = draw(st.integers(0, 4)), draw(st.integers(1, 5))

  def array(dtype, elements):
    return draw(numpy_strategies.arrays(dtype, shape, elements=elements))

  # Nearer the ends float32 and float64 differ.
  predictions = array(np.float32, st.floats(1 / 32, 31 / 32, width=32))
  dtype = draw(st.sampled_from(sorted(_TYPES, key=str)))
  weights = array(np.float32, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
  labels = array(dtype, _TYPES[dtype])
  return predictions, labels, weights if draw(st.booleans()) else None


@functools.cache
def _graph(function, dtype, is_weighted):
  """A function of tensors of unknown shape, as one of arrays."""
  with tf.Graph().as_default() as graph:
    inputs = [
      tf.placeholder(tf.float32, [None, None]),
      tf.placeholder(dtype, [None, None]),
      tf.placeholder(tf.float32, [None, None]) if is_weighted else None,
    ]
    outputs = function(*inputs)
  session = tf.Session(graph=graph)
  return lambda *arrays: session.run(
    outputs,
    {x: a for x, a in zip(inputs, arrays, strict=True) if x is not None},
  )


def _run(function, predictions, labels, weights):
  run = _graph(function, labels.dtype.type, weights is not None)
  return run(predictions, labels, weights)


@functools.cache
def _all_of(name):
  """per_example, calculate_loss, and its gradient in a factor of 1."""
  loss = losses.get_loss(name)

  def build(predictions, *others):
    factor = tf.constant(1.0)
    mean = loss.calculate_loss(factor * predictions, *others)
    (gradient,) = tf.gradients(mean, factor)
    return loss.per_example(predictions, *others), mean, gradient

  return build


@pytest.mark.parametrize("name", _NAMES)
@hypothesis.given(batch=_batches())
def test_is_that_of_the_loop(name, batch):
  predictions, labels, weights = batch
  per_example, mean, gradient = _run(_all_of(name), *batch)
  expected = _expected(name, predictions, labels, weights)
  np.testing.assert_allclose(per_example, expected, rtol=1e-5, atol=1e-6)
  # Weighted or not, the mean is over videos, and 0 of none.
  expected_mean = sum(expected) / max(len(expected), 1)
  np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-6)
  assert np.isfinite(gradient) and (len(expected) or gradient == 0.0)
  if weights is not None:
    # A label of weight 0 may hold any value.
    flipped = np.where(weights == 0, labels == 0, labels)
    flipped = flipped.astype(labels.dtype)
    again, _, _ = _run(_all_of(name), predictions, flipped, weights)
    np.testing.assert_array_equal(again, per_example)


def _smooth(unused_predictions, labels, weights):
  return losses.smooth_labels(labels, 0.3, weights)


@hypothesis.given(batch=_batches())
def test_smoothed_labels_are_those_of_the_loop(batch):
  _, labels, weights = batch
  found = _run(_smooth, *batch)
  assert found.dtype == np.float32 and found.shape == labels.shape
  for b, row in enumerate(labels.astype(float)):
    rated = [c for c in range(len(row)) if weights is None or weights[b, c]]
    for c, label in enumerate(row):
      if c in rated:  # Each video keeps its mass, spread over what is rated.
        label = 0.7 * label + 0.3 * sum(row[rated]) / len(rated)
      assert found[b, c] == pytest.approx(label, rel=1e-5)


class LossesTest(parameterized.TestCase, tf.test.TestCase):
  def _evaluate(self, build):
    """Runs the fetches that `build()` adds to a graph of its own."""
    with tf.Graph().as_default():
      fetches = build()
      with tf.Session() as session:
        return session.run(fetches)

  def _per_example(self, name, *args):
    return self._evaluate(lambda: losses.get_loss(name).per_example(*args))

  def _calculate_loss(self, name, *args):
    return self._evaluate(lambda: losses.get_loss(name).calculate_loss(*args))

  @parameterized.product(
    name=_NAMES, dtype=[tf.bfloat16, tf.float16, tf.float64]
  )
  def test_computes_in_float32(self, name, dtype):
    # Eighths: exact in every one of these types.
    predictions = np.random.RandomState(2).randint(1, 8, [_B, _C]) / 8
    _, labels, weights = _examples()

    def build():
      loss = losses.get_loss(name)
      args = (tf.cast(predictions, dtype), labels, tf.cast(weights, dtype))
      return (
        loss.per_example(*args),
        loss.calculate_loss(*args),
        tf.cast(args[2], tf.float64),
      )

    per_example, mean, rounded_weights = self._evaluate(build)
    self.assertEqual(np.float32, per_example.dtype)
    self.assertEqual(np.float32, mean.dtype)
    self.assertAllClose(
      _expected(name, predictions, labels, rounded_weights),
      per_example,
      rtol=1e-5,
      atol=1e-6,
    )

  def _gradient(self, name, predictions, labels):
    def build():
      inputs = tf.constant(predictions)
      loss = losses.get_loss(name).calculate_loss(inputs, labels)
      return tf.gradients(loss, inputs)[0]

    return self._evaluate(build)

  @parameterized.parameters(*_NAMES)
  def test_gradient_matches_finite_differences(self, name):
    predictions, labels, _ = _examples()
    gradient = self._gradient(name, predictions, labels)
    for b in range(_B):
      for c in range(_C):
        step = np.zeros([_B, _C])
        step[b, c] = 1e-6
        expected = np.mean(
          _expected(name, predictions + step, labels)
        ) - np.mean(_expected(name, predictions - step, labels))
        # A difference of float64 losses 2e-6 apart keeps about 8 digits, and
        # the gradient's own are float32.
        self.assertAllClose(
          expected / 2e-6, gradient[b, c], rtol=1e-4, atol=1e-5
        )

  @parameterized.parameters(*_NAMES)
  def test_loss_and_gradient_are_finite_at_the_ends(self, name):
    predictions = np.array([[0, 0, 1, 1]], np.float32)
    labels = np.array([[0, 1, 0, 1]])
    self.assertAllInRange(
      self._per_example(name, predictions, labels), 0.0, 100.0
    )
    self.assertAllInRange(
      self._gradient(name, predictions, labels), -1.1e5, 1.1e5
    )

  def test_cross_entropy_survives_probabilities_rounded_past_the_ends(self):
    predictions = np.array([[1.0078125, -0.0078125]], np.float32)
    labels = np.array([[0, 1]])
    loss = self._per_example("CrossEntropyLoss", predictions, labels)
    self.assertAllClose([-2 * math.log(1e-5)], loss, rtol=1e-3)
    gradient = self._gradient("CrossEntropyLoss", predictions, labels)
    # Not zero: descent brings both back.
    self.assertGreater(gradient[0, 0], 1e4)
    self.assertLess(gradient[0, 1], -1e4)

  def _with(self, name, predictions, labels, **values):
    return self._evaluate(
      lambda: losses.get_loss(name, values).per_example(predictions, labels)
    )

  @parameterized.parameters(
    ("FocalLoss", {"focal_alpha": 0.5, "focal_gamma": 0.0}, 0.5),
    (
      "AsymmetricLoss",
      {
        "asymmetric_gamma_neg": 0.0,
        "asymmetric_gamma_pos": 0.0,
        "asymmetric_margin": 0.0,
      },
      1.0,
    ),
  )
  def test_without_focus_it_is_cross_entropy(self, name, values, factor):
    predictions, labels, _ = _examples()
    self.assertAllClose(
      factor * self._per_example("CrossEntropyLoss", predictions, labels),
      self._with(name, predictions, labels, **values),
      rtol=1e-5,
    )

  def test_numbers_of_focal_and_asymmetric(self):
    predictions, labels, weights = _examples()
    ones = np.ones_like(weights)
    self.assertAllClose(
      [_focal_np(*rows, 0.7, 0.5) for rows in zip(predictions, labels, ones)],
      self._with(
        "FocalLoss", predictions, labels, focal_alpha=0.7, focal_gamma=0.5
      ),
      rtol=1e-5,
    )
    self.assertAllClose(
      [
        _asymmetric_np(*rows, 0.5, 1.5, 0.3)
        for rows in zip(predictions, labels, ones)
      ],
      self._with(
        "AsymmetricLoss",
        predictions,
        labels,
        asymmetric_gamma_neg=1.5,
        asymmetric_gamma_pos=0.5,
        asymmetric_margin=0.3,
      ),
      rtol=1e-5,
    )

  def test_what_is_below_the_margin_is_not_pulled(self):
    gradient = self._gradient(
      "AsymmetricLoss",
      np.array([[0.0, 0.04, 0.2]], np.float32),
      np.zeros([1, 3]),
    )
    self.assertAllEqual([True, True, False], gradient[0] == 0.0)

  @parameterized.parameters(*_NAMES)
  def test_class_weights_multiply_label_weights(self, name):
    predictions, labels, weights = _examples()
    of_classes = np.array([2.0, 0.5, 0.0, 1.0, 3.0])
    loss = losses.get_loss(name)
    weighted = loss.with_class_weights(of_classes)
    both = np.broadcast_to(of_classes, weights.shape)
    for given, product in ((None, both), (weights, weights * both)):
      self.assertAllClose(
        self._per_example(name, predictions, labels, product),
        self._evaluate(
          lambda given=given: weighted.per_example(predictions, labels, given)
        ),
        rtol=1e-6,
      )
    # The loss itself is as it was.
    self.assertAllEqual(
      self._per_example(name, predictions, labels),
      self._evaluate(lambda: loss.per_example(predictions, labels)),
    )

  def test_softmax_is_stable_for_large_scores(self):
    predictions = np.array([[1e4, 0.0, -1e4]], np.float32)
    self.assertAllClose(
      [(1e4 + 2e4) / 2],
      self._per_example("SoftmaxLoss", predictions, np.array([[0, 1, 1]])),
      rtol=1e-5,
    )

  def test_epsilon_and_margin(self):
    one = np.ones([1, 1], np.float32)
    self.assertAllClose(
      [-math.log(0.5)],
      self._evaluate(
        lambda: losses.CrossEntropyLoss(epsilon=0.5).per_example(one, 0 * one)
      ),
      rtol=1e-5,
    )
    self.assertAllClose(
      [3.0 - 1.0],
      self._evaluate(
        lambda: losses.HingeLoss(margin=3.0).per_example(one, one)
      ),
    )

  @parameterized.parameters(0.0, -1.0, float("nan"))
  def test_epsilon_and_margin_must_be_positive(self, value):
    with self.assertRaisesRegex(ValueError, f"epsilon > 0, got {value}"):
      losses.CrossEntropyLoss(epsilon=value)
    with self.assertRaisesRegex(ValueError, f"margin > 0, got {value}"):
      losses.HingeLoss(margin=value)

  @parameterized.product(
    name=_NAMES, shape=[(_B, 7), (7, _C), (_B, 1), (_C,), (_B, _C, 1)]
  )
  def test_shape_mismatch_names_both_shapes(self, name, shape):
    good = np.zeros([_B, _C], np.float32)
    bad = np.zeros(shape, np.float32)
    both = rf"\({_B}, {_C}\).*\({', '.join(map(str, shape))},?\)"
    loss = losses.get_loss(name)
    with tf.Graph().as_default():
      with self.assertRaisesRegex(ValueError, f" labels .*{both}"):
        loss.calculate_loss(good, bad)
      with self.assertRaisesRegex(ValueError, f"label_weights.*{both}"):
        loss.calculate_loss(good, good, bad)

  @parameterized.parameters(*_NAMES)
  def test_predictions_need_rank_two(self, name):
    loss = losses.get_loss(name)
    with tf.Graph().as_default():
      with self.assertRaisesRegex(ValueError, r"\[B, C\], got \(5,\)"):
        loss.per_example(np.zeros(_C), np.zeros(_C))
      with self.assertRaisesRegex(ValueError, r"\[B, C\], got <unknown>"):
        loss.per_example(tf.placeholder(tf.float32), np.zeros([_B, _C]))

  @parameterized.parameters(
    ("labels", False), ("labels", True), ("label_weights", True)
  )
  def test_unknown_shapes_do_not_broadcast(self, culprit, has_weights):
    arrays = {"predictions": np.zeros([_B, _C]), "labels": np.zeros([_B, _C])}
    if has_weights:
      arrays["label_weights"] = np.zeros([_B, _C])
    arrays[culprit] = np.zeros([_B, 1])
    with tf.Graph().as_default():
      # Fed: constants would be folded, and the check with them.
      inputs = {
        name: tf.placeholder(tf.float32, [None, None]) for name in arrays
      }
      loss = losses.HingeLoss().per_example(**inputs)
      with tf.Session() as session:
        with self.assertRaisesRegex(
          tf.errors.InvalidArgumentError, f"Need {culprit} of"
        ):
          session.run(loss, {inputs[name]: arrays[name] for name in arrays})

  def _smooth(self, *args):
    return self._evaluate(lambda: losses.smooth_labels(*args))

  @parameterized.parameters(-0.1, 1.0, float("nan"))
  def test_smooth_labels_needs_epsilon_below_one(self, epsilon):
    with self.assertRaisesRegex(ValueError, f"epsilon < 1, got {epsilon}"):
      losses.smooth_labels(np.zeros([_B, _C]), epsilon)

  def test_smooth_labels_names_both_shapes(self):
    with (
      tf.Graph().as_default(),
      self.assertRaisesRegex(ValueError, r"\(3, 5\), got \(3, 1\)"),
    ):
      losses.smooth_labels(np.zeros([_B, _C]), 0.1, np.zeros([_B, 1]))

  def test_table_holds_every_loss(self):
    concrete = {
      name: cls
      for name, cls in vars(losses).items()
      if inspect.isclass(cls)
      and issubclass(cls, losses.BaseLoss)
      and not inspect.isabstract(cls)
    }
    self.assertEqual(concrete, losses.LOSSES)
    self.assertCountEqual(_NAMES, concrete)

  @parameterized.parameters(
    ("CrosEntropyLoss", "CrossEntropyLoss"),
    ("hinge_loss", "HingeLoss"),
    ("softmaxloss", "SoftmaxLoss"),
  )
  def test_typo_lists_names_and_suggests_one(self, typo, meant):
    with self.assertRaisesRegex(
      ValueError,
      f"'{typo}'.*{', '.join(_NAMES)}.*mean '{meant}'",
    ):
      losses.get_loss(typo)

  @parameterized.parameters("", "Adam", None)
  def test_unknown_loss_without_a_close_name(self, name):
    with self.assertRaisesRegex(ValueError, "there are AsymmetricLoss") as e:
      losses.get_loss(name)
    self.assertNotIn("mean", str(e.exception))


if __name__ == "__main__":
  tf.test.main()
