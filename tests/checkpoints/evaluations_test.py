"""Tests of results on disk: names of results, the best, when to stop."""

import json
import os

import pytest

from checkpoints import evaluations

RESULTS = {
  "step": 10,
  "path": "/model/model.ckpt-10",
  "gap": 0.5,
  "map": 0.4,
  "avg_hit_at_one": 0.3,
  "avg_perr": 0.2,
  "avg_loss": 0.1,
  "num_videos": 7,
  "num_unlabelled": 2,
  "flawed_records": {},
  "data_pattern": "a*",
  "holdout": False,
  "segments": False,
  "top_k": 20,
  "skip_unlabelled": False,
}


def write(directory, **changes):
  """Writes as eval.py does; the kind."""
  results = {**RESULTS, **changes}
  kind = evaluations.kind_of(results, str(directory))
  evaluations.write(results, str(directory), kind)
  best = evaluations.find_best(str(directory), kind)
  evaluations.write_best(best, str(directory), kind)
  return kind


def read(directory, name):
  return json.loads((directory / name).read_text())


@pytest.mark.parametrize("first", [{}, {"holdout": True}, {"top_k": 5}])
def test_other_data_have_other_names_at_every_step(tmp_path, first):
  """What is evaluated first has the plain names, a holdout too."""
  others = [
    {"segments": True},
    {"segments": True, "holdout": True},
    {"holdout": True},
    {},
    {"top_k": 5},
    {"skip_unlabelled": True},
    {"data_pattern": "b*"},
    {"data_pattern": "b*", "holdout": True},
  ]
  others.remove(first)
  kinds = {}
  for step in (10, 20):
    for changes in [first, *(others if step == 10 else reversed(others))]:
      found = write(tmp_path, step=step, **changes)
      assert kinds.setdefault(str(changes), found) == found
      stored = read(tmp_path, f"metrics-{step}{found}.json")
      assert stored == {**RESULTS, "step": step, **changes}
  assert kinds[str(first)] == ""
  assert kinds["{'segments': True}"] == "-segments"
  for changes, kind in kinds.items():
    if "holdout" in changes and changes != str(first):
      assert "-holdout-" in kind
  assert len(set(kinds.values())) == len(kinds)


def test_the_best_is_the_first_of_equals_and_what_came_since_is_counted(
  tmp_path,
):
  for step, gap in ((1, 0.2), (2, 0.7), (3, 0.6), (5, 0.7), (4, 0.1)):
    write(tmp_path, step=step, gap=gap, path=f"/model/model.ckpt-{step}")
    write(tmp_path, step=step, gap=1.0, holdout=True)
  assert read(tmp_path, "best_checkpoint.json") == {
    "step": 2,
    "gap": 0.7,
    "path": "/model/model.ckpt-2",
    "evaluations_since": 3,
    "data_pattern": "a*",
    "holdout": False,
    "segments": False,
    "top_k": 20,
    "skip_unlabelled": False,
  }
  (other,) = tmp_path.glob("best_checkpoint-holdout-*.json")
  assert json.loads(other.read_text())["step"] == 1


def test_what_someone_else_wrote_is_passed_over_and_named(tmp_path, caplog):
  for step, text in ((5, "no JSON"), (6, "[]"), (7, '{"gap": 1.0}')):
    (tmp_path / f"metrics-{step}.json").write_text(text)
  (tmp_path / "metrics-final.json").write_text("mine")
  write(tmp_path)
  assert read(tmp_path, "best_checkpoint.json")["step"] == 10
  for step in (5, 6, 7):
    assert f"metrics-{step}.json was not written by eval.py" in caplog.text
  assert "metrics-final" not in caplog.text


class TestWhyStop:
  @pytest.fixture
  def model(self, tmp_path):
    for step, gap in ((1, 0.7), (2, 0.6), (3, 0.5)):
      write(tmp_path / "eval", step=step, gap=gap)
      write(tmp_path / "eval", step=step, gap=step / 10, holdout=True)
    return str(tmp_path)

  def test_names_the_best_once_so_many_evaluations_have_passed(self, model):
    reason = evaluations.why_stop(model, 2, 9)
    assert reason == (
      "--early_stop_evals=2: the best GAP, 0.7000, is that of step 1, 2 "
      "evaluations ago."
    )
    assert evaluations.why_stop(model, 3, 9) is None
    assert evaluations.why_stop(model, 0, 9) is None

  def test_takes_other_data_where_there_are_no_plain_ones(self, model):
    os.remove(f"{model}/eval/best_checkpoint.json")
    assert evaluations.why_stop(model, 1, 9) is None
    write(f"{model}/eval", step=9, gap=0.0, holdout=True)
    assert "step 3, 1 evaluations ago" in evaluations.why_stop(model, 1, 9)

  def test_is_nothing_where_nothing_was_evaluated(self, tmp_path):
    assert evaluations.why_stop(str(tmp_path), 1, 9) is None
