"""Tests of training/meeting.py: tasks as threads, without TensorFlow."""

import concurrent.futures
import json
import re

from console import program
from tests import programs
from training import meeting, placement


def meet(addresses, flags, patience=20):
  """What becomes of tasks of these addresses that come with these flags.

  Args:
    addresses: list of str.
    flags: {number: dict} of the tasks that come.
    patience: int.

  Returns:
    {number: the plan, or the error}.
  """

  def come(number):
    task = {"type": "worker", "index": number}
    config = {"cluster": {"worker": addresses}, "task": task}
    here = meeting.Meeting(
      placement.from_environment(json.dumps(config)), patience
    )
    try:
      return here.gather([number, "plan"], flags[number])
    except program.UserError as error:
      return error

  with concurrent.futures.ThreadPoolExecutor() as pool:
    return dict(zip(flags, pool.map(come, flags)))


def test_all_get_the_chiefs_plan():
  addresses = programs.free_addresses(3)
  flags = {n: {"rate": 0.1, "sizes": (3, 4)} for n in (2, 1, 0)}
  assert meet(addresses, flags) == {n: [0, "plan"] for n in flags}


def test_the_missing_are_named_with_their_addresses():
  addresses = programs.free_addresses(4)
  found = meet(addresses, {0: {}, 2: {}}, patience=3)
  missing = f"worker 1 at {addresses[1]}, worker 3 at {addresses[3]} did not"
  assert all(missing in str(error) for error in found.values())
  assert "--worker_timeout_secs" in str(found[0])


def test_a_missing_chief_is_named():
  addresses = programs.free_addresses(2)
  (error,) = meet(addresses, {1: {}}, patience=1).values()
  assert f"worker 0 at {addresses[0]}, does not answer" in str(error)


def test_who_has_other_flags_is_told_to_all():
  addresses = programs.free_addresses(2)
  found = meet(addresses, {0: {"a": 1, "b": 2}, 1: {"a": 1, "b": 3}})
  for error in found.values():
    assert re.search(r"Of worker 1 at .* b is 3, the chief's 2\.", str(error))
