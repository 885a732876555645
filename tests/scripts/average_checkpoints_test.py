"""Tests of scripts/average_checkpoints.py."""

import json
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from checkpoints import restore
from scripts import average_checkpoints
from tests import goldens_test, runs

GOLDEN = goldens_test.HERE / "LogisticModel"
AVERAGE = "ExponentialMovingAverage"


def save(directory, step, values):
  """A checkpoint of arrays, in a train_dir of the golden's model."""
  directory.mkdir(exist_ok=True)
  shutil.copy(GOLDEN / "model_flags.json", directory)
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in values.items():
      tf.get_variable(name, initializer=value)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(
      session, f"{directory}/model.ckpt-{step}", write_meta_graph=False
    )


@pytest.fixture(scope="module")
def stored():
  return runs.variables_of(str(GOLDEN / f"model.ckpt-{goldens_test.STEP}"))


@pytest.fixture
def directory(tmp_path, stored):
  """A train_dir of three checkpoints with an optimiser's moments."""
  path = tmp_path / "model"
  for step, factor in ((10, 1.0), (20, 2.0), (30, 6.0)):
    values = {n: np.float32(factor) * v for n, v in stored.items() if "/" in n}
    save(
      path,
      step,
      {
        **values,
        **{f"{name}/Adam": np.ones_like(v) for name, v in values.items()},
        "global_step": np.int64(step),
        "epoch": np.int64(step // 10),
      },
    )
  return path


def run(path, output, **changes):
  config = average_checkpoints.Config(
    train_dir=str(path), output_dir=str(output), **changes
  )
  average_checkpoints.run(config)
  return restore.latest_checkpoint(str(output))


@pytest.mark.parametrize(
  ("choice", "factor"),
  [
    ({"last": 2}, 4.0),
    ({"last": 3}, 3.0),
    ({"checkpoints": "{0}/model.ckpt-30,10"}, 3.5),
  ],
)
def test_is_the_mean_of_the_model_and_nothing_else(
  directory, stored, tmp_path, choice, factor
):
  choice = {
    name: value.format(directory) if name == "checkpoints" else value
    for name, value in choice.items()
  }
  path = run(directory, tmp_path / "mean", **choice)
  assert path == f"{tmp_path}/mean/model.ckpt-30"
  found = runs.variables_of(path)
  assert {name for name in found if "/" in name} == {
    name for name in stored if "/" in name
  }
  for name, value in found.items():
    if "/" in name:
      np.testing.assert_allclose(value, factor * stored[name], rtol=1e-6)
  assert (found["global_step"], found["epoch"]) == (30, 3)
  restore.verified(path)


def test_takes_the_moving_averages_that_evaluation_would(stored, tmp_path):
  weights = {n: v for n, v in stored.items() if "/" in n}
  averages = {f"{n}/{AVERAGE}": 5 * v for n, v in weights.items()}
  progress = {"global_step": np.int64(4), "epoch": np.int64(0)}
  save(tmp_path / "model", 4, {**weights, **averages, **progress})
  found = runs.variables_of(run(tmp_path / "model", tmp_path / "mean", last=1))
  for name, value in weights.items():
    np.testing.assert_allclose(found[name], 5 * value, rtol=1e-6)
  save(tmp_path / "model", 5, {**weights, **progress})
  with pytest.raises(ValueError, match=r"ckpt-4 has moving .*ckpt-5 has none"):
    run(tmp_path / "model", tmp_path / "other", last=2)


def test_what_is_no_mean_of_one_model_is_named_and_nothing_written(
  directory, stored, tmp_path
):
  def fails(told, **changes):
    with pytest.raises(ValueError, match=told):
      run(directory, tmp_path / "mean", **changes)
    assert not (tmp_path / "mean").exists()

  fails("--last=4: .* has 3 whole checkpoints", last=4)
  other = shutil.copytree(directory, tmp_path / "other")
  flags = json.loads((other / "model_flags.json").read_text())
  flags["num_classes"] = 9
  (other / "model_flags.json").write_text(json.dumps(flags))
  fails(
    r"other/model.ckpt-30 is of another model: --num_classes=9 \(not 7\)",
    checkpoints=f"20,{other}/model.ckpt-30",
  )
  fails("There is no checkpoint .*ckpt-7", checkpoints="7,20")
  wrong = {n: np.ones([2, 2], np.float32) for n in stored if "/" in n}
  progress = {"global_step": np.int64(40), "epoch": np.int64(0)}
  save(directory, 40, {**wrong, **progress})
  fails("ckpt-40 does not hold the model", last=2)
  data = directory / "model.ckpt-30.data-00000-of-00001"
  data.write_bytes(data.read_bytes()[: data.stat().st_size // 3])
  fails("ckpt-30 is damaged", checkpoints="20,30")
  with pytest.raises(ValueError, match="--output_dir=.* holds something"):
    run(directory, directory)


@pytest.mark.slow
def test_is_evaluated_and_trained_on(tmp_path):
  pattern = runs.write_data(tmp_path / "data", level="video")
  settings = {**runs.VIDEO_LEVEL, "model": "MoeModel"}
  settings |= {"save_checkpoints_steps": 1, "moe_prob_gating": True}
  runs.run_train(tmp_path / "model", pattern, max_steps=3, **settings)
  run(tmp_path / "model", tmp_path / "mean", last=3)
  assert runs.run_eval(tmp_path / "mean", pattern)["step"] == 3
  runs.run_train(tmp_path / "mean", pattern, max_steps=4, **settings)
  assert runs.step_of(tmp_path / "mean") == 4
