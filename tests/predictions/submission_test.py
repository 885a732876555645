"""Tests for submission. Axes: B videos, K classes kept for each."""

import os
import pathlib
import subprocess
import sys
import tempfile
import tracemalloc

import numpy as np
from absl.testing import absltest, parameterized
from tensorflow.io import gfile

from predictions import submission

HEADER = b"VideoId,LabelConfidencePairs\n"


def canonical_lines(rows):
  """The lines of {id: {class: score}}, built pair by pair."""
  lines = []
  for video_id, scores in rows.items():
    pairs = sorted((-score, c) for c, score in scores.items())
    lines.append(
      video_id + "," + " ".join(f"{c:d} {-s:g}" for s, c in pairs) + "\n"
    )
  return HEADER + "".join(lines).encode()


class SubmissionTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # Not absl's create_tempdir: it wants flags, which pytest does not parse.
    directory = tempfile.TemporaryDirectory()
    self.addCleanup(directory.cleanup)
    self.dir = pathlib.Path(directory.name)
    self.path = self.dir / "out.csv"

  def put(self, content, name="in.csv"):
    path = self.dir / name
    path.write_bytes(content)
    return str(path)

  def assert_files(self, *names):
    """Nothing else is in the directory: no temporary file was left."""
    self.assertCountEqual(names, os.listdir(self.dir))


class FormatLineTest(parameterized.TestCase):
  @parameterized.parameters(
    ([7, 0, 3861], [0.98, 0.5, 0.25], "7 0.98 0 0.5 3861 0.25"),
    # Six significant digits, trailing zeros dropped, exponents below 1e-4.
    ([1, 2], [0.123456789, 1.0], "1 0.123457 2 1"),
    ([3, 4, 5], [1e-4, 1.5e-5, 0.0], "3 0.0001 4 1.5e-05 5 0"),
    ([], [], ""),
  )
  def test_golden(self, classes, scores, expected):
    self.assertEqual(
      f"tEst,{expected}\n", submission.format_line("tEst", classes, scores)
    )
    self.assertEqual(
      f"tEst,{expected}\n",
      submission.format_line(
        "tEst", np.array(classes, np.int32), np.array(scores)
      ),
    )


class SubmissionWriterTest(SubmissionTestCase):
  def _write(self, ids, classes, scores):
    with submission.SubmissionWriter(self.path) as writer:
      writer.write(ids, np.array(classes), np.array(scores))
    return writer

  def test_golden_bytes(self):
    with submission.SubmissionWriter(self.path) as writer:
      writer.write(
        [b"aB3d", "tEst"],
        np.array([[7, 0, 2], [5, 1, 3861]]),
        np.array([[0.75, 0.5, 0.25], [1, 0.125, 0]], np.float32),
      )
      writer.write(
        np.array([b"\xc3\xa9"]),
        np.array([[4, 6, 8]], np.int32),
        np.array([[0.9, 0.1, 1e-5]], np.float32),
      )
    self.assertEqual(
      HEADER
      + b"aB3d,7 0.75 0 0.5 2 0.25\n"
      + b"tEst,5 1 1 0.125 3861 0\n"
      + b"\xc3\xa9,4 0.9 6 0.1 8 1e-05\n",
      self.path.read_bytes(),
    )
    self.assertEqual(3, writer.num_rows)
    self.assertEqual(0, writer.num_duplicates)
    self.assert_files("out.csv")

  def test_no_batches_and_empty_batches_leave_a_header(self):
    with submission.SubmissionWriter(self.path):
      pass
    self.assertEqual(HEADER, self.path.read_bytes())
    with submission.SubmissionWriter(self.path) as writer:
      writer.write([], np.zeros([0, 3], int), np.zeros([0, 3]))
    self.assertEqual(HEADER, self.path.read_bytes())
    self.assertEqual(0, writer.num_rows)

  def test_equal_scores_are_ordered_by_class(self):
    classes = np.array([[5, 9, 4, 7, 2], [9, 8, 7, 6, 5]])
    before = classes.copy()
    scores = np.array([[0.9, 0.5, 0.5, 0.5, 0.1], [0.5, 0.4, 0.3, 0.2, 0.1]])
    with submission.SubmissionWriter(self.path) as writer:
      writer.write(["a", "b"], classes, scores)
    self.assertEqual(
      HEADER
      + b"a,5 0.9 4 0.5 7 0.5 9 0.5 2 0.1\n"
      + b"b,9 0.5 8 0.4 7 0.3 6 0.2 5 0.1\n",
      self.path.read_bytes(),
    )
    np.testing.assert_array_equal(before, classes)

  def test_first_row_of_a_video_stays_and_repeats_are_counted(self):
    with submission.SubmissionWriter(self.path) as writer:
      writer.write(
        ["a", b"a", "b"],
        np.array([[1], [2], [3]]),
        np.array([[0.1], [0.2], [0.3]]),
      )
      writer.write([b"b", "c"], np.array([[4], [5]]), np.array([[0.4], [0.5]]))
    self.assertEqual(
      HEADER + b"a,1 0.1\nb,3 0.3\nc,5 0.5\n", self.path.read_bytes()
    )
    self.assertEqual(3, writer.num_rows)
    self.assertEqual(2, writer.num_duplicates)

  def test_a_writer_used_again_starts_anew(self):
    writer = submission.SubmissionWriter(self.path)
    for score in (0.25, 0.5):
      with writer:
        writer.write(["a"], np.array([[1]]), np.array([[score]]))
    self.assertEqual(HEADER + b"a,1 0.5\n", self.path.read_bytes())
    self.assertEqual((1, 0), (writer.num_rows, writer.num_duplicates))

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_score_not_finite_names_the_video(self, bad):
    with self.assertRaisesRegex(ValueError, "'tEst': need finite scores"):
      self._write(["a", "tEst"], [[1, 2], [3, 4]], [[0.2, 0.1], [0.2, bad]])
    self.assert_files()

  @parameterized.parameters(
    ("descending scores", [[2, 3, 5]], [[0.1, 0.3, 0.2]]),
    ("each class once", [[2, 3, 2]], [[0.3, 0.2, 0.1]]),
    ("classes in", [[2, -1, 3]], [[0.3, 0.2, 0.1]]),
    ("classes in", [[2, 2**31, 3]], [[0.3, 0.2, 0.1]]),
  )
  def test_bad_row_names_the_video(self, message, classes, scores):
    with self.assertRaisesRegex(ValueError, f"'tEst': need {message}"):
      self._write(["tEst"], classes, scores)
    self.assert_files()

  @parameterized.parameters(
    "a,b", 'a"b', "a'b", "a\nb", "a\r", b"a,b", "", b"", b"\xff", 7, None
  )
  def test_bad_id(self, video_id):
    with self.assertRaises(ValueError):
      self._write([video_id], [[1]], [[0.5]])
    self.assert_files()

  @parameterized.parameters(
    (["a"], [1, 2], [0.2, 0.1]),
    (["a", "b"], [[1, 2]], [[0.2, 0.1]]),
    (["a"], [[1, 2]], [[0.2]]),
  )
  def test_shapes_that_do_not_agree(self, ids, classes, scores):
    with self.assertRaisesRegex(ValueError, rf"got {len(ids)} ids, classes"):
      self._write(ids, classes, scores)

  def test_float_classes(self):
    with self.assertRaisesRegex(ValueError, "integer classes, got float64"):
      self._write(["a"], [[1.5]], [[0.5]])

  def test_a_bad_batch_adds_nothing(self):
    with submission.SubmissionWriter(self.path) as writer:
      with self.assertRaises(ValueError):
        writer.write(
          ["a", "b"], np.array([[1], [2]]), np.array([[0.5], [np.nan]])
        )
      writer.write(["a"], np.array([[3]]), np.array([[0.25]]))
    self.assertEqual(HEADER + b"a,3 0.25\n", self.path.read_bytes())
    self.assertEqual((1, 0), (writer.num_rows, writer.num_duplicates))

  def test_exception_keeps_the_old_file_and_leaves_no_other(self):
    self.put(b"old", "out.csv")
    with self.assertRaises(KeyboardInterrupt):
      with submission.SubmissionWriter(self.path) as writer:
        writer.write(["a"], np.array([[1]]), np.array([[0.5]]))
        self.assertLen(os.listdir(self.dir), 2)  # Beside the final name.
        self.assertEqual(b"old", self.path.read_bytes())
        raise KeyboardInterrupt
    self.assertEqual(b"old", self.path.read_bytes())
    self.assert_files("out.csv")

  def test_write_outside_the_with_block(self):
    writer = submission.SubmissionWriter(self.path)
    for _ in range(2):
      with self.assertRaisesRegex(ValueError, "inside its `with`"):
        writer.write(["a"], np.array([[1]]), np.array([[0.5]]))
      with writer:
        pass

  def test_path_of_a_tensorflow_file_system(self):
    path = "ram://x/y/out.csv"
    for video_id in ("a", "b"):  # The second replaces the first.
      with submission.SubmissionWriter(path) as writer:
        writer.write([video_id], np.array([[1]]), np.array([[0.5]]))
    with self.assertRaises(KeyError):
      with submission.SubmissionWriter(path):
        raise KeyError
    self.assertEqual(["b"], list(submission.read_submission(path)))
    self.assertEqual(["out.csv"], gfile.listdir("ram://x/y"))
    with self.assertRaisesRegex(ValueError, "got a directory"):
      submission.SubmissionWriter("ram://x/y")


class ReadSubmissionTest(SubmissionTestCase):
  def test_reads_rows_in_order(self):
    path = self.put(
      HEADER + b"b,7 0.98 0 1e-05\n" + b"\xc3\xa9,\n" + b"a,3861 1\n"
    )
    rows = submission.read_submission(path)
    self.assertEqual(["b", "é", "a"], list(rows))
    expected = {
      "b": ([7, 0], [0.98, 1e-05]),
      "é": ([], []),
      "a": ([3861], [1.0]),
    }
    for video_id, (classes, scores) in rows.items():
      self.assertEqual((np.int64, np.float64), (classes.dtype, scores.dtype))
      self.assertEqual(expected[video_id], (classes.tolist(), scores.tolist()))

  def test_is_streamed(self):
    rows = submission.iter_submission(
      self.put(HEADER + b"a,1 0.5\n" + b"b,broken\n")
    )
    self.assertEqual("a", next(rows)[0])
    with self.assertRaises(ValueError):
      next(rows)

  @parameterized.parameters(b"a,1 0.5", b"a,1 0.5\r\n", b"a, 1  0.5 \n")
  def test_harmless_departures(self, line):
    header = HEADER.replace(b"\n", b"\r\n") if b"\r" in line else HEADER
    ((video_id, (classes, scores)),) = submission.read_submission(
      self.put(header + line)
    ).items()
    self.assertEqual(
      ("a", [1], [0.5]), (video_id, classes.tolist(), scores.tolist())
    )

  def test_round_trip(self):
    b, k = 5, 3
    rng = np.random.RandomState(0)
    ids = [f"vid{i}" for i in range(b)]
    classes = np.stack([rng.permutation(7)[:k] for _ in range(b)])
    scores = -np.sort(-rng.uniform(size=[b, k]).astype(np.float32), axis=1)
    with submission.SubmissionWriter(self.path) as writer:
      writer.write(ids, classes, scores)
    rows = submission.read_submission(self.path)
    self.assertEqual(ids, list(rows))
    for i, video_id in enumerate(ids):
      np.testing.assert_array_equal(classes[i], rows[video_id][0])
      # "%g" keeps six digits.
      np.testing.assert_allclose(scores[i], rows[video_id][1], rtol=5e-6)
    again = self.dir / "again.csv"
    with submission.SubmissionWriter(again) as writer:
      for video_id, (row_classes, row_scores) in rows.items():
        writer.write([video_id], row_classes[None], row_scores[None])
    self.assertEqual(self.path.read_bytes(), again.read_bytes())

  @parameterized.parameters(
    (b"a,1 0.5 2\n", "3 fields"),
    (b"a,one 0.5\n", "'one'"),
    (b"a,1 half\n", "'half'"),
    (b"a,1.5 0.5\n", "'1.5'"),
    (b"a,1 nan\n", "finite scores"),
    (b"a,1 inf\n", "finite scores"),
    (b"a,-1 0.5\n", "classes in"),
    (b"a,2147483648 0.5\n", "classes in"),
    (b"a,1 0.5 1 0.4\n", "each class once"),
    (b"\n", "<id>,<pairs>"),
    (b"a\n", "<id>,<pairs>"),
    (b",1 0.5\n", "video id"),
    (b'"a",1 0.5\n', "video id"),
    (b"ok,1 0.5\n", "'ok' has a row above"),
    (b"\xff,1 0.5\n", "decode"),
  )
  def test_malformed_row_names_file_and_line(self, line, message):
    path = self.put(HEADER + b"ok,1 0.5\n" + line + b"z,1 0.5\n")
    with self.assertRaisesRegex(ValueError, f"in.csv:3: .*{message}"):
      submission.read_submission(path)

  @parameterized.parameters(
    b"",
    b"\n",
    b"a,1 0.5\n",
    b"Class,Segments\n",
    b"\x1f\x8b\x08",
    b"VideoId, LabelConfidencePairs\n",
  )
  def test_wrong_header_names_file_and_line(self, content):
    with self.assertRaisesRegex(ValueError, "in.csv:1: Need the header"):
      submission.read_submission(self.put(content))

  def test_a_line_without_end_costs_little_and_is_named(self):
    # As of a file of zeros, or of anything that is no CSV.
    path = self.dir / "in.csv"
    with open(path, "wb") as file:
      file.write(HEADER + b"ok,1 0.5\n")
      file.truncate(200 << 20)
    tracemalloc.start()
    try:
      with self.assertRaisesRegex(ValueError, "in.csv:3: .*lines of") as error:
        submission.read_submission(path)
      self.assertLess(tracemalloc.get_traced_memory()[1], 20 << 20)
    finally:
      tracemalloc.stop()
    self.assertLess(len(str(error.exception)), 500)

  @parameterized.parameters("1 0.5 ", "-1 0.5 ", "1 nan ")
  def test_a_long_row_is_not_repeated_in_the_error(self, pair):
    path = self.put(HEADER + f"ok,{pair * 10_000}\n".encode())
    with self.assertRaisesRegex(ValueError, "in.csv:2: ") as error:
      submission.read_submission(path)
    self.assertLess(len(str(error.exception)), 500)


class ImportTest(SubmissionTestCase):
  def test_local_files_do_not_load_tensorflow(self):
    program = (
      "import sys\n"
      "from predictions import submission\n"
      "with submission.SubmissionWriter(sys.argv[1]): pass\n"
      "submission.read_submission(sys.argv[1])\n"
      "sys.exit('tensorflow' in sys.modules)\n"
    )
    root = os.path.dirname(os.path.dirname(submission.__file__))
    subprocess.run(
      [sys.executable, "-c", program, str(self.path)], check=True, cwd=root
    )


if __name__ == "__main__":
  absltest.main()
