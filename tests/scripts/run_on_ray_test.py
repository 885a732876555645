"""Tests of scripts/run_on_ray.py, on Ray's local runner."""

import sys

import pytest

from console import program
from scripts import run_on_ray
from sharding import shard

_PROGRAM = """
import os, sys

directory, flag = sys.argv[1:]
place = os.path.join(directory, flag.partition("=")[2].replace("/", "-of-"))
is_first = not os.path.exists(place)
with open(place, "a") as stream:
  stream.write("x")
sys.exit({"0-of-3": 0, "1-of-3": 9 * is_first, "2-of-3": 9}[
  os.path.basename(place)])
"""


@pytest.mark.slow
def test_what_fails_is_tried_again(tmp_path):
  pytest.importorskip("ray", reason="needs the extra [ray]")
  script = tmp_path / "program.py"
  script.write_text(_PROGRAM)
  config = run_on_ray.Config(shards=3, retries=1, cpus=0.5)
  found = run_on_ray.run(config, [str(script), str(tmp_path)])
  shards = [shard.Shard(i, 3) for i in range(3)]
  assert found == {shards[0]: 0, shards[1]: 0, shards[2]: program.FAILED}
  tries = [(tmp_path / f"{i}-of-3").read_text() for i in range(3)]
  assert tries == ["x", "xx", "xx"]


def test_a_machine_without_ray_is_told_what_it_needs(monkeypatch):
  monkeypatch.setitem(sys.modules, "ray", None)
  with pytest.raises(ValueError, match="needs ray: pip install"):
    run_on_ray.require()
