"""Metrics against loops over videos and classes, in fractions."""

import itertools
import random
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import eval_util

# Four videos, five classes; no score twice, so all can be done by hand.
_PREDICTIONS = np.array(
  [
    [0.95, 0.10, 0.80, 0.30, 0.20],  # Labels 0, 3: ranks 1, 3.
    [0.15, 0.90, 0.25, 0.70, 0.05],  # Label 3: rank 2.
    [0.60, 0.35, 0.55, 0.45, 0.85],  # Labels 0, 2, 4: ranks 2, 3, 1.
    [0.40, 0.65, 0.12, 0.22, 0.32],  # No label.
  ]
)
_LABELS = np.array(
  [[1, 0, 0, 1, 0], [0, 0, 0, 1, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]]
)


def _ranking(scores):
  return sorted(range(len(scores)), key=lambda c: (-scores[c], c))


def _hit_at_one_reference(predictions, labels):
  hits = [
    row[_ranking(scores)[0]] > 0 for scores, row in zip(predictions, labels)
  ]
  return Fraction(sum(map(int, hits)), len(hits))


def _video_perr_reference(scores, row):
  num_labels = sum(int(label > 0) for label in row)
  hits = sum(
    int(row[c] > 0 and scores[c] > 0) for c in _ranking(scores)[:num_labels]
  )
  return Fraction(hits, num_labels) if num_labels else None


def _perr_reference(predictions, labels):
  values = [_video_perr_reference(*video) for video in zip(predictions, labels)]
  values = [value for value in values if value is not None]
  return sum(values, Fraction(0)) / max(len(values), 1)


def _ap_reference(pairs, num_positives):
  """Mean over all orders of (score, hit) that descend."""
  if not num_positives:
    return Fraction(0)
  values = []
  for order in itertools.permutations(pairs):
    if all(a[0] >= b[0] for a, b in itertools.pairwise(order)):
      hits, total = 0, Fraction(0)
      for rank, (_, hit) in enumerate(order, start=1):
        if hit:
          hits += 1
          total += Fraction(hits, rank)
      values.append(total / num_positives)
  return sum(values) / len(values)


def _pairs_reference(predictions, labels, k):
  """(class, score, hit) of the k best classes of each video."""
  return [
    (c, scores[c], row[c] > 0)
    for scores, row in zip(predictions, labels)
    for c in _ranking(scores)[:k]
  ]


def _gap_reference(predictions, labels, k):
  pairs = _pairs_reference(predictions, labels, k)
  return _ap_reference([pair[1:] for pair in pairs], int(np.sum(labels > 0)))


def _aps_reference(predictions, labels, k):
  pairs = _pairs_reference(predictions, labels, k)
  counts = [int(np.sum(column > 0)) for column in labels.T]
  return [
    _ap_reference([p[1:] for p in pairs if p[0] == c], count)
    for c, count in enumerate(counts)
    if count
  ]


def _random_batch(rng, num_videos, num_class):
  """Few distinct scores, of which one is 0, so that everything ties."""
  predictions = rng.choice([0.0, 0.25, 0.5, 0.75], (num_videos, num_class))
  labels = rng.rand(num_videos, num_class) < rng.choice([0.1, 0.5, 0.9])
  return predictions, labels


def _in_graph(predictions, labels, k):
  """What a session would fetch for accumulate_top_k, written as loops."""
  order = [_ranking(scores)[:k] for scores in predictions]
  perr = [_video_perr_reference(*video) for video in zip(predictions, labels)]
  return dict(
    classes=np.array(order, np.int32),
    scores=np.array([s[o] for s, o in zip(predictions, order)]),
    hits=np.array([r[o] > 0 for r, o in zip(labels, order)]),
    num_labels=np.sum(labels > 0, axis=1).astype(np.int32),
    perr=np.array([np.nan if p is None else float(p) for p in perr]),
    num_positives=np.sum(labels > 0, axis=0),
  )


def _dense_arguments():
  return dict(predictions=_PREDICTIONS, labels=_LABELS, loss=0.5)


def _top_k_arguments(k=3):
  return _in_graph(_PREDICTIONS, _LABELS, k) | dict(loss=0.5)


def test_hit_at_one_counts_best_classes_that_are_labels():
  assert eval_util.calculate_hit_at_one(_PREDICTIONS, _LABELS) == (
    (1 + 0 + 1 + 0) / 4
  )


def test_hit_at_one_takes_the_lower_class_among_equals():
  predictions = [[0.1, 0.5, 0.5], [0.1, 0.5, 0.5]]
  assert (
    eval_util.calculate_hit_at_one(predictions, [[0, 1, 0], [0, 0, 1]]) == 1 / 2
  )


def test_perr_leaves_out_videos_without_labels():
  perr = eval_util.calculate_precision_at_equal_recall_rate(
    _PREDICTIONS, _LABELS
  )
  assert perr == pytest.approx((1 / 2 + 0 + 3 / 3) / 3, rel=1e-15)


def test_perr_counts_no_hit_whose_prediction_is_not_positive():
  predictions = [[0.9, 0.0, -0.5]]
  assert (
    eval_util.calculate_precision_at_equal_recall_rate(predictions, [[1, 1, 1]])
    == 1 / 3
  )


def test_perr_takes_the_lower_class_among_equals():
  assert (
    eval_util.calculate_precision_at_equal_recall_rate(
      [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [[1, 0, 0], [0, 1, 0]]
    )
    == 1 / 2
  )


def test_gap_ranks_the_pairs_of_all_videos():
  # .95+ .90 .85+ .80 .70+ .65 .60+ .40: six labels, two not retrieved.
  assert eval_util.calculate_gap(
    _PREDICTIONS, _LABELS, top_k=2
  ) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5 + 4 / 7) / 6, rel=1e-15)


def test_gap_takes_twenty_pairs_unless_told():
  predictions = np.arange(23.0)[None, ::-1]
  labels = np.arange(23)[None] >= 19  # Rank 20 counts, 21 to 23 do not.
  assert eval_util.calculate_gap(predictions, labels) == 1 / 20 / 4


def test_top_k_by_class_sorts_the_best_pairs_out_by_class():
  assert eval_util.top_k_by_class(_PREDICTIONS, _LABELS, 2) == (
    [[0.95, 0.60, 0.40], [0.90, 0.65], [0.80], [0.70], [0.85]],
    [[True, True, False], [False, False], [False], [True], [True]],
    [2, 0, 1, 2, 1],
  )


def test_top_k_by_class_clips_k_to_the_classes():
  assert eval_util.top_k_by_class(_PREDICTIONS, _LABELS) == (
    _PREDICTIONS.T.tolist(),
    (_LABELS.T > 0).tolist(),
    [2, 0, 1, 2, 1],
  )


def _many_scores(rng, shape, kind):
  """Predictions of which none, some, nearly all or all tie."""
  scores = rng.rand(*shape).astype(np.float32)
  return {
    "distinct": scores,
    "few levels": np.floor(scores * 4) / 4,
    "mostly zero": np.where(scores > 0.98, scores, np.float32(0)),
    "constant": np.full_like(scores, -0.5),
    "infinities": rng.choice(np.float32([-np.inf, -np.inf, 0, np.inf]), shape),
  }[kind]


@pytest.mark.parametrize(
  "kind", ["distinct", "few levels", "mostly zero", "constant", "infinities"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_selection_matches_a_stable_sort(kind, dtype):
  rng = np.random.RandomState(0)
  for num_class in (1, 2, 17, 331):
    predictions = _many_scores(rng, (7, num_class), kind).astype(dtype)
    predictions[3] = 0  # One video whose classes all tie.
    labels = rng.rand(7, num_class) < 0.2
    expected = [_ranking(row) for row in predictions.tolist()]
    for k in (1, 2, 5, num_class - 1, num_class, num_class + 1):
      classes, scores, hits = eval_util._top_pairs(predictions, labels, k)
      k = max(k, 1)
      assert classes.tolist() == [row[:k] for row in expected]
      rows = np.arange(7)[:, None]
      np.testing.assert_array_equal(scores, predictions[rows, classes])
      np.testing.assert_array_equal(hits, labels[rows, classes])
      assert scores.dtype == dtype


def test_evaluation_metrics_by_hand():
  metrics = eval_util.EvaluationMetrics(5, top_k=2, top_n=None)
  batch = metrics.accumulate(_PREDICTIONS, _LABELS, [0.1, 0.2, 0.4, 0.8])
  assert batch == pytest.approx(
    {"hit_at_one": 2 / 4, "perr": (1 / 2 + 0 + 1) / 3, "loss": 1.5 / 4}
  )
  assert metrics.get() == {
    "avg_hit_at_one": 2 / 4,
    "avg_perr": pytest.approx((1 / 2 + 0 + 1) / 3),
    "avg_loss": pytest.approx(1.5 / 4),
    # Class 1 has no label; 2 one that is not retrieved.
    "aps": [(1 / 1 + 2 / 2) / 2, 0.0, 1 / 2, 1.0],
    "gap": pytest.approx((1 / 1 + 2 / 3 + 3 / 5 + 4 / 7) / 6),
  }


# (batches, C, k): as many pairs as the reference can put into all orders.
@hypothesis.given(
  st.sampled_from(
    [([1], 5, 3), ([2], 4, 3), ([1, 2], 5, 2), ([4, 2], 3, 1), ([2], 3, 7)]
  ),
  st.integers(0, 2**31),
)
def test_metrics_match_loops_on_ties_in_batches(sizes, seed):
  sizes, num_class, k = sizes
  rng = np.random.RandomState(seed)
  metrics = eval_util.EvaluationMetrics(num_class, k, None)
  batches = [_random_batch(rng, size, num_class) for size in sizes]
  for batch in batches:
    result = metrics.accumulate(*batch, 0.5)
    assert result["hit_at_one"] == eval_util.calculate_hit_at_one(*batch)
    assert result["perr"] == (
      eval_util.calculate_precision_at_equal_recall_rate(*batch)
    )
  whole = [np.concatenate(arrays) for arrays in zip(*batches)]
  gap = pytest.approx(float(_gap_reference(*whole, k)), rel=1e-14)
  assert eval_util.calculate_gap(*whole, k) == gap
  assert metrics.get() == {
    "avg_hit_at_one": pytest.approx(
      float(_hit_at_one_reference(*whole)), abs=1e-15
    ),
    "avg_perr": pytest.approx(float(_perr_reference(*whole)), rel=1e-14),
    "avg_loss": 0.5,
    "aps": pytest.approx(
      [float(ap) for ap in _aps_reference(*whole, k)], rel=1e-14
    ),
    "gap": gap,
  }


def test_one_batch_or_many_give_the_same_result():
  rng = np.random.RandomState(0)
  predictions, labels = _random_batch(rng, 97, 11)
  loss = rng.rand(97)
  whole = eval_util.EvaluationMetrics(11, 5, 7)
  whole.accumulate(predictions, labels, loss)
  batches = eval_util.EvaluationMetrics(11, 5, 7)
  for batch in np.split(np.arange(97), [1, 3, 50]):
    batches.accumulate(predictions[batch], labels[batch], loss[batch])
  expected, result = whole.get(), batches.get()
  # Sums of floats depend on where batches end, in the last digit.
  for name in ("avg_loss", "avg_perr"):
    assert result.pop(name) == pytest.approx(expected.pop(name), rel=1e-14)
  assert result == expected


@pytest.mark.parametrize("top_k, top_n", [(2, None), (3, 1), (7, 4)])
def test_top_k_and_dense_agree_to_the_last_digit(top_k, top_n):
  rng = np.random.RandomState(0)
  dense = eval_util.EvaluationMetrics(5, top_k, top_n)
  sparse = eval_util.EvaluationMetrics(5, top_k, top_n)
  for num_videos in (3, 1, 13):
    batch = _random_batch(rng, num_videos, 5)
    loss = rng.rand(num_videos)
    assert sparse.accumulate_top_k(
      **_in_graph(*batch, min(top_k, 5)), loss=loss
    ) == dense.accumulate(*batch, loss)
  assert sparse.get() == dense.get()


def test_scalar_loss_is_the_mean_of_its_batch():
  metrics = eval_util.EvaluationMetrics(5, 2, None)
  assert metrics.accumulate(_PREDICTIONS, _LABELS, 0.5)["loss"] == 0.5
  metrics.accumulate(_PREDICTIONS[:1], _LABELS[:1], np.float32(3.0))
  assert metrics.get()["avg_loss"] == (4 * 0.5 + 1 * 3.0) / 5


def test_perr_weighs_videos_with_labels_and_not_batches():
  metrics = eval_util.EvaluationMetrics(5, 2, None)
  metrics.accumulate(_PREDICTIONS[:1], _LABELS[:1], 0.5)
  batch = metrics.accumulate(_PREDICTIONS[3:], _LABELS[3:], 0.5)
  assert batch["perr"] == metrics.get()["avg_perr"] - 1 / 2 == 0.0
  metrics.accumulate(_PREDICTIONS[1:3], _LABELS[1:3], 0.5)
  assert metrics.get()["avg_perr"] == pytest.approx((1 / 2 + 0 + 1) / 3)
  assert metrics.get()["avg_hit_at_one"] == 2 / 4


def test_no_labels_at_all_yield_zeros():
  none = np.zeros([4, 5])
  assert eval_util.calculate_gap(_PREDICTIONS, none) == 0.0
  assert (
    eval_util.calculate_precision_at_equal_recall_rate(_PREDICTIONS, none)
    == 0.0
  )
  metrics = eval_util.EvaluationMetrics(5, 2, None)
  metrics.accumulate(_PREDICTIONS, np.zeros([4, 5]), 0.5)
  assert metrics.get() == {
    "avg_hit_at_one": 0.0,
    "avg_perr": 0.0,
    "avg_loss": 0.5,
    "aps": [],
    "gap": 0.0,
  }


def test_top_n_limits_the_ranks_of_map_and_not_of_gap():
  predictions = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]
  labels = [[0, 0], [1, 0], [1, 0]]
  metrics = eval_util.EvaluationMetrics(2, 1, 2)
  metrics.accumulate(predictions, labels, 0.5)
  assert metrics.get()["aps"] == [(1 / 2) / 2]
  assert metrics.get()["gap"] == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize(
  "convert",
  [
    lambda x: x.astype(bool),
    lambda x: x.astype(np.float32),
    lambda x: x * 7 - 3 * (1 - x),
    lambda x: x.tolist(),
  ],
)
def test_any_label_above_zero_is_a_positive(convert):
  expected = eval_util.EvaluationMetrics(5, 2, None)
  expected.accumulate(_PREDICTIONS, _LABELS, 0.5)
  metrics = eval_util.EvaluationMetrics(5, 2, None)
  metrics.accumulate(_PREDICTIONS, convert(_LABELS), 0.5)
  assert metrics.get() == expected.get()


def test_float32_is_ranked_as_it_is():
  predictions = _PREDICTIONS.astype(np.float32)
  assert eval_util.calculate_gap(predictions, _LABELS) == (
    eval_util.calculate_gap(predictions.astype(np.float64), _LABELS)
  )


def test_clear_starts_anew():
  metrics = eval_util.EvaluationMetrics(5, 2, None)
  metrics.accumulate(1 - _PREDICTIONS, _LABELS, 3.5)
  metrics.clear()
  with pytest.raises(ValueError, match="no video was accumulated"):
    metrics.get()
  metrics.accumulate(_PREDICTIONS, _LABELS, 0.5)
  fresh = eval_util.EvaluationMetrics(5, 2, None)
  fresh.accumulate(_PREDICTIONS, _LABELS, 0.5)
  assert metrics.get() == fresh.get()


def test_global_random_state_is_untouched():
  before, np_before = random.getstate(), np.random.get_state()
  ties = np.full([4, 5], 0.5)
  eval_util.calculate_gap(ties, _LABELS)
  metrics = eval_util.EvaluationMetrics(5, 2, None)
  metrics.accumulate(ties, _LABELS, 0.5)
  metrics.get()
  assert random.getstate() == before
  after = np.random.get_state()
  assert all(np.array_equal(x, y) for x, y in zip(np_before, after))


@pytest.mark.parametrize(
  "function",
  [
    eval_util.calculate_hit_at_one,
    eval_util.calculate_precision_at_equal_recall_rate,
    eval_util.calculate_gap,
    eval_util.top_k_by_class,
  ],
)
@pytest.mark.parametrize(
  "predictions, labels, message",
  [
    (np.zeros([2, 3]), np.zeros([2, 4]), r"got \(2, 3\) and \(2, 4\)"),
    (np.zeros(3), np.zeros(3), r"got \(3,\) and \(3,\)"),
    (np.zeros([0, 3]), np.zeros([0, 3]), r"B >= 1 .*, got \(0, 3\)"),
    (np.zeros([2, 0]), np.zeros([2, 0]), r"C >= 1, got \(2, 0\)"),
    ([[0.5, np.nan]], [[1, 0]], "predictions must not be NaN"),
  ],
)
def test_every_metric_checks_its_batch(function, predictions, labels, message):
  with pytest.raises(ValueError, match=message):
    function(predictions, labels)


@pytest.mark.parametrize("k", [0, -1, 2.0, "3", True])
def test_k_must_be_one_or_more(k):
  message = f"int >= 1, got {k!r}"
  with pytest.raises(ValueError, match=message):
    eval_util.calculate_gap(_PREDICTIONS, _LABELS, k)
  with pytest.raises(ValueError, match=message):
    eval_util.top_k_by_class(_PREDICTIONS, _LABELS, k)
  with pytest.raises(ValueError, match=message):
    eval_util.EvaluationMetrics(5, k, None)


def test_evaluation_metrics_check_num_class_and_top_n():
  with pytest.raises(ValueError, match="num_class must be an int >= 2, got 1"):
    eval_util.EvaluationMetrics(1, 2, None)
  with pytest.raises(ValueError, match="top_n must be an int >= 0"):
    eval_util.EvaluationMetrics(5, 2, -1)


@pytest.mark.parametrize(
  "change, message",
  [
    (
      dict(predictions=_PREDICTIONS[:, :3], labels=_LABELS[:, :3]),
      r"C=5 classes, got \(4, 3\)",
    ),
    (dict(labels=_LABELS[:3]), r"got \(4, 5\) and \(3, 5\)"),
    (dict(predictions=np.full([4, 5], np.nan)), "predictions must not be NaN"),
    (dict(loss=[0.5, 0.5]), r"loss must be of \(4,\), got \(2,\)"),
  ],
)
def test_accumulate_checks_its_arguments(change, message):
  metrics = eval_util.EvaluationMetrics(5, 3, None)
  with pytest.raises(ValueError, match=message):
    metrics.accumulate(**(_dense_arguments() | change))
  with pytest.raises(ValueError, match="no video was accumulated"):
    metrics.get()


@pytest.mark.parametrize(
  "change, message",
  [
    (_top_k_arguments(k=2), r"classes must be .* \(4, 3\), got \(4, 2\)"),
    (dict(scores=0.5), r"B >= 1 videos, got scores of \(\)"),
    (dict(scores=np.zeros([0, 3])), r"B >= 1 videos, got scores of \(0, 3\)"),
    (dict(classes=np.zeros([3, 3], int)), r"classes must .* got \(3, 3\)"),
    (dict(classes=np.full([4, 3], 5)), r"ints in 0\.\.4"),
    (dict(scores=np.zeros([4, 7])), r"scores must .* got \(4, 7\)"),
    (dict(scores=np.full([4, 3], np.nan)), "scores must not be NaN"),
    (dict(scores=[[0.1, 0.2, 0.3]] * 4), "scores must descend"),
    (dict(hits=np.zeros([4, 5])), r"hits must .* got \(4, 5\)"),
    (dict(hits=np.ones([4, 3])), "Video 0 has more hits than num_labels"),
    (dict(num_labels=[2, 1, 3]), r"num_labels must .* got \(3,\)"),
    (dict(num_labels=[2, 1, 3, -1]), "num_labels must be whole"),
    (dict(num_labels=[2, 1, 3, 1]), r"Sums of .* differ: .*6.*7"),
    (dict(perr=0.5), r"perr must .* got \(\)"),
    (
      dict(perr=[0.5, np.nan, 1.5, 0.5]),
      r"perr of .* in \[0, 1\]: \[nan 1\.5\]",
    ),
    (dict(loss=[[0.5]]), r"loss must be .* got \(1, 1\)"),
    (dict(num_positives=[2, 0, 1, 3]), r"num_positives must .* got \(4,\)"),
    (dict(num_positives=[2, 0, 1, 1.5, 1]), "num_positives must be whole"),
  ],
)
def test_accumulate_top_k_checks_its_arguments(change, message):
  metrics = eval_util.EvaluationMetrics(5, 3, None)
  with pytest.raises(ValueError, match=message):
    metrics.accumulate_top_k(**(_top_k_arguments() | change))
  with pytest.raises(ValueError, match="no video was accumulated"):
    metrics.get()
  metrics.accumulate_top_k(**_top_k_arguments())
  expected = eval_util.EvaluationMetrics(5, 3, None)
  expected.accumulate(**_dense_arguments())
  assert metrics.get() == expected.get()
