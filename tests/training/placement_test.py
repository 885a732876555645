"""Tests of training/placement.py."""

import json
import socket

import pytest
import tensorflow.compat.v1 as tf

from training import placement

_PS = ["ps0:1", "ps1:1"]
_WORKERS = ["worker0:1", "worker1:1", "worker2:1"]
_CHIEF = {"chief": ["chief:1"], "worker": _WORKERS, "ps": _PS}
_NO_CHIEF = {"worker": _WORKERS, "ps": _PS}


def _config(jobs, job, index=0):
  return json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})


def _read(jobs, job, index=0):
  return placement.from_environment(_config(jobs, job, index))


@pytest.mark.parametrize(
  "text",
  [
    "",
    "{}",
    '{"cluster": {}}',
    '{"cluster": {}, "task": {"type": "worker", "index": 1}}',
    '{"task": {"type": "worker", "index": 1}}',
    '{"environment": "cloud"}',
  ],
)
def test_without_a_cluster_there_is_one_process(text):
  task = placement.from_environment(text)
  assert task.is_chief
  assert not task.is_ps
  assert not task.is_distributed
  assert task.device == ""


def test_the_environment_is_read(monkeypatch):
  monkeypatch.setenv("TF_CONFIG", _config(_CHIEF, "worker", 1))
  assert placement.from_environment() == (_CHIEF, "worker", 1)
  monkeypatch.delenv("TF_CONFIG")
  assert not placement.from_environment().is_distributed


def test_what_is_given_comes_before_the_environment(monkeypatch):
  monkeypatch.setenv("TF_CONFIG", "damaged")
  assert not placement.from_environment("").is_distributed


@pytest.mark.parametrize("name", ["chief", "master"])
def test_a_chief_or_master_is_the_chief(name):
  jobs = {**_NO_CHIEF, name: ["chief:1"]}
  task = _read(jobs, name)
  assert task == (jobs, name, 0)
  assert task.is_chief
  assert not task.is_ps
  assert task.is_distributed
  assert task.device == f"/job:{name}/task:0"
  # Nor is any worker beside it.
  assert not any(_read(jobs, "worker", i).is_chief for i in range(3))


def test_a_worker_is_not_the_chief():
  task = _read(_CHIEF, "worker", 2)
  assert task == (_CHIEF, "worker", 2)
  assert not task.is_chief
  assert not task.is_ps
  assert task.is_distributed
  assert task.device == "/job:worker/task:2"


@pytest.mark.parametrize("jobs", [_CHIEF, _NO_CHIEF])
@pytest.mark.parametrize("index", [0, 1])
def test_a_parameter_server_is_not_the_chief(jobs, index):
  task = _read(jobs, "ps", index)
  assert task == (jobs, "ps", index)
  assert task.is_ps
  assert not task.is_chief
  assert task.is_distributed


# Without any chief all would wait for each other for ever.
@pytest.mark.parametrize("empty", [{}, {"chief": []}, {"master": []}])
def test_without_a_chief_the_first_worker_is_it(empty):
  jobs = {**_NO_CHIEF, **empty}
  chiefs = [_read(jobs, "worker", i).is_chief for i in range(3)]
  assert chiefs == [True, False, False]


@pytest.mark.parametrize("index", [1, "1"])
def test_an_index_may_be_text(index):
  assert _read(_CHIEF, "worker", index).index == 1


def test_the_index_is_0_if_not_given():
  text = json.dumps({"cluster": _CHIEF, "task": {"type": "chief"}})
  assert placement.from_environment(text) == (_CHIEF, "chief", 0)


@pytest.mark.parametrize("text", ["damaged", "{", "{'cluster': {}}"])
def test_what_is_not_json_is_refused(text):
  with pytest.raises(ValueError, match="TF_CONFIG is not JSON") as caught:
    placement.from_environment(text)
  assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
  "text",
  [
    "[" * 100_000,
    '{"cluster": ' * 100_000,
    '{"task": {"index": ' + "9" * 5000 + "}}",
    json.dumps({"cluster": {"ps": ["x" * 10**6, 3]}}),
    json.dumps({"cluster": {"x" * 10**6: []}, "task": {"type": "y" * 10**6}}),
    json.dumps(["z" * 10**6] * 9),
  ],
  ids=lambda text: text[:20],
)
def test_whatever_is_there_the_error_is_of_a_few_lines(text):
  with pytest.raises(ValueError, match="TF_CONFIG") as caught:
    placement.from_environment(text)
  assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
  "text",
  [
    "[]",
    "3",
    '"worker"',
    '{"cluster": ["ps0:1"]}',
    '{"cluster": "ps0:1", "task": {"type": "worker"}}',
    json.dumps({"cluster": _CHIEF, "task": ["worker", 0]}),
    json.dumps({"cluster": _CHIEF, "task": "worker"}),
    _config({**_CHIEF, "worker": "worker0:1"}, "worker"),
    _config({**_CHIEF, "worker": 3}, "worker"),
    _config({**_CHIEF, "ps": "ps0:1"}, "worker"),
  ],
)
def test_json_of_another_form_is_refused(text):
  with pytest.raises(ValueError, match="TF_CONFIG"):
    placement.from_environment(text)


@pytest.mark.parametrize("job", ["evaluator", "wroker", None, 3])
def test_an_unknown_type_is_refused(job):
  with pytest.raises(ValueError, match="TF_CONFIG's task has type") as caught:
    _read({**_CHIEF, "evaluator": ["e:1"]}, job)
  assert repr(job) in str(caught.value)
  for known in ("chief", "master", "worker", "ps"):
    assert repr(known) in str(caught.value)


@pytest.mark.parametrize("task", [{}, None, {"index": 1}])
def test_a_task_without_a_type_is_refused(task):
  text = json.dumps({"cluster": _CHIEF, "task": task})
  with pytest.raises(ValueError, match="TF_CONFIG's task has type None"):
    placement.from_environment(text)


def test_a_type_that_the_cluster_lacks_is_refused():
  with pytest.raises(ValueError, match="type 'chief'") as caught:
    _read(_NO_CHIEF, "chief")
  assert "the cluster has ['ps', 'worker']" in str(caught.value)


@pytest.mark.parametrize(
  "index", ["first", None, [], "", 0.5, True, False, "9" * 5000, "²"]
)
def test_an_index_that_is_no_number_is_refused(index):
  with pytest.raises(ValueError, match="TF_CONFIG's task has index") as caught:
    _read(_CHIEF, "worker", index)
  assert repr(index)[:30] in str(caught.value)


@pytest.mark.parametrize(
  ("job", "index", "size"),
  [("worker", 3, 3), ("worker", -1, 3), ("ps", 2, 2), ("chief", 1, 1)],
)
def test_an_index_out_of_range_is_refused(job, index, size):
  with pytest.raises(ValueError, match="TF_CONFIG") as caught:
    _read(_CHIEF, job, index)
  assert f"{job} {index}," in str(caught.value)
  assert f"{size} of job {job}" in str(caught.value)


@pytest.mark.parametrize("job", ["chief", "master", "worker"])
@pytest.mark.parametrize("others", [{}, {"ps": []}, {"evaluator": ["e:1"]}])
def test_the_only_task_of_a_cluster_is_a_single_process(job, others):
  # As platforms describe one machine.
  task = _read({job: ["host:1"], **others}, job)
  assert task == placement.from_environment("")
  with pytest.raises(ValueError, match=f"{job} 1, but the cluster has 1"):
    _read({job: ["host:1"], **others}, job, 1)


@pytest.mark.parametrize(
  "address", ["host", "host:", ":1", "host:x", "h:65536"]
)
def test_an_address_without_host_or_port_is_refused(address):
  with pytest.raises(ValueError, match="need HOST:PORT") as caught:
    _read({**_CHIEF, "ps": ["ps0:1", address]}, "worker")
  assert repr(address) in str(caught.value)


@pytest.mark.parametrize("ps", [{}, {"ps": []}])
def test_tasks_without_parameter_servers_take_steps_together(ps):
  task = _read({"chief": ["chief:1"], "worker": _WORKERS, **ps}, "worker", 1)
  assert task.is_synchronous
  assert (task.number, task.num_computing) == (2, 4)
  assert task.computing[2] == ("worker 1 at worker1:1", "worker1:1")
  with_ps = _read(_CHIEF, "worker")
  assert not with_ps.is_synchronous
  assert with_ps.together().computing == with_ps.computing
  assert with_ps.together().is_synchronous
  one = _read({"worker": ["a:1"], "ps": ["b:1"]}, "worker")
  assert one.together() == placement.from_environment("")
  assert not placement.from_environment("").is_synchronous


@pytest.mark.parametrize(
  "chiefs",
  [
    {"chief": ["a:1"], "master": ["b:1"]},
    {"chief": ["a:1", "b:1"]},
    {"master": ["a:1", "b:1"]},
  ],
)
@pytest.mark.parametrize("job", ["worker", "ps"])
def test_two_chiefs_are_refused(chiefs, job):
  with pytest.raises(ValueError, match="TF_CONFIG's cluster has more than one"):
    _read({**_NO_CHIEF, **chiefs}, job)


# Waiting.


@pytest.mark.parametrize(
  ("jobs", "expected"),
  [
    (_CHIEF, "chief 0 at chief:1"),
    ({**_NO_CHIEF, "master": ["m:1"]}, "master 0 at m:1"),
    (_NO_CHIEF, "worker 0 at worker0:1"),
  ],
)
def test_the_chief_is_named(jobs, expected):
  assert _read(jobs, "worker", 1).chief == expected


def test_a_server_that_does_not_answer_is_waited_for_and_named(
  monkeypatch, caplog
):
  with socket.create_server(("localhost", 0)) as server:
    answering = f"localhost:{server.getsockname()[1]}"
    with socket.create_server(("localhost", 0)) as other:
      silent = f"localhost:{other.getsockname()[1]}"
    task = _read({**_CHIEF, "ps": [answering, silent]}, "worker")
    slept = []
    monkeypatch.setattr(placement.time, "sleep", slept.append)
    with (
      caplog.at_level("INFO", logger="absl"),
      pytest.raises(ValueError, match=f"ps 1 at {silent} does not answer"),
    ):
      task.wait_for_servers()
  assert sum(slept) == placement.WAIT_SECONDS
  # Once a minute.
  told = [line for line in caplog.messages if f"ps 1 at {silent}" in line]
  assert len(told) == placement.WAIT_SECONDS // placement.TELL_SECONDS
  assert not [line for line in caplog.messages if answering in line]


# Placing.


def _build(device):
  """Five variables and an operation on each."""
  with tf.Graph().as_default(), tf.device(device):
    variables = [
      tf.get_variable(f"v{i}", [2, 3], trainable=True) for i in range(5)
    ]
    products = [tf.matmul(v, tf.ones([3, 5])) for v in variables]
    gradients = tf.gradients(products, variables)
    tf.train.AdamOptimizer(0.1).apply_gradients(zip(gradients, variables))
    slots = [v for v in tf.global_variables() if "/Adam" in v.op.name]
  return variables, products, slots


@pytest.mark.parametrize("compute", ["/cpu:0", "/gpu:1"])
def test_a_cluster_puts_variables_on_its_servers_in_turn(compute):
  task = _read(_CHIEF, "worker", 2)
  variables, products, slots = _build(task.place(compute, "/cpu:0"))
  kind, number = compute[1:].split(":")
  assert [v.op.device for v in variables] == [
    f"/job:ps/task:{i}/device:CPU:0" for i in (0, 1, 0, 1, 0)
  ]
  for product in products:
    assert product.op.device == (
      f"/job:worker/task:2/device:{kind.upper()}:{number}"
    )
  # The optimiser's variables are with the model's.
  by_name = {v.op.name: v.op.device for v in variables}
  assert len(slots) == 10
  for slot in slots:
    assert slot.op.device == by_name[slot.op.name.split("/")[0]]


@pytest.mark.parametrize(
  ("compute", "place"), [("/cpu:0", "/gpu:0"), ("/gpu:1", "/cpu:0")]
)
def test_a_single_process_puts_variables_where_it_is_told(compute, place):
  task = placement.from_environment("")
  variables, products, slots = _build(task.place(compute, place))

  def canonical(device):
    return tf.DeviceSpec.from_string(device).to_string()

  for variable in [*variables, *slots]:
    assert canonical(variable.op.device) == canonical(place)
  for product in products:
    assert canonical(product.op.device) == canonical(compute)


def test_variables_are_shared_out_by_size():
  task = placement.from_environment("")
  variables = placement.BySize(["/gpu:0", "/gpu:1", "/gpu:2"])
  with tf.Graph().as_default():
    found = {}
    # Two devices of one machine place each variable once, in the first's scope.
    with tf.device(task.place("/gpu:1", variables)):
      for name, shape in [("a", [9]), ("b", [2, 3]), ("c", []), ("d", [7])]:
        found[name] = tf.get_variable(name, shape)
      found["e"] = tf.get_variable("e", [3], tf.float64)
      product = found["a"] * 2.0
      gradients = tf.gradients(product, [found["a"]])
      tf.train.AdamOptimizer(0.1).apply_gradients([(gradients[0], found["a"])])
    slots = [v for v in tf.global_variables() if "/Adam" in v.op.name]
  # Bytes: 36 on 0; 24 on 1; 4 on 2, and 28; then 24 more where there are 24.
  places = {name: v.op.device[-1] for name, v in found.items()}
  assert places == {"a": "0", "b": "1", "c": "2", "d": "2", "e": "1"}
  assert product.op.device.lower().endswith("gpu:1")
  assert [slot.op.device[-1] for slot in slots] == ["0", "0"]
