"""Tests of where training/towers.py places variables, towers and sums."""

import pytest
import tensorflow.compat.v1 as tf

from models import scopes
from tests import layers
from tests.training.towers_test import (
  NUM_CPUS,
  MeanModel,
  build,
  frame_batch,
  new_session,
  plain_model,
  video_batch,
)
from training import optimizers, placement


@pytest.mark.slow
class TestDevices:
  def test_what_variables_alone_decide_lies_where_gradients_meet(self):
    class SquareModel(MeanModel):
      def create_model(self, *args, **kwargs):
        result = super().create_model(*args, **kwargs)
        tf.get_variable(
          "offsets", [7], regularizer=lambda values: tf.reduce_sum(values**3)
        )
        return result

    with tf.Graph().as_default():
      result = build(video_batch(4), SquareModel(), 2, merging="/cpu:3")
      found = {v.op.name: g for g, v in result.gradients}
      # No tower has another gradient in these: the sum is of one.
      gradient = found["tower/offsets"]
      assert gradient.device.lower().endswith("cpu:3")
      assert not gradient.name.startswith("tower_")

  def test_variables_that_are_shared_out_merge_and_clip_their_gradients(self):
    batch = frame_batch([3, 5, 1, 4, 2])
    model = plain_model("NetVLADModelLF")
    task = placement.from_environment("{}")
    names = [f"/cpu:{i}" for i in range(NUM_CPUS)]
    results = []
    for share in (False, True):
      with tf.Graph().as_default(), new_session() as session:
        changes = {}
        if share:
          variables = placement.BySize(names)
          changes = {
            "towers": [task.place(name, variables) for name in names],
            "merging": None,
          }
        result = build(batch, model, NUM_CPUS, **changes)
        clipped, norm = optimizers.clip_gradients(result.gradients, 0.01, False)
        if share:
          of_variables = {v.device for v in tf.trainable_variables()}
          assert len(of_variables) == NUM_CPUS
          for gradient, variable in [*result.gradients, *clipped]:
            assert gradient.device[-5:].lower() == variable.device[-5:]
        layers.randomize(session)
        by_name = {v.op.name: g for g, v in clipped}
        results.append(session.run((by_name, norm)))
    (expected, norm), (found, other_norm) = results
    assert norm == pytest.approx(other_norm, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
      layers.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)

  def test_towers_lie_on_theirs_and_variables_on_the_first(self):
    batch = frame_batch([3, 5, 1, 4, 2])
    with tf.Graph().as_default() as graph, new_session() as session:
      result = build(batch, plain_model("NetVLADModelLF"), NUM_CPUS)
      tower_of = {
        op.name: op.name.split("/")[0]
        for op in graph.get_operations()
        if op.type in ("MatMul", "BatchMatMulV2")
        and op.name.startswith("tower_")
      }
      for name, tower in tower_of.items():
        device = graph.get_operation_by_name(name).device.lower()
        assert device.endswith(f"cpu:{tower[-1]}"), (name, device)
      for variable in tf.global_variables():
        assert variable.device.lower().endswith("cpu:0"), variable.name
        # Of no tower: names are checkpoint format.
        assert variable.name.startswith(f"{scopes.SCOPE}/")
      layers.randomize(session)
      trace = tf.RunMetadata()
      session.run(
        [gradient for gradient, _ in result.gradients],
        options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE),
        run_metadata=trace,
      )
    # What was asked for is one thing, where it ran another.
    ran_on = {}
    for stats in trace.step_stats.dev_stats:
      for node in stats.node_stats:
        if node.node_name in tower_of:
          ran_on.setdefault(tower_of[node.node_name], set()).add(
            stats.device[-5:]
          )
    assert ran_on == {f"tower_{i}": {f"CPU:{i}"} for i in range(NUM_CPUS)}
