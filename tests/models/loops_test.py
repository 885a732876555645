"""The paper's models, and parts in time, against loops: frames to predictions.

Axes: B videos, T frames, D features, K centres, C classes.
"""

import math

import pytest

from tests import layers
from tests.models import building
from tests.models import frame_level_test as models
from tests.references import layers as references
from tests.references import moments as moment_references
from tests.references import transformer as encoder_loops
from tests.references import whitening as whitening_loops

pytestmark = pytest.mark.slow

_FEATURES = {"rgb": slice(0, 5), "audio": slice(5, 7)}
_LENGTHS = [4, 0, 1, 6]
# As the loops have it.
_ENCODER = {"transformer_head_size": 3, "transformer_feed_forward_factor": 2}
# Both features are one group.
_GROUP_SIZE = 5


def _encode(videos, variables, scope, is_training, residual=True):
  """An encoder's loop, which knows it as `encoder`."""
  own = {
    name.replace(f"{scope}/", "encoder/"): value
    for name, value in variables.items()
    if name.startswith(f"{scope}/")
  }
  return encoder_loops.encoder(
    videos, own, "projections", is_training, residual
  )


def _assignments(videos, variables, scope, is_training):
  logits = references.per_frame(
    references.linear, videos, variables, f"{scope}/assign", is_training
  )
  return [[references.softmax(frame) for frame in video] for video in logits]


def _attention_enhanced(videos, variables, name, is_training):
  videos = _encode(videos, variables, f"frame_encoder_{name}", is_training)
  assigned = _assignments(videos, variables, f"netvlad_{name}", is_training)
  centres = variables[f"netvlad_{name}/centres"]
  root = math.sqrt(len(centres[0]))
  tokens = [
    [
      [root * x for x in references.unit(total)]
      for total in moment_references.first(video, rows, centres)
    ]
    if len(video)
    else []  # Of an empty video no centre is a token.
    for video, rows in zip(videos, assigned)
  ]
  encoded = _encode(tokens, variables, f"cluster_encoder_{name}", is_training)
  size = len(centres) * len(centres[0])
  return [
    references.unit([x for token in video for x in token] or [0.0] * size)
    for video in encoded
  ]


def _attention(similarity):
  def pool(videos, variables, name, is_training):
    attended = _encode(videos, variables, f"encoder1_{name}", is_training)
    logits = _encode(
      attended, variables, f"encoder2_{name}", is_training, residual=False
    )
    assigned = [[similarity(frame) for frame in video] for video in logits]
    return references.vlad(
      videos, assigned, variables[f"netvlad_{name}/centres"]
    )

  return pool


def _triangle(matrix):
  numbers = []
  for i in range(len(matrix)):
    for j in range(i, len(matrix)):
      factor = 1.0 if i == j else math.sqrt(2.0)
      numbers.append(factor * matrix[i][j])
  return numbers


def _second_order(videos, variables, name, is_training):
  scope = f"first_order_{name}"
  centres = variables[f"{scope}/centres"]
  assigned = _assignments(videos, variables, scope, is_training)
  averages = [
    variables[f"{scope}/whitening/moving_mean"],
    variables[f"{scope}/whitening/moving_covariance"][:, 0],
  ]
  if is_training:
    # Averages that have seen the batch.
    n = variables[f"{scope}/whitening/num_updates"]
    kept = min(building.DECAY, (1 + n) / (20 + n))
    batch = whitening_loops.statistics(videos, centres)
    averages = [
      kept * old + (1 - kept) * new for old, new in zip(averages, batch)
    ]
  first = whitening_loops.whitened_sum(
    videos, assigned, centres, _GROUP_SIZE, averages
  )
  descriptors = []
  for sums, rows in zip(first, assigned):
    descriptor = references.unit(moment_references.zeroth(rows, len(centres)))
    units = [x for total in sums for x in references.unit(total)]
    descriptors.append([*descriptor, *references.unit(units)])

  scope = f"second_order_{name}"
  centres = variables[f"{scope}/centres"]
  columns = variables[f"{scope}/projection"].T
  projected = [
    [[references.dot(x, column) for column in columns] for x in video]
    for video in videos
  ]
  assigned = _assignments(projected, variables, scope, is_training)
  for descriptor, video, rows in zip(descriptors, projected, assigned):
    products = moment_references.second(video, rows, centres, len(columns))
    flat = [x for centre in products for x in _triangle(centre[0])]
    powers = [x / math.sqrt(abs(x) + 1e-6) for x in references.unit(flat)]
    descriptor += references.unit(moment_references.zeroth(rows, len(centres)))
    descriptor += references.unit(powers)
  return descriptors


def _netvlad(videos, variables, name, is_training):
  return references.netvlad(
    videos, variables, f"netvlad_{name}", True, is_training
  )


def _predictions(videos, variables, pool, is_training, parts=1):
  """Input, pooling of parts' features, hidden layer, gates, classifier."""
  videos = models._normalized(videos, variables, is_training)
  descriptors = [[] for _ in videos]
  for p in range(parts):
    own = {
      key.removeprefix(f"part{p}/"): value
      for key, value in variables.items()
      if key.startswith(f"part{p}/") or p == 0
    }
    for name, columns in _FEATURES.items():
      feature = [
        [
          x[columns]
          for i, x in enumerate(video)
          if p * len(video) // parts <= i < (p + 1) * len(video) // parts
        ]
        for video in videos
      ]
      pooled = pool(feature, own, name, is_training)
      for descriptor, part in zip(descriptors, pooled, strict=True):
        descriptor += list(part)
  hidden = references.linear(descriptors, variables, "hidden1", is_training)
  hidden = references.context_gating(
    hidden, variables, "gating", False, is_training
  )
  return references.mixture_of_experts(hidden, variables, building.C)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(
  ("model", "changes", "pool"),
  [
    ("AttentionEnhancedNetVLADModel", _ENCODER, _attention_enhanced),
    ("AttentionNetVLADModel", _ENCODER, _attention(references.softmax)),
    (
      "AttentionNetVLADModel",
      {
        **_ENCODER,
        "cluster_similarity": "relu",
        "netvlad_cluster_size": "4,2",
      },
      _attention(lambda row: [max(x, 0.0) for x in row]),
    ),
    ("SecondOrderModel", {"whitening_group_size": _GROUP_SIZE}, _second_order),
    ("NetVLADModelLF", {"temporal_parts": 3}, _netvlad),
  ],
  ids=["attention enhanced", "attention", "relu", "second order", "parts"],
)
def test_match_the_loops(model, changes, pool, is_training):
  videos = layers.random_videos(_LENGTHS, building.D)
  with building.Built(building.make(model, **changes), is_training) as built:
    actual = built.run(built.predictions, videos)
    expected = _predictions(
      videos,
      built.initial,
      pool,
      is_training,
      changes.get("temporal_parts", 1),
    )
  # A dozen layers deep, of eleven frames' and four videos' statistics.
  layers.assert_close(actual, expected, rtol=1e-4, atol=3e-5)
