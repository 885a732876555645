"""Tests of export_model.py and of what training exports."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import export_model
import files
import model_flags
import readers
from checkpoints import restore
from predictions import predictor, submission
from tests import runs


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """(train_dir, pattern of its videos), for reading only."""
  return runs.shared_model(tmp_path_factory)


def tree(directory):
  return sorted(
    str(path.relative_to(directory))
    for path in pathlib.Path(directory).rglob("*")
  )


def export(shared, output_dir, k=4):
  directory = str(shared[0])
  predictor.export(
    restore.latest_checkpoint(directory),
    model_flags.load(directory),
    str(output_dir),
    k,
  )


@pytest.mark.slow
def test_serves_what_inference_writes(shared, tmp_path):
  directory, pattern = shared
  served = tmp_path / "served"
  names = tmp_path / "names.txt"
  names.write_text("zero\none\n")
  runs.run_ok(
    "export_model.py",
    f"--train_dir={directory}",
    f"--output_dir={served}/",
    "--top_k=4",
    f"--vocabulary={names}",
  )
  assert tree(tmp_path)[0] == "names.txt"
  found = runs.serve(served, pattern, tmp_path)
  assert sorted(found) == [
    "class_indexes",
    "class_names",
    "predictions",
    "video_id",
  ]
  texts = ["zero", "one", *(f"class {i}" for i in range(2, runs.NUM_CLASSES))]
  np.testing.assert_array_equal(
    found["class_names"].astype(str), np.array(texts)[found["class_indexes"]]
  )
  assert found["class_indexes"].dtype == np.int32
  assert found["predictions"].dtype == np.float32

  csv = tmp_path / "out.csv"
  runs.run_infer(directory, pattern, csv, top_k=4)
  rows = submission.read_submission(csv)
  assert [v.decode() for v in found["video_id"]] == list(
    runs.labels_of(pattern)
  )
  assert len(rows) == len(found["video_id"])
  for video_id, classes, scores in zip(
    found["video_id"], found["class_indexes"], found["predictions"]
  ):
    expected_classes, expected_scores = rows[video_id.decode()]
    np.testing.assert_array_equal(classes, expected_classes)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)  # %g.


@pytest.mark.slow
class TestOutputDir:
  def test_an_older_export_is_replaced_as_a_whole(self, shared, tmp_path):
    output_dir = tmp_path / "served"
    (output_dir / "variables").mkdir(parents=True)
    (output_dir / "saved_model.pb").write_text("an older one")
    (output_dir / "variables" / "stray").write_text("of an older one")
    # An export that was killed left this.
    killed = pathlib.Path(files.temporary_name(output_dir))
    (killed / "new").mkdir(parents=True)
    (killed / "new" / "saved_model.pb").write_text("half")
    # And these are someone's.
    for suffix in (".tmp", ".old"):
      (tmp_path / f"served{suffix}").mkdir()
      (tmp_path / f"served{suffix}" / "saved_model.pb").write_text("mine")
    export(shared, output_dir)
    for suffix in (".tmp", ".old"):
      other = tmp_path / f"served{suffix}" / "saved_model.pb"
      assert other.read_text() == "mine"
      shutil.rmtree(other.parent)
    assert tree(tmp_path) == [
      "served",
      "served/assets.extra",
      "served/assets.extra/model_flags.json",
      "served/saved_model.pb",
      "served/variables",
      "served/variables/variables.data-00000-of-00001",
      "served/variables/variables.index",
    ]
    with tf.Graph().as_default(), tf.Session() as session:
      loaded = tf.saved_model.load(session, ["serve"], str(output_dir))
      variables = {v.op.name: v for v in tf.global_variables()}
      values = session.run(variables)
    assert list(loaded.signature_def) == ["serving_default"]
    # The model's own variables, not the optimiser's, and no training path.
    stored = runs.variables_of(restore.latest_checkpoint(str(shared[0])))
    assert values and all(name.startswith("tower/") for name in values)
    assert not any("Adam" in name for name in values)
    for name, value in values.items():
      np.testing.assert_array_equal(value, stored[name])
    text = (output_dir / "saved_model.pb").read_bytes()
    assert str(shared[0]).encode() not in text
    assert str(tmp_path).encode() not in text
    assert "class_names" not in loaded.signature_def["serving_default"].outputs

  @pytest.mark.parametrize("name", ["notes.txt", "model.ckpt-3.index"])
  def test_a_directory_of_something_else_is_refused(
    self, shared, tmp_path, name
  ):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match="something else than a SavedModel"):
      export(shared, tmp_path)
    assert tree(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "precious"

  def test_an_export_with_something_else_in_it_is_refused(
    self, shared, tmp_path
  ):
    (tmp_path / "saved_model.pb").write_text("an older one")
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(ValueError, match="SavedModel: notes.txt"):
      export(shared, tmp_path)
    assert tree(tmp_path) == ["notes.txt", "saved_model.pb"]

  def test_a_file_is_refused(self, shared, tmp_path):
    path = tmp_path / "served"
    path.write_text("precious")
    # Whatever the words, nothing may be lost.
    with pytest.raises((ValueError, OSError, tf.errors.OpError)):
      export(shared, path)
    assert path.read_text() == "precious"

  def test_a_train_dir_without_checkpoint_is_told(self, tmp_path):
    model_flags.save(str(tmp_path), runs.model_values())
    status, _, stderr = runs.run_program(
      "export_model.py", f"--train_dir={tmp_path}"
    )
    assert status == 1
    last = stderr.strip().splitlines()[-1]
    assert f"No checkpoint in --train_dir={tmp_path}." in last


@pytest.mark.slow
def test_training_exports_every_so_many_steps(tmp_path):
  pattern = runs.write_data(tmp_path / "data", level="video")
  directory = tmp_path / "model"
  runs.run_train(
    directory,
    pattern,
    model="MoeModel",
    max_steps=5,
    export_model_steps=2,
    **runs.VIDEO_LEVEL,
  )
  exports = directory / "export"
  assert sorted(path.name for path in exports.iterdir()) == ["step_2", "step_4"]
  # Steps 2 and 4 are saved to be exported, 5 is the last.
  for step in (2, 4, 5):
    assert (directory / f"model.ckpt-{step}.index").exists()
  records = []
  for path in readers.expand_data_pattern(pattern):
    records += tf.python_io.tf_record_iterator(path)
  for step in (2, 4):
    with tf.Graph().as_default(), tf.Session() as session:
      loaded = tf.saved_model.load(
        session, ["serve"], str(exports / f"step_{step}")
      )
      signature = loaded.signature_def["serving_default"]
      ids, weights = session.run(
        [
          signature.outputs["video_id"].name,
          next(v for v in tf.global_variables() if "experts/weights" in v.name),
        ],
        {signature.inputs["example_bytes"].name: records},
      )
    assert len(ids) == 12
    stored = runs.variables_of(str(directory / f"model.ckpt-{step}"))
    np.testing.assert_array_equal(weights, stored["tower/experts/weights"])


@pytest.mark.parametrize("up", [".", ".."])
def test_a_directory_that_holds_the_model_is_not_replaced(shared, tmp_path, up):
  # A SavedModel, as far as the rest of the code can tell.
  served = tmp_path / "served"
  source = shutil.copytree(shared[0], served / "a")
  for directory in (served, source):
    (directory / "saved_model.pb").touch()
  before = tree(tmp_path)
  with pytest.raises(ValueError, match="would replace"):
    export_model.Config(train_dir=str(source), output_dir=str(source / up))
  assert tree(tmp_path) == before
