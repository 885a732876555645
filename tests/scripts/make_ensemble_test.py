"""Tests of scripts/make_ensemble.py and of the model that it makes.

Members are the goldens of other models: what they predict is stored. Axes:
B videos, C classes.
"""

import json
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
from checkpoints import restore
from models import ensemble
from predictions import predictor, submission
from scripts import make_ensemble
from tests import goldens_test as goldens
from tests import runs

# With a weight each, which sum to 2.
MEMBERS = {
  "NetVLADModelLF": 0.5,
  "SecondOrderModel": 0.3,
  "FrameLevelLogisticModel": 1.2,
}


def make(output, *members):
  config = make_ensemble.Config(
    train_dirs=",".join(map(str, members)), output_dir=str(output)
  )
  make_ensemble.run(config)
  return output


def sources(**weights):
  return [f"{goldens.HERE / name}:{weight}" for name, weight in weights.items()]


def stored(name):
  """{video id: [C]} that a golden predicts."""
  with open(goldens.HERE / name / "predictions.json") as stream:
    return json.load(stream)


def expected(weights):
  """{video id: [C]}: the mean, video by video and class by class."""
  found = {}
  for name, weight in weights.items():
    for video, row in stored(name).items():
      sums = found.setdefault(video, [0.0] * len(row))
      for c, probability in enumerate(row):
        sums[c] += weight * probability / sum(weights.values())
  return found


def predicted(directory, path=goldens.FRAME_RECORDS):
  """{video id: [C]} of a train_dir."""

  def fetch(batch, predictions):
    return batch["video_ids"], predictions

  values = model_flags.load(str(directory))
  with predictor.Predictor(
    values, [path], fetch, use_labels=False, batch_size=4, num_readers=1
  ) as videos:
    videos.restore(str(directory))
    return {
      video.decode(): row
      for ids, rows in videos
      for video, row in zip(ids, rows)
    }


def assert_same(found, wanted, atol=1e-6):
  assert found.keys() == wanted.keys()
  for video, row in wanted.items():
    np.testing.assert_allclose(found[video], row, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
  """An ensemble of MEMBERS."""
  return make(tmp_path_factory.mktemp("ensemble") / "both", *sources(**MEMBERS))


def test_predicts_the_weighted_mean(both):
  assert_same(predicted(both), expected(MEMBERS))
  own = runs.variables_of(restore.latest_checkpoint(str(both)))
  assert own.pop("global_step") == goldens.STEP and own.pop("epoch") == 0
  assert {name.split("/")[0] for name in own} == {"tower"}
  assert {name.split("/")[1] for name in own} == {
    f"member_{i}" for i in range(3)
  }


@pytest.mark.slow
def test_evaluates_infers_and_exports(both, tmp_path):
  results = runs.run_eval(both, goldens.FRAME_RECORDS)
  assert results["num_videos"] == 6 and results["step"] == goldens.STEP
  runs.run_infer(both, goldens.FRAME_RECORDS, tmp_path / "out.csv", top_k=7)
  found = {}
  for video, row in submission.read_submission(tmp_path / "out.csv").items():
    found[video] = [score for _, score in sorted(zip(*row))]
  # Six digits.
  assert_same(found, expected(MEMBERS), atol=1.5e-6)

  values = model_flags.load(str(both))
  predictor.export(str(both), values, str(tmp_path / "served"), 7)
  records = list(tf.python_io.tf_record_iterator(goldens.FRAME_RECORDS))
  with tf.Graph().as_default(), tf.Session() as session:
    loaded = tf.saved_model.load(session, ["serve"], str(tmp_path / "served"))
    signature = loaded.signature_def["serving_default"]
    outputs = {k: t.name for k, t in signature.outputs.items()}
    served = session.run(
      outputs, {signature.inputs["example_bytes"].name: records}
    )
  rows = np.zeros_like(served["predictions"])
  np.put_along_axis(rows, served["class_indexes"], served["predictions"], 1)
  ids = [video.decode() for video in served["video_id"]]
  assert_same(dict(zip(ids, rows)), expected(MEMBERS))


@pytest.mark.slow
def test_an_ensemble_may_be_a_member(both, tmp_path):
  # And so may a mixture of branches.
  others = {"NetVLADModelLF-mixture": 3, "MixNeXtVladModel": 1}
  nested = make(tmp_path / "nested", *sources(**others), both)
  weights = {name: weight / 2 for name, weight in MEMBERS.items()}
  assert_same(predicted(nested), expected({**weights, **others}))


def test_what_members_scale_their_input_by_is_their_own():
  flags = model_flags.load(str(goldens.HERE / "NeXtVLADModel"))
  flags["reverse_whitening"] = "eigenvalues.npy"
  members = ensemble.encode([(1.0, flags), (1.0, flags)])
  values = {**flags, "model": "EnsembleModel", "ensemble_members": members}
  with tf.Graph().as_default():
    reader = model_flags.build_reader(values)
    batch = reader.parse_serialized(tf.placeholder(tf.string, [None]))
    model = model_flags.build_model(values)
    predictor.predict(model, batch, reader.num_classes)
    names = {variable.op.name for variable in tf.global_variables()}
  assert {name for name in names if name.endswith("reverse_whitening")} == {
    f"tower/member_{i}/reverse_whitening" for i in range(2)
  }


def test_video_level_members_with_moving_averages(tmp_path):
  golden = goldens.HERE / "LogisticModel"
  values = runs.variables_of(str(golden / f"model.ckpt-{goldens.STEP}"))
  averaged = tmp_path / "averaged"
  averaged.mkdir()
  shutil.copy(golden / "model_flags.json", averaged)
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in values.items():
      if "/" not in name:
        tf.get_variable(name, initializer=np.int64(8))
        continue
      tf.get_variable(name, initializer=0 * value)
      average = f"{name}/ExponentialMovingAverage"
      tf.get_variable(average, initializer=value)
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, f"{averaged}/model.ckpt-8")
  both = make(tmp_path / "both", averaged, *sources(MoeModel=1))
  assert runs.step_of(both) == 8
  assert_same(
    predicted(both, goldens.VIDEO_RECORDS),
    expected({"LogisticModel": 1, "MoeModel": 1}),
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"feature_sizes": "6,4"}, "--feature_sizes=6,5 .* --feature_sizes=6,4"),
    ({"feature_names": "rgb,sound"}, "--feature_names=rgb,sound"),
    ({"num_classes": 8}, "--num_classes=7 and .* --num_classes=8"),
    ({"max_frames": 13}, "--max_frames=12 and .* --max_frames=13"),
  ],
)
def test_members_read_the_same(tmp_path, changes, message):
  other = tmp_path / "other"
  shutil.copytree(goldens.HERE / "DbofModel", other)
  model_flags.save(other, {**model_flags.load(str(other)), **changes})
  with pytest.raises(ValueError, match=message):
    make(tmp_path / "both", *sources(NetVLADModelLF=1), other)
  assert not (tmp_path / "both").exists()


def test_what_members_may_differ_in(tmp_path):
  flags = model_flags.load(str(goldens.HERE / "DbofModel"))
  one = {**flags, "holdout_fraction": 0.1, "segment_labels": True}
  two = {**flags, "holdout_fraction": 0.02, "feature_names": "rgb, audio"}
  common = make_ensemble.common_flags([("a", one), ("b", two)])
  assert common["holdout_fraction"] == 0.02
  assert not common["segment_labels"]


def test_other_mistakes(tmp_path, both):
  with pytest.raises(ValueError, match="There is no .*/none"):
    make(tmp_path / "new", tmp_path / "none")
  with pytest.raises(ValueError, match=f"--train_dirs: {tmp_path}/model_flags"):
    make(tmp_path / "new", tmp_path)
  with pytest.raises(ValueError, match="finite weights >= 0"):
    make(tmp_path / "new", *sources(NetVLADModelLF=-1))
  with pytest.raises(ValueError, match="holds something"):
    make(both, *sources(NetVLADModelLF=1))
  with pytest.raises(ValueError, match="not of make_ensemble.py's"):
    config = ensemble.EnsembleModel.Config(ensemble_members="[3]")
    ensemble.EnsembleModel(config)
  with pytest.raises(ValueError, match="not for train.py. .*make_ensemble.py"):
    runs.run_train(
      tmp_path / "new", goldens.FRAME_RECORDS, model="EnsembleModel"
    )
  assert not (tmp_path / "new").exists()
