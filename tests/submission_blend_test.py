"""Tests of submission.blend."""

import numpy as np
from absl.testing import parameterized

import submission
from tests import submission_test
from tests.submission_test import HEADER, canonical_lines


def _blend_np(files, weights, top_k):
  """Blends lists of {id: {class: score}}, one number at a time."""
  blended = {}
  for video_id in files[0]:
    sums = {}
    for rows, weight in zip(files, weights):
      for c, score in rows[video_id].items():
        sums[c] = sums.get(c, 0.0) + weight / sum(weights) * score
    best = sorted(sums, key=lambda c: (-sums[c], c))[:top_k]
    blended[video_id] = {c: sums[c] for c in best}
  return blended


def _random_rows(rng, ids, max_pairs, num_classes):
  """{id: {class: score}}, ragged, with some equal scores and empty rows."""
  rows = {}
  for video_id in ids:
    count = rng.randint(0, max_pairs + 1)
    classes = rng.choice(num_classes, count, replace=False)
    rows[video_id] = {
      int(c): float("%g" % s)
      for c, s in zip(
        classes, rng.choice([rng.uniform(), 0.5, 1e-7, 0.0], count)
      )
    }
  return rows


class BlendTest(submission_test.SubmissionTestCase):
  def test_arithmetic(self):
    first = self.put(HEADER + b"a,1 0.8 2 0.4\n" + b"b,3 1\n", "1.csv")
    second = self.put(HEADER + b"b,3 0.5\n" + b"a,2 0.8\n", "2.csv")
    self.assertEqual(2, submission.blend([first, second], [1, 3], self.path))
    # Class 2: (1 * 0.4 + 3 * 0.8) / 4; class 1 is missing from the second.
    self.assertEqual(
      HEADER + b"a,2 0.7 1 0.2\n" + b"b,3 0.625\n", self.path.read_bytes()
    )

  def test_users_find_it_in_submission(self):
    source = self.put(HEADER + b"a,1 0.8 2 0.4\n")
    self.assertEqual(1, submission.blend([source], [1], self.path, top_k=1))
    self.assertEqual(HEADER + b"a,1 0.8\n", self.path.read_bytes())

  @parameterized.product(
    top_k=[1, 2, 3, 11],
    weights=[[1.0, 1.0, 1.0], [0.2, 5, 0]],
  )
  def test_matches_dicts(self, top_k, weights):
    rng = np.random.RandomState(top_k)
    ids = [f"v{i}" for i in range(13)]
    files = [_random_rows(rng, rng.permutation(ids), 5, 11) for _ in range(3)]
    paths = [
      self.put(canonical_lines(rows), f"{i}.csv")
      for i, rows in enumerate(files)
    ]
    self.assertEqual(
      13, submission.blend(paths, weights, self.path, top_k=top_k)
    )
    self.assertEqual(
      canonical_lines(_blend_np(files, weights, top_k)), self.path.read_bytes()
    )

  def test_equal_averages_are_ordered_by_class(self):
    first = self.put(HEADER + b"a,9 0.5 4 0.25\n", "1.csv")
    second = self.put(HEADER + b"a,2 0.5 4 0.25\n", "2.csv")
    submission.blend([first, second], [1, 1], self.path, top_k=2)
    self.assertEqual(HEADER + b"a,2 0.25 4 0.25\n", self.path.read_bytes())

  def test_one_file_with_weight_one_is_its_rewriting(self):
    source = self.put(
      HEADER + b"b,9 0.123457 4 0.123457 1 1e-07\n" + b"a,5 0.9 2 0.3\n"
    )
    rewritten = self.dir / "rewritten.csv"
    with submission.SubmissionWriter(rewritten) as writer:
      for video_id, classes, scores in submission.iter_submission(source):
        writer.write([video_id], classes[None], scores[None])
    submission.blend([source], [1], self.path)
    self.assertEqual(rewritten.read_bytes(), self.path.read_bytes())
    # Any one weight is weight 1.
    submission.blend([source], [0.3], self.path)
    self.assertEqual(rewritten.read_bytes(), self.path.read_bytes())

  def test_keeps_twenty_classes_unless_told(self):
    pairs = " ".join(f"{c} {(30 - c) / 32:g}" for c in range(23))
    source = self.put(HEADER + f"a,{pairs}\n".encode())
    submission.blend([source], [1], self.path)
    ((_, classes, _),) = submission.iter_submission(self.path)
    self.assertEqual(list(range(20)), classes.tolist())

  def test_may_write_over_an_input(self):
    path = self.put(HEADER + b"a,1 0.5\n", "out.csv")
    submission.blend([path, path], [1, 1], path)
    self.assertEqual(HEADER + b"a,1 0.5\n", self.path.read_bytes())
    self.assert_files("out.csv")

  @parameterized.parameters(b"", b"a,\n")
  def test_nothing_to_blend(self, rows):
    source = self.put(HEADER + rows)
    self.assertEqual(
      rows.count(b"\n"), submission.blend([source], [1], self.path)
    )
    self.assertEqual(HEADER + rows, self.path.read_bytes())

  def test_different_videos(self):
    first = self.put(HEADER + b"a,\nb,\nc,\nd,\ne,\n", "1.csv")
    second = self.put(HEADER + b"e,\nz,\n", "2.csv")
    with self.assertRaisesRegex(
      ValueError,
      r"4 of .*1.csv are not in .*2.csv "
      r"\(such as 'a', 'b', 'c'\) and 1 the other way round "
      r"\(such as 'z'\)",
    ):
      submission.blend([first, second], [1, 1], self.path)
    subset = self.put(HEADER + b"e,\n", "3.csv")
    with self.assertRaisesRegex(
      ValueError, r"0 of .*3.csv are not in .*2.csv and 1 the"
    ):
      submission.blend([subset, second], [1, 1], self.path)
    self.assertFalse(self.path.exists())

  @parameterized.parameters(
    ([1, 2],), ([],), ([0],), ([-1],), ([float("nan")],), ([float("inf")],)
  )
  def test_bad_weights(self, weights):
    source = self.put(HEADER)
    with self.assertRaisesRegex(ValueError, "weights"):
      submission.blend([source], weights, self.path)

  def test_bad_arguments(self):
    source = self.put(HEADER)
    with self.assertRaisesRegex(ValueError, "got 0 files and 0 weights"):
      submission.blend([], [], self.path)
    with self.assertRaisesRegex(ValueError, "list of paths"):
      submission.blend(source, [1], self.path)
    with self.assertRaisesRegex(ValueError, "top_k >= 1, got 0"):
      submission.blend([source], [1], self.path, top_k=0)
    with self.assertRaisesRegex(ValueError, "got a directory"):
      submission.blend([source], [1], self.dir)

  def test_malformed_input_leaves_the_old_file(self):
    self.put(b"old", "out.csv")
    source = self.put(HEADER + b"a,1\n")
    with self.assertRaisesRegex(ValueError, "in.csv:2: "):
      submission.blend([source], [1], self.path)
    self.assertEqual(b"old", self.path.read_bytes())
    self.assert_files("in.csv", "out.csv")
