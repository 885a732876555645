"""Tests of records/remote.py, with a tf.data service in this process."""

import collections

import pytest
import tensorflow.compat.v1 as tf

from records import pipeline, remote
from scripts import data_service
from tests import programs, runs
from tests import record_data as records
from training import placement


@pytest.fixture
def address():
  """Of a dispatcher with two workers."""
  dispatcher = data_service.start(data_service.Config(port=0))
  at = dispatcher.target.partition("://")[2]
  workers = [
    data_service.start(data_service.Config(port=0, dispatcher=at))
    for _ in range(2)
  ]
  yield dispatcher.target
  del workers


def test_two_readers_share_each_record_once_an_epoch(tmp_path, address):
  files = [
    records.write(tmp_path / str(i), [b"%d %d" % (i, j) for j in range(40 + i)])
    for i in range(3)
  ]
  found = {0: collections.Counter(), 1: collections.Counter()}
  options = pipeline.Options(
    batch_size=7, num_epochs=2, shuffle_buffer=5, service=address, job="a"
  )
  with tf.Graph().as_default(), tf.Session() as session:
    iterators = [
      tf.data.make_initializable_iterator(
        remote.record_batches(files, options, None, parse_ids=None)
      )
      for _ in range(2)
    ]
    batches = [iterator.get_next() for iterator in iterators]
    session.run([iterator.initializer for iterator in iterators])
    while batches:
      for batch in list(batches):
        try:
          read, paths, numbers, epochs = session.run(batch)
        except tf.errors.OutOfRangeError:
          batches.remove(batch)
          continue
        for record, path, number, epoch in zip(read, paths, numbers, epochs):
          found[epoch][record] += 1
          place = f"{path.decode().rpartition('/')[2]} {number}"
          assert record.decode() == place
  once = {b"%d %d" % (i, j): 1 for i in range(3) for j in range(40 + i)}
  assert found == {0: once, 1: once}


def test_a_service_that_is_not_there_is_told():
  with pytest.raises(ValueError, match="Nothing answers at --data_service"):
    placement.check_service(f"grpc://{programs.free_addresses(1)[0]}")


def _serve(address, *flags):
  """Starts scripts/data_service.py."""
  port = address.rpartition(":")[2]
  return programs.start_program(
    "scripts/data_service.py", f"--port={port}", *flags
  )


@pytest.mark.slow
def test_a_dispatcher_that_is_gone_is_not_waited_for_in_vain(tmp_path):
  dispatcher, reader = programs.free_addresses(2)
  service, log = f"grpc://{dispatcher}", tmp_path / "log"
  flags = runs.train_flag_list(
    tmp_path / "model",
    runs.write_data(tmp_path / "data"),
    model="FrameLevelLogisticModel",
    max_steps=10**6,
    data_service=service,
    # Long enough for a first step on a busy machine.
    worker_timeout_secs=5,
  )
  started = [_serve(dispatcher), _serve(reader, f"--dispatcher={dispatcher}")]
  try:
    programs.wait_until_it_listens(dispatcher)
    programs.wait_until_it_listens(reader)
    training = programs.start_program("train.py", *flags, log=log)
    programs.wait_for_log(training, log, lambda text: "training step" in text)
    started[0].kill()
    assert programs.finish(training)[0] == 1
  finally:
    for process in started:
      process.kill()
      process.wait()
  assert f"of --data_service={service} and its workers" in log.read_text()
