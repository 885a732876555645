"""Tests of training/gradients.py. Axes: N rows, D inputs, K outputs."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests import layers, runs
from training import gradients, optimizers

N, D, K = 3, 9, 8


@pytest.fixture(autouse=True)
def _few_rows_are_wide(monkeypatch):
  monkeypatch.setattr(gradients, "_WIDE", D)


def arrays(num_rows=N, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=[num_rows, size]) for size in (D, K)]


def product_of(inputs, slopes):
  """As `tf.gradients` makes it, of weights that multiply the inputs."""
  inputs, slopes = (
    tf.placeholder_with_default(np.float32(a), [None, a.shape[1]])
    for a in (inputs, slopes)
  )
  return tf.matmul(inputs, slopes, transpose_a=True)


def square_norm(inputs, slopes):
  with tf.Graph().as_default(), tf.Session() as session:
    found = gradients.total([product_of(inputs, slopes)], N)
    assert isinstance(found, gradients.Factored)
    return session.run(gradients.square_norm(found))


@pytest.mark.parametrize("sizes", [[3], [2, 1], [1, 0, 2]])
def test_towers_add_up_to_the_whole(sizes):
  towers = [arrays(size, seed) for seed, size in enumerate(sizes)]
  expected = sum(x.T @ g for x, g in towers)
  with tf.Graph().as_default(), tf.Session() as session:
    whole = gradients.total([product_of(*tower) for tower in towers], N)
    assert isinstance(whole, gradients.Factored)
    fetches = whole.product(), gradients.square_norm(whole)
    found, square = session.run(fetches)
  layers.assert_close(found, expected)
  assert square == pytest.approx(np.sum(expected**2), rel=1e-5)


@pytest.mark.parametrize("num_rows", [None, 0, K // 2 + 1])
def test_of_many_rows_or_unknown_ones_the_product_is_made(num_rows):
  with tf.Graph().as_default(), tf.Session() as session:
    parts = [product_of(*arrays()), tf.ones([D, K])]
    assert gradients.total(parts[:1], num_rows) is parts[0]
    x, g = arrays()
    found = session.run(gradients.total(parts, N))
  layers.assert_close(found, x.T @ g + 1.0)


def test_norm_of_more_rows_than_told():
  x, g = arrays(5 * K)
  assert square_norm(x, g) == pytest.approx(np.sum((x.T @ g) ** 2), rel=1e-5)


def test_norm_of_rows_that_cancel():
  x, g = arrays()
  x[:] = x[0]
  g -= g.mean(axis=0)
  # Beside what the rows would be without the others.
  alone = np.sum(x**2) * np.sum(g**2)
  assert 0.0 <= square_norm(x, g) < 1e-6 * alone


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("factor", [0, 1])
def test_norm_tells_of_one_bad_element(factor, bad):
  factors = arrays()
  factors[factor][1, 2] = bad
  assert not np.isfinite(square_norm(*factors))


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("has_others", [False, True])
def test_updates_are_those_of_the_products(name, has_others):
  config = runs.train_config(
    "unused", "unused", optimizer=name, clip_gradient_norm=0.5
  )
  results = []
  for num_rows in (0, N):
    with tf.Graph().as_default(), tf.Session() as session:
      found = [gradients.total([product_of(*arrays())], num_rows)]
      if has_others:
        found += [tf.ones([D, K]), found[0]]
      pairs = [
        (gradient, tf.get_variable(f"w{i}", initializer=tf.ones([D, K])))
        for i, gradient in enumerate(found)
      ]
      step = tf.train.get_or_create_global_step()
      update = optimizers.update(pairs, 0.0, 0.1, step, config)
      session.run(tf.global_variables_initializer())
      session.run(update)
      session.run(update)
      variables = {v.op.name: v for v in tf.global_variables()}
      results.append(session.run(variables))
  expected, found = results
  assert found.keys() == expected.keys()
  for variable, value in expected.items():
    layers.assert_close(found[variable], value)
  assert np.all(found["w0"] != 1.0)


def test_wide_weights_are_updated_after_all_others():
  config = runs.train_config("unused", "unused")
  with tf.Graph().as_default() as graph, tf.device(lambda _: "/cpu:0"):
    step = tf.train.get_or_create_global_step()
    wide = gradients.total([product_of(*arrays())], N)
    found = {"first": wide, "narrow": tf.ones([D, K]), "second": wide}
    pairs = [(g, tf.get_variable(name, [D, K])) for name, g in found.items()]
    optimizers.update(pairs, 0.0, 0.1, step, config)
  awaited = {}
  for op in graph.get_operations():
    if op.type == "ResourceApplyAdam":
      product = op.inputs[-1].op
      awaited[op.inputs[0].op.name] = {
        earlier.inputs[0].op.name
        for earlier in product.control_inputs
        if earlier.type == op.type
      }
  assert awaited["first"] == {"narrow"}
  assert awaited["second"] == {"narrow", "first"}
