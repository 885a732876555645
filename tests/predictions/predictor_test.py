"""Tests of predictions/predictor.py.

Axes: B videos, C classes, K predictions kept.
"""

import threading

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import eval_util
import model_flags
from checkpoints import restore
from models import scopes
from predictions import predictor
from records import report as read_report
from tests import goldens_test, layers, runs
from tests.checkpoints import restore_test
from tests.references import layers as references

B, C = 6, 7


def graph_metrics(predictions, labels, k, weights=None):
  """`batch_metrics` of arrays, run in a graph of unknown B."""
  with tf.Graph().as_default(), tf.Session() as session:
    fetches = predictor.batch_metrics(
      tf.placeholder_with_default(predictions, [None, predictions.shape[1]]),
      tf.placeholder_with_default(labels, [None, labels.shape[1]]),
      k,
      weights,
    )
    return session.run(fetches)


def random_batch(seed, levels=None, share_of_labels=0.4):
  """float32 and bool [B, C]; predictions of few levels are full of ties."""
  rng = np.random.RandomState(seed)
  predictions = rng.rand(B, C)
  if levels:
    predictions = np.floor(predictions * levels) / levels
  labels = rng.rand(B, C) < share_of_labels
  labels[1] = False  # A video without labels, and one with all of them.
  labels[2] = True
  return predictions.astype(np.float32), labels


def rated_batch():
  """float32 and two bool [B, C]: predictions, labels, whether rated.

  All but one of the rated predictions tie with what no prediction is: 0.
  """
  rng = np.random.RandomState(3)
  is_rated = rng.rand(B, C) < 0.5
  is_rated[0] = [True] + [False] * (C - 1)
  labels = is_rated & (rng.rand(B, C) < 0.6)
  labels[0] = is_rated[0]
  # Different, for the reference not to deal with ties, but in one class.
  predictions = rng.permutation(np.arange(1, B * C + 1)).reshape(B, C) / 99
  predictions[0, 0] = predictions[3, 4] = 0.0
  is_rated[3, 4], labels[3, 4] = True, True
  return np.float32(predictions), labels, is_rated


def average_precision(pairs, num_positives):
  """Of [(score, whether it is right)], of which no two tie."""
  hits, total = 0, 0.0
  for rank, (_, is_hit) in enumerate(sorted(pairs, reverse=True), start=1):
    hits += is_hit
    total += is_hit * hits / rank
  return total / num_positives


def rated_metrics(predictions, labels, is_rated, k):
  """The metrics of segments by their definition: only rated pairs exist."""
  best = []  # Of each segment its pairs (score, class, whether right).
  for b in range(B):
    pairs = [
      (predictions[b, c], c, labels[b, c]) for c in range(C) if is_rated[b, c]
    ]
    best.append(sorted(pairs, reverse=True))
  kept = [pair for pairs in best for pair in pairs[:k]]
  aps = [
    average_precision(
      [(score, hit) for score, label, hit in kept if label == c],
      labels[:, c].sum(),
    )
    for c in range(C)
    if labels[:, c].any()
  ]
  counts = labels.sum(axis=1)
  return {
    "gap": average_precision([(s, hit) for s, _, hit in kept], labels.sum()),
    "aps": aps,
    "hit_at_one": np.mean([bool(pairs and pairs[0][2]) for pairs in best]),
    "perr": np.mean(
      [
        sum(hit for _, _, hit in pairs[:count]) / count
        for pairs, count in zip(best, counts)
        if count
      ]
    ),
  }


def run_numbers(count, work, report=None):
  """List of `run_batches` on the numbers below `count`.

  Args:
    count: int.
    work: function of int and giving int, called with each number in its run.
    report: `read_report.ReadReport`.
  """
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.data.Dataset.range(10, 10 + count).enumerate()
    number, value = tf.data.make_one_shot_iterator(data).get_next()
    done = tf.numpy_function(
      lambda value: np.int64(work(int(value) - 10)), [value], tf.int64
    )
    return list(
      predictor.run_batches(
        session,
        number,
        {"value": value - 10, "done": done},
        report or read_report.ReadReport(),
      )
    )


class TestRunBatches:
  @pytest.mark.parametrize("count", [0, 1, 2, 7])
  def test_gives_each_batch_once_and_in_order(self, count):
    found = run_numbers(count, lambda number: 2 * number)
    assert found == [{"value": i, "done": 2 * i} for i in range(count)]

  def test_a_batch_that_ends_early_waits_for_the_one_before(self):
    second_ended = threading.Event()

    def work(number):
      if number == 0:
        assert second_ended.wait(timeout=60)  # Two run at the same time.
      if number == 1:
        second_ended.set()
      return number

    found = run_numbers(5, work)
    assert [values["value"] for values in found] == list(range(5))

  def _numbers(self, session, ran):
    """`run_batches` of 0 to 8, which end up in `ran`; the number of each."""
    data = tf.data.Dataset.range(9).enumerate()
    number, value = tf.data.make_one_shot_iterator(data).get_next()
    run = tf.numpy_function(
      lambda value: np.int64(ran.append(int(value)) or value),
      [value],
      tf.int64,
    )
    report = read_report.ReadReport()
    return predictor.run_batches(session, number, run, report), number

  def test_holds_two_batches_at_most(self):
    started = []
    with tf.Graph().as_default(), tf.Session() as session:
      batches, _ = self._numbers(session, started)
      for taken, values in enumerate(batches, start=1):
        assert values == taken - 1
        assert len(started) <= taken + 2

  def test_a_caller_that_stops_waits_for_what_is_running_and_no_more(self):
    ended = []
    with tf.Graph().as_default(), tf.Session() as session:
      batches, number = self._numbers(session, ended)
      assert next(batches) == 0
      batches.close()
      assert sorted(ended) == [0, 1, 2]
      assert session.run(number) == 3

  def test_a_run_that_fails_ends_it_with_what_the_reader_says(self):
    report = read_report.ReadReport()

    def work(number):
      if number == 3:
        report.fail("No record is usable.")
      return number

    with pytest.raises(read_report.StrictRecordError, match="No record is"):
      run_numbers(9, work, report)

  def test_any_other_failure_is_tensorflows(self):
    with pytest.raises(tf.errors.OpError, match="ZeroDivisionError"):
      run_numbers(9, lambda number: number // (number - 3))


class TestBatchMetrics:
  @pytest.mark.parametrize("k", [1, 3, C, C + 4])
  @pytest.mark.parametrize("levels", [None, 3, 1], ids="levels={}".format)
  def test_are_those_of_dense_predictions_to_the_last_digit(self, k, levels):
    dense = eval_util.EvaluationMetrics(C, k, None)
    sparse = eval_util.EvaluationMetrics(C, k, None)
    for seed in range(3):
      predictions, labels = random_batch(seed, levels)
      loss = np.random.RandomState(seed).rand(B)
      expected = dense.accumulate(predictions, labels, loss)
      found = graph_metrics(predictions, labels, k)
      assert sparse.accumulate_top_k(**found, loss=loss) == expected
    assert sparse.get() == dense.get()

  @pytest.mark.parametrize("num_batches", [1, 2, 3])
  @pytest.mark.parametrize("k", [2, C])
  def test_of_segments_are_those_of_the_rated_pairs_alone(self, k, num_batches):
    predictions, labels, is_rated = rated_batch()
    metrics = eval_util.EvaluationMetrics(C, k, None)
    for rows in np.array_split(np.arange(B), num_batches):
      found = graph_metrics(
        predictions[rows], labels[rows], k, np.float32(is_rated[rows])
      )
      metrics.accumulate_top_k(**found, loss=0.0)
    expected = rated_metrics(predictions, labels, is_rated, k)
    found = metrics.get()
    assert found["gap"] == pytest.approx(expected["gap"], rel=1e-12)
    assert found["aps"] == pytest.approx(expected["aps"], rel=1e-12)
    assert found["avg_hit_at_one"] == expected["hit_at_one"]
    assert found["avg_perr"] == pytest.approx(expected["perr"], rel=1e-12)

  def test_a_label_that_nobody_rated_is_none(self):
    predictions, labels, is_rated = rated_batch()
    weights = np.float32(is_rated)
    expected = graph_metrics(predictions, labels, 3, weights)
    found = graph_metrics(predictions, labels | ~is_rated, 3, weights)
    for name, value in expected.items():
      np.testing.assert_array_equal(found[name], value)

  @pytest.mark.parametrize("k", [1, 3])
  def test_perr_looks_deeper_than_k_for_a_video_with_more_labels(self, k):
    # Best first: classes 0 to 4; the labels are 0, 2, 3, 4, so that 3 of the
    # best 4 are right.
    predictions = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]], np.float32)
    labels = np.array([[True, False, True, True, True]])
    found = graph_metrics(predictions, labels, k)
    assert found["perr"].tolist() == [3 / 4]
    assert found["classes"].tolist() == [[0, 1, 2][:k]]
    assert found["hits"].tolist() == [[True, False, True][:k]]
    assert found["num_labels"].tolist() == [4]
    assert found["num_positives"].tolist() == [1, 0, 1, 1, 1]

  def test_a_label_predicted_as_zero_is_no_hit_of_perr(self):
    predictions = np.array([[0.0, 0.0, 0.4]], np.float32)
    labels = np.array([[True, False, True]])
    assert graph_metrics(predictions, labels, 3)["perr"].tolist() == [1 / 2]

  def test_no_labels_at_all(self):
    predictions, labels = random_batch(0)
    labels[:] = False
    found = graph_metrics(predictions, labels, 3)
    assert found["num_labels"].tolist() == [0] * B
    metrics = eval_util.EvaluationMetrics(C, 3, None)
    metrics.accumulate_top_k(**found, loss=0.0)
    assert metrics.get()["gap"] == metrics.get()["avg_perr"] == 0.0


class TestTopK:
  def top_k(self, predictions, k):
    predictions = np.array(predictions, np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
      return [
        values.tolist()
        for values in session.run(predictor.top_k(tf.constant(predictions), k))
      ]

  def test_puts_the_lower_class_first_among_equals(self):
    classes, scores = self.top_k([[0.5, 1.0, 0.5, 1.0, 0.0], [0.25] * 5], 4)
    assert classes == [[1, 3, 0, 2], [0, 1, 2, 3]]
    assert scores == [[1.0, 1.0, 0.5, 0.5], [0.25] * 4]

  def test_keeps_at_most_all_classes(self):
    classes, _ = self.top_k([[0.5, 1.0, 0.75]], 20)
    assert classes == [[1, 2, 0]]


class TestPredict:
  def test_is_of_the_model_in_evaluation(self, tmp_path):
    values = restore_test.values_of(moe_prob_gating=True)
    checkpoint, stored = restore_test.save(tmp_path, values)
    features = np.random.RandomState(2).randn(5, 12)
    with tf.Graph().as_default(), tf.Session() as session:
      predictions = restore_test.build_predictions(values, features)
      assert predictions.dtype == tf.float32
      assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
      restore.restore(session, checkpoint)
      actual = session.run(predictions)
    variables = {
      name.removeprefix(f"{scopes.SCOPE}/"): value
      for name, value in stored.items()
    }
    rows = [references.unit(row) for row in features]
    expected = references.mixture_of_experts(rows, variables, runs.NUM_CLASSES)
    gates = references.probability_gates(expected, variables, False, False)
    layers.assert_close(actual, np.multiply(expected, gates))


@pytest.mark.slow
class TestPredictor:
  def open(self, **data):
    directory = str(goldens_test.HERE / "DbofModel")
    return directory, predictor.Predictor(
      model_flags.load(directory),
      [goldens_test.FRAME_RECORDS],
      lambda batch, predictions: (batch["video_ids"], predictions),
      use_labels=False,
      **data,
    )

  def test_gives_every_video_in_its_order_and_may_be_asked_again(self):
    expected = goldens_test.predict("DbofModel")
    directory, opened = self.open(batch_size=2)
    with opened as videos:
      restored = videos.restore(directory)
      for _ in range(2):
        found = list(videos)
        assert max(len(ids) for ids, _ in found) == 2
        ids = [i.decode() for batch, _ in found for i in batch]
        assert ids == list(expected)
        rows = np.concatenate([rows for _, rows in found])
        for video_id, row in zip(ids, rows):
          np.testing.assert_allclose(row, expected[video_id], 1e-5, 1e-7)
    assert restore.step_of(restored) == goldens_test.STEP

  def test_who_leaves_early_leaves_nothing_running(self):
    directory, opened = self.open(batch_size=1)
    before = set(threading.enumerate())
    with pytest.raises(KeyError), opened as videos:
      videos.restore(directory)
      for _ in videos:
        raise KeyError
    started = set(threading.enumerate()) - before
    assert not any("ThreadPool" in thread.name for thread in started)

  def test_a_damaged_checkpoint_is_told(self, tmp_path):
    (tmp_path / "model.ckpt-7.index").write_bytes(b"none")
    (tmp_path / "model.ckpt-7.data-00000-of-00001").write_bytes(b"none")
    _, opened = self.open(batch_size=1)
    with pytest.raises(ValueError, match="ckpt-7 is damaged"), opened as videos:
      videos.restore(str(tmp_path))


@pytest.mark.slow
class TestScopes:
  # Of one reader; what they have in common has other shapes.
  names = ("DbofModel", "NetVLADModelLF")

  def test_two_models_of_one_reader_live_in_one_graph(self):
    with tf.Graph().as_default(), tf.Session() as session:
      values = {
        name: model_flags.load(str(goldens_test.HERE / name))
        for name in self.names
      }
      reader = model_flags.build_reader(values[self.names[0]])
      data = reader.batches(
        [goldens_test.FRAME_RECORDS], batch_size=99, skip_frameless=False
      )
      batch = tf.data.make_one_shot_iterator(data).get_next()
      predictions = {
        name: predictor.predict(
          model_flags.build_model(values[name]),
          batch,
          reader.num_classes,
          scope=name,
        )
        for name in self.names
      }
      for name in self.names:
        # Each from its own train_dir, the later without touching the earlier.
        restore.restore_newest(
          session, str(goldens_test.HERE / name), scope=name
        )
      ids, found = session.run((batch["video_ids"], predictions))
    for name, rows in found.items():
      expected = goldens_test.predict(name)
      assert sorted(expected) == sorted(i.decode() for i in ids)
      for video_id, row in zip(ids, rows):
        np.testing.assert_allclose(row, expected[video_id.decode()], 1e-6)
