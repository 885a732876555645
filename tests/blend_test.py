"""Tests of blend.py."""

import re

import numpy as np
import pytest

import blend
from predictions import submission
from tests import programs
from tests.predictions.submission_test import HEADER, canonical_lines

_SEGMENTS = b"Class,Segments\n"


@pytest.fixture
def put(tmp_path):
  """A function that writes a file: its path."""

  def write(content, name="in.csv"):
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)

  return write


@pytest.fixture
def out(tmp_path):
  return tmp_path / "out.csv"


def _blend_np(files, weights, top_k):
  """Blends lists of {id: {class: score}}, one number at a time."""
  blended = {}
  for video_id in dict.fromkeys(id for rows in files for id in rows):
    sums = {}
    for rows, weight in zip(files, weights):
      for c, score in rows.get(video_id, {}).items():
        sums[c] = sums.get(c, 0.0) + weight / sum(weights) * score
    best = sorted(sums, key=lambda c: (-sums[c], c))[:top_k]
    blended[video_id] = {c: sums[c] for c in best}
  return blended


def _ranked(rows):
  """The same rows with ranks for scores, by counting."""
  scores = [score for pairs in rows.values() for score in pairs.values()]

  def rank(score):
    below = sum(other < score for other in scores)
    equal = sum(other == score for other in scores)
    return (below + (1 + equal) / 2) / len(scores)

  return {
    video_id: {c: rank(score) for c, score in pairs.items()}
    for video_id, pairs in rows.items()
  }


def _random_rows(rng, ids):
  """{id: {class: score}}, ragged, with some equal scores and empty rows."""
  rows = {}
  for video_id in ids:
    classes = rng.choice(11, rng.integers(0, 6), replace=False)
    scores = rng.choice([rng.uniform(), 0.5, 1e-7, 0.0], len(classes))
    rows[video_id] = {int(c): float(f"{s:g}") for c, s in zip(classes, scores)}
  return rows


def test_arithmetic(put, out):
  first = put(HEADER + b"a,1 0.8 2 0.4\n" + b"b,3 1\n", "1.csv")
  second = put(HEADER + b"b,3 0.5\n" + b"a,2 0.8\n", "2.csv")
  assert blend.blend([first, second], [1, 3], out) == 2
  # Class 2: (1 * 0.4 + 3 * 0.8) / 4; class 1 is missing from the second.
  assert out.read_bytes() == HEADER + b"a,2 0.7 1 0.2\n" + b"b,3 0.625\n"


@pytest.mark.parametrize("method", blend.METHODS)
@pytest.mark.parametrize(
  ("top_k", "weights"), [(1, [1, 1, 1]), (3, [0.2, 5, 0]), (11, [1, 2, 3])]
)
def test_matches_dicts(put, out, top_k, weights, method):
  rng = np.random.default_rng(top_k)
  ids = [f"v{i}" for i in range(13)]
  # The second file lacks videos of the others, and has one of its own.
  tables = [
    _random_rows(rng, rng.permutation(own))
    for own in (ids, [*ids[5:], "x"], ids)
  ]
  paths = [
    put(canonical_lines(rows), f"{i}.csv") for i, rows in enumerate(tables)
  ]
  blend.blend(paths, weights, out, method=method, top_k=top_k)
  if method == "rank":
    tables = [_ranked(rows) for rows in tables]
  assert out.read_bytes() == canonical_lines(_blend_np(tables, weights, top_k))


def test_ranks_keep_the_order_of_a_file(put, out):
  rows = _random_rows(np.random.default_rng(0), ["a", "b", "c", "d"])
  blend.blend([put(canonical_lines(rows))], [1], out, method="rank")
  found = submission.read_submission(out)
  before = [s for pairs in rows.values() for _, s in sorted(pairs.items())]
  after = [
    score
    for classes, scores in found.values()
    for _, score in sorted(zip(classes, scores))
  ]
  for x, y in zip(before, after):
    for other_x, other_y in zip(before, after):
      assert np.sign(x - other_x) == np.sign(y - other_y)


def test_one_file_is_its_rewriting(put, out, tmp_path):
  source = put(
    HEADER + b"b,9 0.123457 4 0.123457 1 1e-07\n" + b"a,5 0.9 2 0.3\n"
  )
  rewritten = tmp_path / "rewritten.csv"
  with submission.SubmissionWriter(rewritten) as writer:
    for video_id, classes, scores in submission.iter_submission(source):
      writer.write([video_id], classes[None], scores[None])
  # Any one weight is weight 1.
  blend.blend([source], [0.3], out)
  assert rewritten.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("method", blend.METHODS)
@pytest.mark.parametrize("rows", [b"", b"a,\n"])
def test_nothing_to_blend(put, out, rows, method):
  assert blend.blend([put(HEADER + rows)], [1], out, method=method) == len(
    rows.splitlines()
  )
  assert out.read_bytes() == HEADER + rows


def test_segments_are_blended_by_rank(put, out):
  first = put(_SEGMENTS + b"7,a:0 b:5 c:10 d:15\n" + b"3,a:0\n", "1.csv")
  second = put(_SEGMENTS + b"7,c:10 e:0\n", "2.csv")
  assert blend.blend_segments([first, second], [0.7, 0.3], out) == 2
  # Of class 7, in quarters: a 2.8, b 2.1, c 1.4 + 1.2, d 0.7, e 0.9.
  assert out.read_bytes() == (
    _SEGMENTS + b"3,a:0\n" + b"7,a:0 c:10 b:5 e:0 d:15\n"
  )
  blend.blend_segments([first, second], [0, 1], out, max_per_class=2)
  assert out.read_bytes() == _SEGMENTS + b"3,a:0\n" + b"7,c:10 e:0\n"


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (_SEGMENTS + b"7,a:0\n" + b"7,b:0\n", "in.csv:3: Class 7 has a line above"),
    (_SEGMENTS + b"7,a:0 a:0\n", "in.csv:2: Class 7 lists a segment twice"),
    (_SEGMENTS + b"7,a\n", "in.csv:2: Need a segment"),
    (_SEGMENTS + b"x,a:0\n", "in.csv:2: Need '<class>,<segments>'"),
    (HEADER, "in.csv:1: Need the header 'Class,Segments'"),
  ],
)
def test_malformed_segments(put, out, content, message):
  with pytest.raises(ValueError, match=message):
    blend.blend_segments([put(content)], [1], out)
  assert not out.exists()


def test_refuses_to_write_over_an_input(put):
  path = put(HEADER + b"a,1 0.5\n")
  with pytest.raises(ValueError, match="--output_file=.* would replace"):
    blend.blend([path], [1], path)


@pytest.mark.parametrize(
  ("weights", "more", "message"),
  [
    ([1, 2], {}, "got 1 files and 2 weights"),
    ([0], {}, "not all 0"),
    ([-1], {}, "finite weights >= 0"),
    ([float("nan")], {}, "finite weights >= 0"),
    ([float("inf")], {}, "finite weights >= 0"),
    ([1], {"top_k": 0}, "top_k >= 1"),
    ([1], {"method": "median"}, "got 'median'"),
  ],
)
def test_bad_arguments(put, out, weights, more, message):
  with pytest.raises(ValueError, match=message):
    blend.blend([put(HEADER)], weights, out, **more)
  with pytest.raises(ValueError, match="list of paths"):
    blend.blend("a.csv", [1], out)


def test_malformed_input_leaves_the_old_file(put, out):
  out.write_bytes(b"old")
  with pytest.raises(ValueError, match="in.csv:2: "):
    blend.blend([put(HEADER + b"a,1\n")], [1], out)
  assert out.read_bytes() == b"old"


def test_a_source_is_a_path_and_perhaps_a_weight(put):
  plain, odd = put(b"", "a.csv"), put(b"", "run:3")
  assert blend.parse_source(plain) == (plain, 1.0)
  assert blend.parse_source(f"{plain}:0.6") == (plain, 0.6)
  assert blend.parse_source(odd) == (odd, 1.0)
  assert blend.parse_source(f"{odd}:2") == (odd, 2.0)
  for missing in ("no.csv", "no.csv:2", f"{plain}:x", ":2"):
    with pytest.raises(ValueError, match=r"There is no .*(no|:x|:2)"):
      blend.parse_source(missing)


@pytest.mark.slow
def test_the_program(put, out):
  first = put(HEADER + b"a,1 0.8\n" + b"b,3 1\n", "1.csv")
  second = put(HEADER + b"a,1 0.4\n", "2.csv")
  segments = put(_SEGMENTS + b"7,a:0\n", "3.csv")
  said = programs.run_ok(
    "blend.py", f"{first}:3", second, f"--output_file={out}"
  )
  assert out.read_bytes() == HEADER + b"a,1 0.7\n" + b"b,3 0.75\n"
  assert re.search(r"2.csv lacks 1 of the 2 videos \(such as 'b'\)", said)
  assert "Wrote 2 videos" in said
  for arguments, message in (
    ([], "--output_file is missing"),
    ([f"--output_file={out}"], "Name the files to blend"),
    ([first, segments, f"--output_file={out}"], "do not blend"),
  ):
    status, _, said = programs.run_program("blend.py", *arguments)
    assert status == 1 and message in said
  programs.run_ok("blend.py", segments, f"--output_file={out}")
  assert out.read_bytes() == _SEGMENTS + b"7,a:0\n"
