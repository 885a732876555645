"""The commands of README, docs and scripts, as bash reads them.

Bash itself reads them, so that quotes, variables and continued lines mean what
they mean to a reader; what it would start is only told.
"""

import functools
import os
import subprocess
from typing import NamedTuple

from tests.docs import pages

# What a command of a page is replaced by: it tells what it was given.
_STUB = """
tell() {
  printf "%s\\x1f" "${TF_CONFIG:-}" "$@"
  printf "\\x1e\\n"
}
for name in python pip .venv/bin/pip pre-commit source tensorboard \\
    scripts/demo.sh scripts/gpu_check.sh scripts/own_videos.sh \
    scripts/test.sh; do
  eval "$name() { tell $name \\"\\$@\\"; }"
done
# GNU parallel has a shell read the command again; here for its last argument.
parallel() {
  while [[ $1 == -* ]]; do shift; done
  local words=()
  while [[ $1 != ::: ]]; do words+=("$1"); shift; done
  eval "${words[@]//\\{\\}/${@: -1}}"
}
"""

# In a script of bash, besides the programs that it starts.
_BARE = """
for name in source mkdir echo; do eval "$name() { :; }"; done
setup_env() { python=python; }
realpath() { printf "%s" "${@: -1}"; }
compgen() { :; }
"""

# Scripts of bash, which are pages of commands themselves; what each is given.
# They train for minutes: what is run of them is what no page runs.
SCRIPTS = {
  "scripts/demo.sh": ["/tmp/demo"],
  "scripts/own_videos.sh": ["/tmp/media", "/tmp/media/labels.csv", "/tmp/own"],
}


class Command(NamedTuple):
  """A command of a page.

  Attributes:
    page: str, where it stands.
    config: str, the value of TF_CONFIG that it is given.
    words: list of str, the program and its arguments.
  """

  page: str
  config: str
  words: list[str]

  @property
  def program(self):
    """The program of the repository that it starts, or None."""
    if self.words[0] == "python" and self.words[1].endswith(".py"):
      return self.words[1]
    return None


@functools.cache
def commands(page):
  """The `Command`s of a page, or of a script, as bash reads them."""
  if page in SCRIPTS:
    text = (pages.ROOT / page).read_text().replace("${BASH_SOURCE[0]}", "$0")
    return _told(page, f"{_BARE}\n{text}", SCRIPTS[page])
  blocks = pages.blocks(page, "sh")
  return [each for block in blocks for each in _told(page, block)]


def _told(page, block, arguments=()):
  """The commands of some text of bash: list of `Command`."""
  said = subprocess.run(
    ["bash", "-euc", f"{_STUB}\n{block}", page, *arguments],
    env={"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "3"},
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  ).stdout
  commands = []
  for record in said.split("\x1e\n")[:-1]:
    config, *words = record.split("\x1f")[:-1]
    commands.append(Command(page, config, words))
  return commands
