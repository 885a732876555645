"""Tests of training/distillation.py, and of runs that learn from teachers."""

import json
import math
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import losses
from checkpoints import restore
from predictions import stored_predictions
from tests import runs
from training import distillation, towers

B, C = 5, 4
STUDENT = {"model": "FrameLevelLogisticModel", "base_learning_rate": 0.05}


def objective_loss(predictions, batch, **settings):
  """(loss, its gradient to the predictions)."""
  with tf.Graph().as_default(), tf.Session() as session:
    predictions = tf.constant(predictions, tf.float32)
    batch = {name: tf.constant(value) for name, value in batch.items()}
    loss = towers.Objective(
      losses.get_loss("CrossEntropyLoss"), **settings
    ).of_labels(predictions, batch)
    return session.run((loss, tf.gradients(loss, predictions)[0]))


def cross_entropy(p, y):
  return -y * math.log(p + 1e-5) - (1 - y) * math.log(1 - p + 1e-5)


def softened(p, temperature):
  if p in (0.0, 1.0):
    return p
  logit = math.log(p / (1 - p))
  return 1 / (1 + math.exp(-logit / temperature))


class TestLoss:
  @pytest.fixture
  def data(self):
    rng = np.random.default_rng(0)
    teacher = rng.uniform(size=[B, C]).astype(np.float32)
    teacher[0, :2] = 0.0, 1.0
    return rng.uniform(0.05, 0.95, [B, C]), {
      "labels": rng.uniform(size=[B, C]) < 0.4,
      "teacher": teacher,
      "has_teacher": np.array([True, True, False, True, False]),
    }

  @pytest.mark.parametrize("temperature", [1.0, 3.0])
  def test_is_that_of_loops(self, data, temperature):
    predictions, batch = data
    total = 0.0
    for i in range(B):
      share = 0.3 * batch["has_teacher"][i]
      for c in range(C):
        p, t = float(predictions[i, c]), float(batch["teacher"][i, c])
        total += (1 - share) * cross_entropy(p, float(batch["labels"][i, c]))
        total += (
          share
          * temperature**2
          * cross_entropy(softened(p, temperature), softened(t, temperature))
        )
    found, _ = objective_loss(
      predictions,
      batch,
      distillation_weight=0.3,
      distillation_temperature=temperature,
    )
    assert found == pytest.approx(total / B, rel=1e-5)

  def test_a_student_that_is_certain_has_a_finite_gradient(self, data):
    _, batch = data
    certain = np.tile([0.0, 1.0, 1e-30, 1.0 - 1e-7], [B, 1])
    found = objective_loss(certain, batch, distillation_temperature=5.0)
    assert np.isfinite(found[0]) and np.isfinite(found[1]).all()

  def test_without_a_video_it_is_zero(self, data):
    predictions, batch = data
    empty = {name: value[:0] for name, value in batch.items()}
    assert objective_loss(predictions[:0], empty)[0] == 0.0

  def test_labels_and_teacher_teach_the_rated_classes_alone(self, data):
    predictions, batch = data
    rated = np.eye(B, C, dtype=np.float32)  # The last segment has none.
    batch = {**batch, "label_weights": rated, "has_teacher": np.ones(B, bool)}
    found, gradient = objective_loss(predictions, batch)
    total = 0.0
    for i in range(C):
      p, t = float(predictions[i, i]), float(batch["teacher"][i, i])
      total += 0.5 * cross_entropy(p, float(batch["labels"][i, i]))
      total += 0.5 * cross_entropy(p, t)
    assert found == pytest.approx(total / B, rel=1e-5)
    assert np.array_equal(gradient != 0, rated > 0)


def test_videos_are_joined_by_their_ids(tmp_path, caplog):
  path = tmp_path / "file"
  with stored_predictions.PredictionsWriter(path, C) as writer:
    writer.write(
      np.array([b"a", b"b"]), [[2, 0], [3, 1]], [[1, 0.5], [0.25, 0]]
    )
  join = distillation.Join(stored_predictions.StoredPredictions(path, C), C)
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.data.Dataset.from_tensors({"video_ids": [b"b", b"no", b"a"]})
    batch = tf.data.make_one_shot_iterator(data.map(join)).get_next()
    found = session.run(batch)
  assert found["has_teacher"].tolist() == [True, False, True]
  assert found["teacher"].tolist() == [
    [0, 0, 0, 0.25],
    [0, 0, 0, 0],
    [0.5, 0, 1, 0],
  ]
  join.log_summary()
  assert "lacks video b'no'" in caplog.text
  assert "lacked 1 of the 3 videos" in caplog.text


@pytest.mark.slow
class TestTraining:
  @pytest.fixture(scope="class")
  def teacher(self, tmp_path_factory):
    """(train_dir of a NetVLADModelLF, pattern of its videos)."""
    return runs.shared_model(tmp_path_factory)

  def predictions(self, directory, pattern, tmp_path):
    """{video id: float [C]}"""
    path = tmp_path / f"{directory.name}.npz"
    runs.run_infer(directory, pattern, path, output_format="npz", top_k=99)
    stored = stored_predictions.StoredPredictions(path, runs.NUM_CLASSES)
    found = {}
    for video_id in runs.labels_of(pattern):
      classes, scores = stored.of(video_id.encode())
      found[video_id] = np.zeros(runs.NUM_CLASSES)
      found[video_id][classes] = scores
    return np.array(list(found.values()))

  def test_a_student_learns_what_its_teacher_says_and_needs_it_no_more(
    self, teacher, tmp_path
  ):
    directory = shutil.copytree(teacher[0], tmp_path / "teacher")
    settings = {
      **STUDENT,
      "teachers": f"{directory},{restore.latest_checkpoint(str(directory))}",
      "distillation_weight": 1.0,
      "distillation_temperature": 2.0,
      "num_towers": 2,
    }
    student = tmp_path / "student"
    expected = self.predictions(directory, teacher[1], tmp_path)
    runs.run_train(student, teacher[1], max_steps=1, **settings)
    # Goes on, with the teacher restored anew.
    checkpoint = runs.run_train(student, teacher[1], max_steps=40, **settings)
    after = self.predictions(student, teacher[1], tmp_path)
    # One that has learnt nothing says 0.5 of each class.
    limit = 0.5 * np.abs(0.5 - expected).mean()
    assert np.abs(after - expected).mean() < limit
    names = runs.variables_of(checkpoint)
    assert not [name for name in names if "teacher" in name]
    assert len([name for name in names if name.startswith("tower/")]) == 6

    shutil.rmtree(directory)
    assert runs.run_eval(student, teacher[1])["step"] == 40
    with pytest.raises(ValueError, match=f"--teachers={directory}"):
      runs.run_train(student, teacher[1], max_steps=41, **settings)

  def test_stored_predictions_teach_as_the_model_does(self, teacher, tmp_path):
    common = {**STUDENT, "max_steps": 2, "shuffle_buffer": 0}
    start = runs.run_train(tmp_path / "start", teacher[1], **common)
    self.predictions(teacher[0], teacher[1], tmp_path)
    common["init_checkpoint"] = start
    found = {}
    for name, source in {
      "teachers": teacher[0],
      "teacher_predictions": tmp_path / f"{teacher[0].name}.npz",
    }.items():
      runs.run_train(
        tmp_path / name, teacher[1], **{**common, name: str(source)}
      )
      losses_of_steps = runs.events(tmp_path / name)["label_loss"]
      found[name] = [losses_of_steps[step] for step in (1, 2)]
    np.testing.assert_allclose(
      found["teachers"], found["teacher_predictions"], rtol=1e-3
    )


class TestErrors:
  @pytest.mark.parametrize(
    ("changes", "told"),
    [
      ({"feature_sizes": "7,6"}, r"--feature_sizes=7,6 \(here 7,5\)"),
      ({"feature_names": "audio,rgb"}, r"--feature_names=audio,rgb"),
      ({"num_classes": 9}, r"--num_classes=9 \(here 6\)"),
    ],
  )
  def test_a_teacher_of_other_data_is_named(self, tmp_path, changes, told):
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "model_flags.json").write_text(
      json.dumps(runs.model_values(**changes))
    )
    for part in ("index", "data-00000-of-00001"):
      (teacher / f"model.ckpt-1.{part}").write_text("x")
    data = tmp_path / "data.tfrecord"
    data.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{teacher} was trained .*{told}"):
      runs.run_train(tmp_path / "student", data, teachers=str(teacher))
    assert not (tmp_path / "student").exists()

  def test_teachers_and_their_predictions_are_one_too_many(self):
    with pytest.raises(ValueError, match="--teachers or --teacher_predictions"):
      runs.train_config("d", "x", teachers="a", teacher_predictions="b")

  @pytest.mark.parametrize(
    ("content", "told"),
    [
      (None, "=.* does not exist"),
      (b"PK\3\4 cut", ": .*predictions.npz is damaged"),
      (b"\xff\xfe\0", ": .*predictions.npz"),
    ],
  )
  def test_predictions_that_can_not_be_read_are_named(
    self, tmp_path, content, told
  ):
    data, path = tmp_path / "data.tfrecord", tmp_path / "predictions.npz"
    data.write_bytes(b"")
    if content:
      path.write_bytes(content)
    with pytest.raises(ValueError, match=f"--teacher_predictions{told}"):
      runs.run_train(tmp_path / "new", data, teacher_predictions=str(path))
