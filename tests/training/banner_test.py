"""Tests of training/banner.py; tests/terminal_test.py sees it in programs."""

import json

from training import banner


def test_the_hint_names_files_beside_the_training_s_and_the_best_gap(tmp_path):
  for name in ("train0", "validate0"):
    (tmp_path / f"{name}.tfrecord").touch()
  run = tmp_path / "all runs" / "a"
  (run / "eval").mkdir(parents=True)
  for step, gap in ((10, 0.5), (20, 0.75), (30, 0.25)):
    (run / "eval" / f"metrics-{step}.json").write_text(
      json.dumps({"step": step, "gap": gap, "path": "x"})
    )
  said = banner.end(str(run), f"{tmp_path}/train*.tfrecord")
  assert said.splitlines() == [
    f"  evaluate  python eval.py --train_dir='{run}' --run_once "
    f"--eval_data_pattern='{tmp_path}/validate*.tfrecord'",
    f"  look at   tensorboard --logdir='{run.parent}'",
    "  best GAP  0.7500, of step 20",
  ]
  # Nothing that is not there is named.
  said = banner.end(str(run), f"{tmp_path}/train1.tfrecord")
  assert "--eval_data_pattern=VALIDATION_FILES" in said
