"""Tests of scripts/benchmark*.py and of scripts/baseline_*.py."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from absl import flags

import eval_util
import losses
import model_flags
import program
import readers
from pooling import democratic, frame_sampling
from scripts import (
  baseline_layers,
  baseline_metrics,
  baseline_readers,
  baseline_steps,
  benchmark,
  benchmark_cases,
  benchmark_evaluation,
  benchmark_pooling,
  benchmark_training,
)
from scripts import benchmark_tools as tools
from scripts.benchmark_units import Unit, UnitFailed
from tests import layers, runs

FAST = "FrameLevelLogisticModel"
# Rounding of sums in another order.
RTOL = 1e-4


def parsed(*arguments):
  """The flags of a command line."""
  values = flags.FlagValues()
  benchmark.define_flags(values)
  values(["benchmark.py", *arguments])
  return values


TINY = {
  "feature_sizes": "32,16",
  "num_classes": 30,
  "batch_size": 4,
  "video_batch_size": 8,
  "clusters": 4,
  "hidden_size": 8,
  "frames": 3,
  "min_frames": 5,
  "max_frames": 9,
  "num_videos": 17,
  "shuffle_buffer": 16,
  "metrics_videos": 70,
  "repeats": 1,
  "seconds": 0.01,
  "memory_gb": 0.01,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Directory of tiny records of both levels."""
  directory = tmp_path_factory.mktemp("data")
  for level in ("frame", "video"):
    runs.write_data(
      directory / level,
      level=level,
      feature_sizes=(32, 16),
      num_classes=30,
      num_videos=17,
      min_frames=5,
      max_frames=9,
    )
  return str(directory)


@pytest.fixture
def settings(data_dir):
  return benchmark.settings_from_flags(
    parsed(*runs.flag_list({**TINY, "data_dir": data_dir}))
  )


@pytest.fixture
def product(monkeypatch):
  """A square product that costs nothing."""
  monkeypatch.setattr(benchmark_training, "_MATRIX_SIZE", 8)


# Baselines.


@pytest.mark.parametrize("name", benchmark_pooling.LAYERS)
def test_baselines_are_equal_to_our_layers_forward_and_backward(settings, name):
  # Covariances of fewer unit residuals than their group has features are
  # little but what they are shrunk by.
  settings = dataclasses.replace(settings, frames=13, clusters=8)
  layer = benchmark_pooling.LAYERS[name]
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    inputs = layer.inputs(settings, 5)
    variables = tf.trainable_variables()
    found = []
    for function in (layer.ours, layer.direct):
      output = function(*inputs)
      # Not the output itself: along a unit vector its gradient is zero.
      slopes = tf.random.stateless_normal(tf.shape(output), [1, 2])
      found.append([output, *tf.gradients(output, variables, slopes)])
    session.run(tf.global_variables_initializer())
    ours, direct = session.run(found)
  assert len(ours) == 1 + len(variables)
  for one, other in zip(ours, direct):
    scale = np.abs(one).max()
    assert scale > 1e-3
    layers.assert_close(other / scale, one / scale, rtol=RTOL, atol=1e-4)


@pytest.mark.parametrize("name", benchmark_pooling.LAYERS)
def test_baselines_leave_padding_out(settings, name):
  layer = benchmark_pooling.LAYERS[name]
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    *inputs, last = layer.inputs(settings, 3)
    # The mask is last of attention's inputs, second of the others'.
    parts = [*inputs, last]
    at = next(i for i, part in enumerate(parts) if part.dtype == tf.bool)
    length = parts[at].shape.as_list()[1]
    parts[at] = tf.sequence_mask([length, length - 2, 1], length)
    ours, direct = layer.ours(*parts), layer.direct(*parts)
    session.run(tf.global_variables_initializer())
    ours, direct = session.run([ours, direct])
  layers.assert_close(
    direct / np.abs(ours).max(), ours / np.abs(ours).max(), RTOL, 1e-4
  )


def test_materialised_vlad_is_used_and_changes_no_prediction():
  model = model_flags.build_model(
    runs.model_values(model=benchmark_pooling.MODEL)
  )
  frames = np.random.RandomState(0).randn(2, 5, sum(runs.SIZES.values()))

  def predict(pooling):
    with tf.Graph().as_default() as graph, tf.Session() as session, pooling():
      result = model.create_model(
        tf.constant(frames, tf.float32), 6, tf.constant([5, 3]), False
      )
      layers.randomize(session)
      kinds = [operation.type for operation in graph.get_operations()]
      return session.run(result["predictions"]), kinds

  ours, our_kinds = predict(contextlib.nullcontext)
  direct, direct_kinds = predict(baseline_layers.materialised_vlad)
  assert our_kinds != direct_kinds
  layers.assert_close(direct, ours, RTOL, 1e-5)
  assert predict(contextlib.nullcontext)[1] == our_kinds


def test_the_baseline_refuses_democratic_weights():
  config = democratic.Config(True, False, 0)
  with pytest.raises(ValueError, match="no democratic weights"):
    baseline_layers.vlad(None, None, None, None, democratic=config)


def our_name(name):
  """The variable of NetVLADModelLF that is one of the plain baseline's."""
  parts = {
    "input_bn": "input_bn",
    "netvlad_0/cluster_bn": "netvlad_rgb/assign/batch_norm",
    "netvlad_1/cluster_bn": "netvlad_audio/assign/batch_norm",
    "netvlad_0/cluster_weights2": "netvlad_rgb/centres",
    "netvlad_1/cluster_weights2": "netvlad_audio/centres",
    "netvlad_0/cluster_weights": "netvlad_rgb/assign/weights",
    "netvlad_1/cluster_weights": "netvlad_audio/assign/weights",
    "hidden1_weights": "hidden1/weights",
    "hidden1_biases": "hidden1/biases",
    "gating_weights": "gating/weights",
    "gating_bn": "gating/batch_norm",
  }
  for part, other in parts.items():
    if name.startswith(part):
      return "tower/" + name.replace(part, other, 1)
  return f"tower/{name}"


def to_plain(name, value, sizes, clusters, classes):
  """A variable or gradient of ours in the baseline's order."""
  if name.endswith("cluster_weights2"):
    return value.T[np.newaxis]
  if name == "hidden1_weights":
    parts, start = [], 0
    for depth, count in zip(sizes, clusters):
      part = value[start : start + depth * count]
      part = part.reshape([count, depth, -1]).transpose([1, 0, 2])
      parts.append(part.reshape([depth * count, -1]))
      start += depth * count
    return np.concatenate(parts)
  if name.startswith(("gates/", "experts/")):
    lead = value.shape[:-1]
    return (
      value.reshape([*lead, -1, classes]).swapaxes(-1, -2).reshape(value.shape)
    )
  return value


def test_the_plain_gated_netvlad_is_ours_forward_and_backward():
  b, t, sizes, k, hidden, classes = 7, 4, [5, 3], 4, 6, 11
  l2_penalty = 0.01
  rng = np.random.RandomState(0)
  stored = rng.randint(0, 256, [b, t, sum(sizes)]).astype(np.uint8)
  truth = rng.rand(b, classes) < 0.3
  values = runs.model_values(
    model="NetVLADModelLF",
    feature_sizes=",".join(map(str, sizes)),
    num_classes=classes,
    iterations=0,
    netvlad_cluster_size=str(k),
    netvlad_hidden_size=hidden,
    netvlad_relu=False,
    gating=True,
    moe_prob_gating=True,
    moe_l2=l2_penalty,
  )
  with tf.Graph().as_default(), tf.Session() as session:
    model = model_flags.build_model(values)
    with tf.variable_scope("tower"):
      frames, num_frames = model.prepare_input(
        tf.constant(stored.reshape([b * t, -1])), tf.fill([b], t), True
      )
      ours = model.create_model(frames, classes, num_frames=num_frames)
    ours = ours["predictions"]
    loss = losses.CrossEntropyLoss().calculate_loss(ours, tf.constant(truth))
    loss += tf.losses.get_regularization_loss()
    variables = tf.trainable_variables()
    gradients = {
      v.op.name: g for v, g in zip(variables, tf.gradients(loss, variables))
    }
    stored_values = layers.randomize(session)
    our_results = session.run([ours, loss, gradients])
  with tf.Graph().as_default(), tf.Session() as session:
    plain, loss = baseline_steps.plain_gated_netvlad(
      tf.constant(stored),
      tf.constant(truth),
      feature_sizes=sizes,
      num_frames=0,
      num_clusters=k,
      hidden_size=hidden,
      l2_penalty=l2_penalty,
    )
    variables = tf.trainable_variables()
    order = (sizes, [k, k // 2], classes)
    layers.load(
      session,
      {
        v.op.name: to_plain(
          v.op.name, stored_values[our_name(v.op.name)], *order
        )
        for v in variables
      },
    )
    names = [v.op.name for v in variables]
    predictions, plain_loss, found = session.run(
      [plain, loss, tf.gradients(loss, variables)]
    )
  assert {our_name(name) for name in names} == set(our_results[2])
  layers.assert_close(predictions, our_results[0], RTOL, 1e-5)
  assert plain_loss == pytest.approx(our_results[1], rel=RTOL)
  for name, gradient in zip(names, found):
    expected = to_plain(name, our_results[2][our_name(name)], *order)
    layers.assert_close(gradient, expected, RTOL, 1e-4)


def test_the_plain_step_trains_and_samples_frames():
  rng = np.random.RandomState(0)
  stored = rng.randint(0, 256, [5, 4, 8]).astype(np.uint8)
  with tf.Graph().as_default(), tf.Session() as session:
    _, loss = baseline_steps.plain_gated_netvlad(
      tf.constant(stored),
      tf.constant(rng.rand(5, 7) < 0.3),
      feature_sizes=[5, 3],
      num_frames=6,
      num_clusters=4,
      hidden_size=3,
      l2_penalty=1e-6,
    )
    step = baseline_steps.plain_train_op(loss, learning_rate=0.01)
    session.run(tf.global_variables_initializer())
    before = session.run(loss)
    for _ in range(20):
      session.run(step)
    assert session.run(loss) < before


_KERAS_ORDER = (
  *("input_bn/gamma", "input_bn/beta"),
  *(
    f"netvlad_{i}/{name}"
    for i in range(2)
    for name in (
      *("cluster_weights2", "cluster_weights"),
      *("cluster_bn/gamma", "cluster_bn/beta"),
    )
  ),
  *("hidden1_weights", "hidden1_biases"),
  *("gating_weights", "gating_bn/gamma", "gating_bn/beta"),
  *("gates/weights", "experts/weights", "experts/biases"),
  *("gating_prob_weights", "gating_prob_bn/gamma", "gating_prob_bn/beta"),
)


def test_the_keras_gated_netvlad_is_the_plain_one_forward_and_backward():
  rng = np.random.RandomState(0)
  stored = rng.randint(0, 256, [7, 4, 8]).astype(np.uint8)
  truth = rng.rand(7, 11) < 0.3
  sizes = {
    "feature_sizes": [5, 3],
    "num_frames": 0,
    "num_clusters": 4,
    "hidden_size": 6,
    "l2_penalty": 0.01,
  }
  with tf.Graph().as_default(), tf.Session() as session:
    predictions, loss = baseline_steps.plain_gated_netvlad(
      tf.constant(stored), tf.constant(truth), **sizes
    )
    variables = {v.op.name: v for v in tf.trainable_variables()}
    assert set(variables) == set(_KERAS_ORDER)
    ordered = [variables[name] for name in _KERAS_ORDER]
    layers.randomize(session)
    values = session.run(ordered)
    expected = session.run([predictions, loss, tf.gradients(loss, ordered)])
  model = baseline_steps.KerasGatedNetVLAD(num_classes=11, **sizes)
  model(stored)  # Makes the variables.
  for variable, value in zip(model.trainable_variables, values, strict=True):
    variable.assign(value.reshape(variable.shape))
  layers.assert_close(model(stored).numpy(), expected[0], RTOL, 1e-5)
  loss, gradients = model.loss_and_gradients(stored, truth)
  assert float(loss) == pytest.approx(expected[1], rel=RTOL)
  for found, plain in zip(gradients, expected[2], strict=True):
    plain = plain.reshape(found.shape)
    layers.assert_close(found.numpy(), plain, RTOL, 1e-4)


def test_the_keras_step_trains_and_samples_frames():
  rng = np.random.RandomState(0)
  stored = tf.constant(rng.randint(0, 256, [5, 4, 8]).astype(np.uint8))
  truth = tf.constant(rng.rand(5, 7) < 0.3)
  model = baseline_steps.KerasGatedNetVLAD(
    feature_sizes=[5, 3],
    num_frames=6,
    num_clusters=4,
    hidden_size=3,
    num_classes=7,
    l2_penalty=1e-6,
  )
  step = model.train_step_function(learning_rate=0.01)
  found = [float(step(stored, truth)) for _ in range(21)]
  assert found[-1] < found[0]


def _by_id(session, batch):
  """{id: (features, number of frames, labels)} of batches up to the end."""
  found = {}
  while True:
    try:
      values = session.run(batch)
    except tf.errors.OutOfRangeError:
      return found
    names = ("features", "num_frames", "labels")
    rows = zip(*(values[name] for name in names))
    found.update(zip(values["video_ids"], rows))


def _dataset_by_id(data):
  iterator = tf.data.make_initializable_iterator(data)
  with tf.Session() as session:
    session.run(iterator.initializer)
    return _by_id(session, iterator.get_next())


def _plain_by_id(records):
  return _dataset_by_id(
    baseline_readers.plain_batches(records, batch_size=5, num_readers=3)
  )


def _starter_by_id(records):
  batch = baseline_readers.starter_batches(records, batch_size=5, num_readers=3)
  with tf.Session() as session, baseline_readers.running_queues(session):
    return _by_id(session, batch)


@pytest.mark.parametrize("read", [_plain_by_id, _starter_by_id])
def test_baselines_read_what_our_reader_does(settings, read):
  own = {
    "feature_names": ["rgb", "audio"],
    "feature_sizes": [32, 16],
    "num_classes": 30,
    "max_frames": 8,  # Cuts the longest.
  }
  paths = readers.expand_data_pattern(settings.pattern("frame"))
  with tf.Graph().as_default():
    plain = read(baseline_readers.Records(paths, **own))
  with tf.Graph().as_default():
    reader = readers.YT8MFrameFeatureReader(**own)

    def dequantized(batch):
      floats = frame_sampling.dequantize(batch["features"])
      return {**batch, "features": floats[tf.newaxis]}

    ours = _dataset_by_id(reader.batches(paths, batch_size=1).map(dequantized))
  assert len(ours) == 17 and set(plain) == set(ours)
  for video_id, (features, num_frames, labels) in ours.items():
    plain_features, plain_frames, plain_labels = plain[video_id]
    assert plain_frames == num_frames
    np.testing.assert_array_equal(plain_labels, labels)
    layers.assert_close(plain_features[:num_frames], features, rtol=RTOL)
    assert not plain_features[num_frames:].any()


def test_heaps_find_our_metrics():
  rng = np.random.RandomState(0)
  predictions = rng.rand(41, 13)
  labels = rng.rand(41, 13) < 0.15
  ours = eval_util.EvaluationMetrics(13, 5, None)
  heaps = baseline_metrics.HeapMetrics(13, 5)
  for part in (slice(0, 20), slice(20, 41)):
    ours.accumulate(predictions[part], labels[part], 0.0)
    heaps.accumulate(predictions[part], labels[part])
  expected = ours.get()
  del expected["avg_loss"]
  found = heaps.get()
  assert set(found) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


# Tools.


def test_counts_the_operations_of_products_and_of_loops_exactly():
  b, m, n, k = 3, 5, 7, 11
  with tf.Graph().as_default(), tf.Session() as session:
    rng = np.random.RandomState(0)
    x = tf.placeholder(tf.float32, [None, None, n])
    w = tf.placeholder(tf.float32, [n, k])
    feed = {x: rng.randn(b, m, n), w: rng.randn(n, k)}
    rows = tf.reshape(x, [-1, n])
    fetches = {
      "plain": tf.matmul(rows, w),
      "transposed": tf.matmul(rows, rows, transpose_a=True),
      "batched": tf.matmul(x, x, transpose_b=True),
      "fused": tf.nn.relu(tf.matmul(rows, w) + tf.reduce_sum(w, axis=0)),
      "einsum": tf.einsum("bmn,nk->bmk", x, w),
      "loop": tf.map_fn(lambda each: tf.matmul(each, w), x),
      "other": tf.einsum("bmn->bn", x) + tf.reduce_sum(x, axis=1),
    }
    counts = {
      name: tools.count_products(session, fetch, feed)
      for name, fetch in fetches.items()
    }
  one = 2 * b * m * n * k
  assert counts == {
    "plain": one,
    "transposed": 2 * n * b * m * n,
    "batched": 2 * b * m * m * n,
    "fused": one,
    "einsum": one,
    "loop": one,
    "other": 0,
  }


def test_counts_the_operations_of_a_backward_loop():
  b, m, n = 3, 5, 7
  with tf.Graph().as_default(), tf.Session() as session:
    x = tf.get_variable("x", [b, m, n])
    squares = tf.map_fn(lambda each: tf.matmul(each, each, transpose_b=True), x)
    # d(x x^T) has two products, each as large as the one forward.
    gradient = tf.gradients(tf.reduce_sum(tf.square(squares)), x)
    session.run(tf.global_variables_initializer())
    count = tools.count_products(session, gradient)
  assert count == 3 * (2 * b * m * n * m)


def test_an_einsum_of_unnamed_axes_is_not_guessed():
  with pytest.raises(ValueError, match=r"\.\.\.n"):
    tools._summed("...n,nk->...k", [[3, 7], [7, 2]])


class Clock:
  """Stands in for `time`: each reading is later by what was set."""

  def __init__(self):
    self.now = 0.0

  def perf_counter(self):
    return self.now

  def takes(self, seconds):
    def run():
      self.now += seconds

    return run


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(tools, "time", clock)
  return clock


@pytest.mark.parametrize(
  ("seconds", "expected"),
  [
    (1.0, 10),  # Quick: as many as a tenth of the budget has time for.
    (20.0, 3),  # As many as are wanted.
    (60.0, 2),  # As the budget has time for.
    (500.0, 1),
  ],
)
def test_repeats_follow_the_budget(clock, seconds, expected):
  rounds = tools.measure({"a": clock.takes(seconds)}, repeats=3, seconds=100.0)
  assert rounds.repeats == expected
  assert rounds.median("a") == pytest.approx(seconds)


def test_rounds_compare_within_each():
  rounds = tools.Rounds({"a": [2.0, 30.0, 4.0], "b": [1.0, 10.0, 1.0]})
  assert rounds.median("a") == 4.0
  assert rounds.ratio("a", "b") == 3.0
  assert rounds.excess("a", "b") == 3.0
  assert rounds.excess("b", "a") == 0.0


def test_a_variant_may_time_itself(clock):
  rounds = tools.measure({"a": lambda: 7.0}, repeats=1, seconds=0.0)
  assert rounds.median("a") == 7.0


def test_peak_memory_is_this_process_s():
  before = tools.peak_bytes()
  block = np.ones(1 << 26)  # 512 MB.
  assert tools.peak_bytes() >= tools.current_bytes() > block.nbytes
  assert tools.peak_bytes() > before
  del block
  assert tools.peak_bytes() >= 512 << 20


# Cases.


def positive(rows, *names):
  for figures in rows.values():
    for name in names:
      assert figures[name] > 0, (name, figures)


def test_step_measures_its_parts(settings, product):
  given = benchmark_training.train_flags(settings, FAST)
  (figures,) = benchmark_training.step(settings, given).values()
  assert figures["products_gflop"] * 1e9 == 2 * 2 * 4 * 48 * 30
  positive({"": figures}, "examples_per_second", "gradients_ms", "peak_gb")
  assert figures["examples_per_second"] == pytest.approx(
    4 * 1e3 / figures["step_ms"]
  )


@pytest.mark.parametrize("way", ["slim", "Keras"])
def test_plain_step_measures_both(settings, way):
  units = benchmark.plan("plain", "gated-netvlad", settings)
  (unit,) = [unit for unit in units if unit.arguments["way"] == way]
  positive(benchmark_cases.run_unit(settings, unit), "speedup", "plain_step_ms")


def test_plain_step_tells_that_memory_is_short(settings, monkeypatch):
  monkeypatch.setattr(tools, "available_bytes", lambda: 1)
  unit = benchmark.plan("plain", "gated-netvlad", settings)[0]
  with pytest.raises(MemoryError, match="parameters need"):
    benchmark_cases.run_unit(settings, unit)


def test_towers_share_a_batch_and_scaling_divides_it(settings):
  given = benchmark_training.train_flags(
    settings, "LogisticModel", batch_size=4, iterations=3
  )
  rows = benchmark_training.towers(settings, given, [1, 2])
  assert list(rows) == ["1 towers", "2 towers"]
  assert rows["1 towers"]["tower_overhead"] == 0.0
  ((_, figures),) = benchmark_training.scaling(settings, given).items()
  assert figures["example_ms"] == pytest.approx(figures["step_ms"] / 4)
  assert figures["frame_ms"] == pytest.approx(figures["step_ms"] / (4 * 3))


def test_metrics_measures_four_ways(settings):
  rows = benchmark_evaluation.metrics(settings)
  assert rows["heaps"]["speedup"] == 1.0
  positive(rows, "videos_per_second", "speedup")


def test_inference_is_measured_against_the_model(settings, monkeypatch):
  monkeypatch.setattr(benchmark_evaluation, "_INFERENCE_BATCH", 5)
  given = benchmark_training.train_flags(settings, "LogisticModel")
  rows = benchmark_evaluation.inference(settings, given)
  positive(rows, "videos_per_second", "model_videos_per_second")


def test_settings_and_unit_survive_the_way_to_their_process(
  settings, monkeypatch, capsys
):
  unit = Unit("metrics", "row", "metrics", {})
  given = {"settings": dataclasses.asdict(settings), "unit": unit._asdict()}
  monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given)))
  benchmark_cases.main()
  assert "heaps" in json.loads(capsys.readouterr().out.splitlines()[-1])


# The program.


def test_every_case_plans_its_units(settings):
  units = benchmark.plan(",".join(benchmark._CASES), "", settings)
  names = [(unit.case, unit.name) for unit in units]
  assert len(set(names)) == len(names)
  assert {unit.case for unit in units} == set(benchmark._CASES)
  for unit in units:
    json.dumps(unit)
    assert unit.function in benchmark_cases.FUNCTIONS
    if "given" in unit.arguments:
      # train.py takes the flags.
      benchmark_training.parse_flags(unit.arguments["given"])


def test_every_model_has_a_step_and_paper_is_not_in_the_default_run(settings):
  values = parsed()
  assert "paper" not in values["cases"].value
  rows = [unit.name for unit in benchmark.plan("step", "", settings)]
  assert set(model_flags.model_names()) < set(rows)
  assert rows[-2:] == ["gated-netvlad", "gated-netvlad-256"]


def test_models_choose_rows(settings):
  rows = benchmark.plan("step,paper", "NetVLADModelLF,MoeModel", settings)
  assert [(unit.case, unit.name) for unit in rows] == [
    ("step", "MoeModel"),
    ("step", "NetVLADModelLF"),
    ("paper", "NetVLADModelLF"),
  ]


@pytest.mark.parametrize(
  ("cases", "models", "message"),
  [
    ("input,speed", "", "--cases: there is no speed. Known are input, pooling"),
    ("step", "NetVlad", "--models: there is no NetVlad. Known are .*MoeModel"),
    ("", "", "Nothing to measure"),
    ("plain", "MoeModel", "Nothing to measure"),
  ],
)
def test_what_is_not_known_is_named(settings, cases, models, message):
  with pytest.raises(program.UserError, match=message):
    benchmark.plan(cases, models, settings)


def test_feature_sizes_are_those_of_rgb_and_audio():
  with pytest.raises(program.UserError, match="rgb and audio"):
    benchmark.settings_from_flags(parsed("--feature_sizes=1024"))


MACHINE = {
  "cpu": "a processor",
  "cores": 2,
  "memory_gb": 24.0,
  "gpus": [],
  "tensorflow": "2",
  "python": "3",
  "commit": "abc",
}


def report(results, failures=None, **machine):
  return benchmark.Report(
    {**MACHINE, **machine}, {"repeats": 3}, results, failures
  )


def test_a_report_survives_its_file(tmp_path):
  written = report({"step": {"a": {"step_ms": 1.5, "repeats": 3}}}, {})
  path = str(tmp_path / "new" / "benchmark.json")
  written.write(path)
  assert vars(benchmark.Report.read(path)) == vars(written)


@pytest.mark.parametrize("text", [None, "", "[1]", '{"rows": 1}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
  path = tmp_path / "benchmark.json"
  if text is not None:
    path.write_text(text)
  with pytest.raises(program.UserError, match="no file of this program's"):
    benchmark.Report.read(str(path))


def test_the_tables_have_all_figures_repeats_and_failures():
  text = report(
    {
      "step": {
        "a": {"examples_per_second": 12345.6, "step_ms": 1.25, "repeats": 3},
        "b": {"peak_gb": 0.00123, "repeats": 12},
      }
    },
    {"step": {"c": "status 1\nout of memory"}, "input": {"d": "stopped"}},
  ).text()
  assert text.startswith("a processor, 2 cores, 24.0 GB, no GPU, TensorFlow 2,")
  rows = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in text.splitlines()
    if line.startswith("|") and "--" not in line
  ]
  assert rows == [
    [""],
    ["d: FAILED"],
    ["", "examples/s", "step (ms)", "repeats", "peak (GB)"],
    ["a", "12,346", "1.25", "3", ""],
    ["b", "", "", "12", "0.00123"],
    ["c: FAILED", "", "", "", ""],
  ]
  assert "out of memory" in text and "stopped" in text


@pytest.mark.parametrize(
  ("figure", "old", "new", "expected"),
  [
    ("step_ms", 100.0, 104.0, "same"),
    ("step_ms", 100.0, 106.0, "slower"),
    ("step_ms", 100.0, 94.0, "faster"),
    ("videos_per_second", 100.0, 106.0, "faster"),
    ("videos_per_cpu_second", 100.0, 94.0, "slower"),
    ("speedup", 2.0, 3.0, "faster"),
    ("peak_gb", 2.0, 3.0, "more memory"),
    ("peak_saving", 2.0, 3.0, "less memory"),
    ("buffered_record_bytes", 3.0, 2.0, "less memory"),
    ("share_of_machine", 0.5, 0.6, "higher"),
    ("products_gflop", 0.6, 0.5, "lower"),
    ("input_wait_ms", 0.0, 0.0, "same"),
    ("input_wait_ms", 0.0, 1.0, "slower"),
  ],
)
def test_verdicts(figure, old, new, expected):
  assert benchmark.verdict(figure, old, new) == expected


def test_a_comparison_shows_what_changed_and_what_is_missing():
  old = report({"step": {"a": {"step_ms": 10.0, "wait_ms": 0.0, "repeats": 3}}})
  new = report(
    {
      "step": {
        "a": {"step_ms": 5.0, "wait_ms": 1.0, "repeats": 9},
        "b": {"step_ms": 1.0},
      }
    },
    cpu="another",
  )
  old.results["input"] = {"c": {"speedup": 2.0}}
  lines = benchmark.compare(old, new).splitlines()
  cells = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in lines
    if line.startswith("| ")
  ]
  assert cells[1:] == [
    ["step", "a", "step (ms)", "10.0", "5.00", "0.500", "faster"],
    ["step", "a", "wait (ms)", "0.0", "1.00", "", "slower"],
  ]
  text = "\n".join(lines)
  assert "Only in the old file:\n- input, c, speedup" in text
  assert "Only in the new file:\n- step, b, step_ms" in text
  assert "Machines differ: cpu was a processor, is another." in text


def test_two_files_are_compared_without_measuring(tmp_path, capsys):
  paths = [str(tmp_path / name) for name in ("old.json", "new.json")]
  for path, value in zip(paths, (10.0, 20.0)):
    report({"step": {"a": {"step_ms": value}}}, {}).write(path)
  status = benchmark.main(parsed(f"--compare={paths[0]}", f"--new={paths[1]}"))
  assert status == 0
  assert "slower" in capsys.readouterr().out


def test_new_needs_compare():
  with pytest.raises(program.UserError, match="--new needs --compare"):
    benchmark.main(parsed("--new=a.json"))


def run_with(monkeypatch, tmp_path, outcomes):
  """Runs units whose outcomes are given: (`Report`, what its file holds)."""
  monkeypatch.setattr(benchmark, "time", Clock())
  monkeypatch.setattr(Clock, "monotonic", lambda self: self.now, raising=False)
  remaining = iter(outcomes)

  def run(unused_settings, unit):
    outcome = next(remaining)
    if isinstance(outcome, BaseException):
      raise outcome
    return {unit.name: outcome}

  monkeypatch.setattr(benchmark_cases, "run_apart", run)
  units = [
    Unit("step", name, "step", {}) for name in "abcdefgh"[: len(outcomes)]
  ]
  found = report({})
  path = str(tmp_path / "benchmark.json")
  benchmark.run_units(None, units, found, path)
  return found, benchmark.Report.read(path)


def test_after_a_failure_the_others_run(monkeypatch, tmp_path):
  found, stored = run_with(
    monkeypatch,
    tmp_path,
    [{"step_ms": 1.0}, UnitFailed("why"), {"step_ms": 3.0}],
  )
  assert found.results == {
    "step": {"a": {"step_ms": 1.0}, "c": {"step_ms": 3.0}}
  }
  assert found.failures == {"step": {"b": "why"}}
  assert vars(stored) == vars(found)


def test_ctrl_c_gives_up_one_row_and_twice_all(monkeypatch, tmp_path):
  found, _ = run_with(
    monkeypatch, tmp_path, [KeyboardInterrupt(), KeyboardInterrupt(), {}]
  )
  assert found.results == {}
  assert list(found.failures["step"]) == ["a", "b"]


@pytest.mark.parametrize(
  ("case", "row"), [("input", "the reader"), ("pooling", "VLAD (3)")]
)
def test_units_with_processes_of_their_own(settings, case, row):
  units = {unit.name: unit for unit in benchmark.plan(case, "", settings)}
  rows = benchmark_cases.run_apart(settings, units[row])
  if case == "input":
    assert list(rows) == ["ours", "plain tf.data", "starter code's"]
    positive(rows, "videos_per_second", "peak_gb", "buffered_record_bytes")
    assert rows["starter code's"]["speedup"] == 1.0
    # Padded floats.
    assert rows["plain tf.data"]["buffered_record_bytes"] == 4 * 9 * 48
  else:
    positive(rows, "forward_speedup", "both_speedup", "ours_peak_gb")


def test_the_program_reports_what_fails_and_goes_on(data_dir, tmp_path):
  old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
  report({"memory": {"VLAD (3)": {"ours_batch": 7}}}, {}).write(old)
  given = {**TINY, "data_dir": data_dir, "output": new, "compare": old}
  # The records have other sizes.
  given |= {"feature_sizes": "31,16", "cases": "input,memory"}
  status, stdout, stderr = runs.run_program(
    "scripts/benchmark.py", *runs.flag_list(given)
  )
  assert status == program.FAILED, stderr
  written = benchmark.Report.read(new)
  assert "--feature_sizes says 31" in written.failures["input"]["the reader"]
  # So little memory that not even one batch fits.
  assert written.results["memory"]["VLAD (3)"]["ours_batch"] == 0
  assert "the reader: FAILED" in stdout and "new/old" in stdout
