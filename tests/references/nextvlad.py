"""NeXtVLAD, and gates with a bottleneck, as loops.

Axes: B videos, T frames, D features, G groups, K centres.
"""

from tests.references import layers


def nextvlad(videos, variables, scope, num_groups, is_training):
  """Lin et al. 2018, section 3.2, for each video; centres run fastest."""

  def per_frame(videos, name):
    return layers.per_frame(
      layers.linear, videos, variables, f"{scope}/{name}", is_training
    )

  expanded = per_frame(videos, "expand")
  attention = per_frame(expanded, "attention")
  logits = per_frame(expanded, "assign")
  centres = variables[f"{scope}/centres"]
  num_centres, size = centres.shape
  descriptors = []
  for b, video in enumerate(expanded):
    units = []
    for k in range(num_centres):
      total = [0.0] * size
      for t, frame in enumerate(video):
        for g in range(num_groups):
          own = logits[b][t][g * num_centres : (g + 1) * num_centres]
          weight = layers.sigmoid(attention[b][t][g]) * layers.softmax(own)[k]
          for d in range(size):
            total[d] += weight * (frame[g * size + d] - centres[k][d])
      units.append(layers.unit(total))
    descriptors.append(
      [units[k][d] for d in range(size) for k in range(len(units))]
    )
  return descriptors


def bottleneck_gating(rows, variables, scope, is_training):
  """Each feature times the sigmoid of its gate, after a narrow ReLU layer."""
  squeezed = layers.linear(rows, variables, f"{scope}/squeeze", is_training)
  excite = variables[f"{scope}/excite"]
  outputs = []
  for row, units in zip(rows, squeezed):
    output = []
    for d, x in enumerate(row):
      gate = 0.0
      for r, unit in enumerate(units):
        gate += max(unit, 0.0) * excite[r][d]
      output.append(float(x) * layers.sigmoid(gate))
    outputs.append(output)
  return outputs
