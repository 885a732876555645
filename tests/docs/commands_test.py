"""Runs what README and docs tell their readers to run, shrunk to tiny data."""

import itertools
import json
import multiprocessing
import os
import pathlib
import re
import runpy
import shutil
import sys
import traceback

import pytest

from tests.docs import pages, shell

_ROOT = pages.ROOT
_TIMEOUT = 300

# Of the data that stand for YouTube-8M's.
_SIZE, _SIZES = "16", "16,8"
# Makes a command take seconds. A flag given twice has its last value.
_TINY = {
  "train.py": [
    "--batch_size=4",
    "--iterations=3",
    "--netvlad_cluster_size=4",
    "--netvlad_hidden_size=8",
    "--max_steps=2",
    "--num_gpu=0",
    "--num_towers=1",
    "--shuffle_buffer=8",
    "--export_model_steps=0",
  ],
  # Their own tests look at them.
  "eval.py": ["--num_pictures=0"],
  "scripts/make_dataset.py": ["--num_videos=24", "--min_frames=9"],
  "scripts/average_checkpoints.py": ["--last=1"],
  # As many as a page names, and frames enough for its PCA.
  "scripts/make_media.py": ["--num_videos=34", "--seconds=3"],
}
# Parsed here, and run with small sizes by the tests that are named: those with
# TF_CONFIG, whose ports are not ours; what wants a GPU or Ray, measures, or
# trains hundreds of times. And flags that those tests don't give.
_ELSEWHERE = {
  "TF_CONFIG with workers": (
    "training/workers_run_test.py",
    "test_tasks_lose_what_one_process_with_all_their_videos_loses",
    {},
  ),
  "TF_CONFIG with ps": (
    "training/cluster_run_test.py",
    "test_every_task_ends_well",
    {},
  ),
  "scripts/benchmark.py": (
    "scripts/benchmark_test.py",
    "test_the_program_reports_what_fails_goes_on_and_compares",
    {},
  ),
  "scripts/compare_models.py": (
    "scripts/compare_models_test.py",
    "test_chooses_trains_reports_and_goes_on_where_it_was",
    {},
  ),
  "scripts/cost.py": (
    "scripts/cost_test.py",
    "test_operations_of_a_step_are_linear_in_the_batch",
    {"models"},
  ),
  "scripts/gpu_check.sh": (
    "scripts/gpu_check_test.py",
    "test_every_part_fills_its_column_of_the_table",
    {},
  ),
  "scripts/memory_curves.py": (
    "scripts/memory_curves_test.py",
    "test_memory_and_time_are_told_as_videos_go_by",
    {},
  ),
  "scripts/run_on_ray.py": (
    "scripts/run_on_ray_test.py",
    "test_what_fails_is_tried_again",
    {"address", "gpus"},  # Of a cluster.
  ),
}
# What demo.sh would have made, and what stands for it.
_DEMO = {
  "data": "data/yt8m/frame",
  "model": "runs/gated-netvlad",
  "submission.csv": "submission.csv",
}
_PAGES = [*pages.ALL, *shell.SCRIPTS]


def _where(command):
  """The key of `_ELSEWHERE`, if another test runs a command."""
  if command.config:
    has_ps = '"ps"' in command.config
    return "TF_CONFIG with " + ("ps" if has_ps else "workers")
  name = command.program or command.words[0]
  return name if name in _ELSEWHERE else None


def _all_commands():
  return [command for page in _PAGES for command in shell.commands(page)]


class _Started:
  """What the functions below start: `_call`s in processes of their own.

  Forked from a process that has loaded TensorFlow, each starts at once.
  """

  def __init__(self, directory):
    self._directory = directory
    self._context = multiprocessing.get_context("forkserver")
    self._context.set_forkserver_preload(
      ["tensorflow", "train", "eval", "tests.sessions"]
    )

  def run(self, function, *args):
    """Fails unless the function returns or exits with status 0."""
    log = self._directory / "log"
    process = self._context.Process(
      target=_call, args=(self._directory, log, function, args)
    )
    process.start()
    process.join(_TIMEOUT)
    if process.exitcode is None:
      process.kill()
    assert process.exitcode == 0, log.read_text()[-3000:]
    return log.read_text()


def _call(directory, log, function, args):
  """In the new process: calls, with what is said in a file."""
  with open(log, "w") as stream:
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
  os.chdir(directory)
  os.environ["TF_CONFIG"] = ""
  os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
  from tests import sessions  # Loads TensorFlow, which a fork has already.

  try:
    with sessions.as_written():
      function(*args)
  except SystemExit:
    raise
  except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def _run_program(program, arguments):
  """Runs a program of the repository as from a shell."""
  sys.argv = [program, *arguments]
  sys.path.insert(0, str(_ROOT))
  runpy.run_path(str(_ROOT / program), run_name="__main__")


def _plan_comparison(arguments):
  """Has compare_models.py say what it would train, on data that are there."""
  sys.path.insert(0, str(_ROOT))
  from absl import flags

  from console import flag_fields
  from scripts import compare_models

  values = flags.FlagValues()
  compare_models.define_flags(values)
  _, *passed_on = values(["compare_models.py", *arguments])
  config = flag_fields.from_flags(compare_models.Config, values)
  rows = compare_models.make_rows(config, values["variant"].value, passed_on)
  assert len(rows) > 1
  for row in rows:
    compare_models.make_run(config, row, 1, row.rates[0], 0, 0.0).path()


def _write_benchmarks(*paths):
  """Writes what scripts/benchmark.py would have measured."""
  sys.path.insert(0, str(_ROOT))
  from scripts import benchmark

  for path in paths:
    benchmark.Report({}, {}, {"step": {"a": {"step_ms": 1.0}}}, {}).write(path)


def _parse_only(commands):
  """Has programs parse their flags, and the models' configurations made."""
  from absl import app, flags

  known = set(flags.FLAGS)
  for command in commands:
    print(command)
    for name in set(flags.FLAGS) - known:
      delattr(flags.FLAGS, name)
    os.environ["TF_CONFIG"] = command.config

    def parse(main=None, argv=None, flags_parser=None, **unused_options):
      words = (flags_parser or flags.FLAGS)(argv or sys.argv)
      name = os.path.basename(sys.argv[0])
      takes_words = name in ("blend.py", "predict.py") or "--" in sys.argv
      assert len(words) == 1 or takes_words, f"Left over: {words[1:]}."

    app.run = parse
    _run_program(command.program, command.words[2:])
    if command.program == "train.py":
      import model_flags
      from training import placement

      model_flags.from_flags()
      placement.from_environment()


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  return _Started(tmp_path_factory.mktemp("docs"))


def test_bash_reads_what_the_test_runs():
  commands = shell.commands("docs/comparison.md")
  assert [command.program for command in commands] == [
    "scripts/compare_models.py",
    "scripts/compare_models.py",
    "scripts/make_dataset.py",
    "scripts/make_dataset.py",
    "scripts/compare_models.py",
  ]
  assert "--label_signature=covariance" in commands[2].words
  assert "--train_data_pattern=/tmp/covariance/train*" in commands[4].words


@pytest.mark.parametrize("page", _PAGES)
def test_commands_name_programs_and_flags_that_are_there(page, started):
  commands = shell.commands(page)
  started.run(_parse_only, [each for each in commands if each.program])
  for command in commands:
    program, *arguments = command.words
    if command.program:
      continue
    if program.startswith("scripts/"):
      assert os.access(_ROOT / program, os.X_OK)
      for argument in arguments:
        if "/" in argument and program == "scripts/test.sh":
          made = f"\n# {argument}\n" in (_ROOT / page).read_text()
          assert made or (_ROOT / argument).exists(), argument
    elif program == "source":
      assert arguments == [".venv/bin/activate"]
    elif program.endswith("pip") and "-e" in arguments:
      extra = re.fullmatch(r"\.\[(\w+)\]", arguments[-1]).group(1)
      assert f'"{extra}"' in (_ROOT / "setup.py").read_text()
    elif program == "python":
      module = arguments[1].replace(".", "/")
      assert arguments[0] == "-m" and (_ROOT / f"{module}.py").exists()
    else:
      assert program in ("pip", "pre-commit", "tensorboard")


def test_what_is_not_run_here_is_run_by_a_test():
  used = set()
  for command in _all_commands():
    if not _where(command):
      continue
    used.add(_where(command))
    path, test, untested = _ELSEWHERE[_where(command)]
    text = (_ROOT / "tests" / path).read_text()
    assert f"\ndef {test}(" in text, command
    if re.search(r"^from tests import .*\bruns\b", text, re.M):
      text += (_ROOT / "tests/runs.py").read_text()
    own = itertools.takewhile(lambda word: word != "--", command.words)
    names = {m[1] for word in own if (m := re.match(r"--(?:no)?(\w+)", word))}
    assert names - set(untested) <= set(re.findall(r"\w+", text)), command
  assert used == set(_ELSEWHERE)


def _tell_flags(programs):
  """Prints the flags of programs."""
  from absl import app, flags

  app.run = lambda *args, **kwargs: None
  names = set()
  for program in programs:
    for name in list(flags.FLAGS):
      delattr(flags.FLAGS, name)
    _run_program(program, [])
    names |= set(flags.FLAGS)
  print(json.dumps(sorted(names)))


@pytest.mark.slow
def test_flags_that_pages_name_are_there(started):
  programs = {command.program for command in _all_commands()} - {None}
  programs.add("scripts/gpu_check.py")  # gpu_check.sh hands its flags on.
  said = started.run(_tell_flags, sorted(programs)).splitlines()[-1]
  names = set(json.loads(said))
  names |= {"help", "verbosity", "fast", "flagfile"}
  for page in pages.ALL:
    for span in pages.spans(page):
      for name in re.findall(r"(?<![\w-])--(?:no)?([a-z]\w*)", span):
        assert name in names or f"no{name}" in names, (page, span)


def _shrunk(command, directory):
  """The command's arguments, on paths of the test and with tiny sizes."""
  shrunk, one = [], []
  for word in command.words[2:]:
    word = re.sub(r"(^|=|,)/(?=(data|tmp|shared)/)", rf"\1{directory}/", word)
    if command.page in pages.ALL:
      word = word.replace("_sizes=1024,128", f"_sizes={_SIZES}")
    # Of a dozen videos, some.
    word = re.sub(r"(--holdout_fraction)=.*", r"\1=0.5", word)
    if command.program == "scripts/compare_models.py":
      # Sets that are not part of the repository, and others: videos all.
      word = re.sub(
        r"(_data_pattern)=.*",
        rf"\1={directory}/data/yt8m/frame/train*",
        word,
      )
    shrunk.append(word)
    if word.startswith(("--preset", "--feature_names")):
      # One, as two are twice the graph.
      level = "mean_" if "mean_rgb" in word else ""
      one = [f"--feature_names={level}rgb", f"--feature_sizes={_SIZE}"]
  return shrunk + one + _TINY.get(command.program, [])


def _make_data(started, directory):
  """YouTube-8M as the pages name it, of 12 videos a split."""
  for level in ("frame", "video"):
    for split in ("train", "validate", "test"):
      started.run(
        _run_program,
        "scripts/make_dataset.py",
        [
          f"--output_dir={directory}/data/yt8m/{level}",
          f"--level={level}",
          f"--split={split}",
          "--num_videos=12",
          "--num_shards=1",
          f"--feature_sizes={_SIZES}",
          "--min_frames=6",
          "--max_frames=9",
        ],
      )

  started.run(_write_segments, f"{directory}/data/yt8m/segment")
  started.run(_write_clips, f"{directory}/data")


def _write_clips(directory):
  """Writes a video, a sound and a network."""
  sys.path.insert(0, str(_ROOT))
  import numpy as np

  from tests.extraction import made

  root = pathlib.Path(directory)
  for name in ("clips", "songs", "encoders"):
    (root / name).mkdir()
  shutil.copy(made.shipped("bigbuckbunny.mp4"), root / "clips")
  made.write(root / "songs" / "tone.mka", sound=made.tone(2.0))
  made.onnx_model(root / "encoders" / "mobilenet.onnx", np.eye(3))


def _write_segments(directory):
  """Writes videos with rated segments."""
  sys.path.insert(0, str(_ROOT))
  import numpy as np

  from tests import record_data

  rng = np.random.default_rng(0)
  sizes = dict(zip(("rgb", "audio"), map(int, _SIZES.split(","))))
  os.makedirs(directory)
  record_data.write(
    f"{directory}/validate0.tfrecord",
    [
      record_data.frame_record(
        b"seg%d" % i,
        [i],
        record_data.random_frames(rng, 12, sizes),
        ratings=[(0, i, 1.0), (5, i, 0.0)],
      )
      for i in range(8)
    ],
  )


def _run_code(text):
  """Runs Python of a page."""
  sys.path.insert(0, str(_ROOT))
  exec(compile(text, "page", "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_commands_run(tmp_path_factory):
  directory = tmp_path_factory.mktemp("reader")
  started = _Started(directory)
  _make_data(started, directory)
  done, programs = [], set()
  for page in _PAGES:
    for code in pages.blocks(page, "python"):
      if code.startswith("# "):
        continue  # A file, which another test writes.
      started.run(_run_code, code)
    for command in shell.commands(page):
      if not command.program or command[1:] in done:
        continue
      if page in shell.SCRIPTS and command.program in programs:
        continue
      done.append(command[1:])
      programs.add(command.program)
      arguments = _shrunk(command, str(directory))
      if command.program == "scripts/compare_models.py":
        started.run(_plan_comparison, arguments)
        continue
      if _where(command) and not any("--new=" in word for word in arguments):
        continue
      if command.program == "scripts/benchmark.py":
        paths = [
          word.partition("=")[2] for word in arguments if ".json" in word
        ]
        started.run(_write_benchmarks, *paths)
      if page == "scripts/demo.sh":  # README has trained.
        demo = directory / "tmp/demo"
        demo.mkdir(parents=True)
        for name, made in _DEMO.items():
          (demo / name).symlink_to(directory / made)
      if command.program == "blend.py":  # As if other runs had written them.
        for name in ("a.csv", "b.csv"):
          shutil.copy(directory / "submission.csv", directory / name)
      started.run(_run_program, command.program, arguments)
