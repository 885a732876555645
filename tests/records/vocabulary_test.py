"""Tests for records/vocabulary.py."""

import pytest

from records import vocabulary


@pytest.mark.parametrize(
  "text",
  [
    "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl\n"
    '2,5,/m/1,"Rock, metal",x\n0,9,/m/2,Game,y\n1,1,/m/3,,z\n',
    '\ufefflabel_id,label_name\n"1",\n0,Game\n2,"Rock, metal"\n',
    '0,Game\n2,"Rock, metal"\n',
  ],
)
def test_reads_indices_and_names(tmp_path, text):
  path = tmp_path / "names.csv"
  path.write_text(text, encoding="utf-8")
  found = vocabulary.load(str(path))
  assert len(found) == 3
  assert [found.name(i) for i in (0, 1, 2, 3)] == [
    "Game",
    "class 1",
    "Rock, metal",
    "class 3",
  ]


def test_reads_a_name_a_line(tmp_path):
  path = tmp_path / "names.txt"
  path.write_text("Game\nRock, metal\n\n")
  assert vocabulary.load(str(path)).names == ("Game", "Rock, metal")


def test_reads_what_it_wrote_where_it_looks_for_it(tmp_path):
  assert vocabulary.find(str(tmp_path)) == ""
  path = str(tmp_path / vocabulary.FILE_NAME)
  names = ("a, b", 'c "d"', "é")
  vocabulary.save(path, names, [3, 2, 1])
  assert vocabulary.find(str(tmp_path)) == path
  assert vocabulary.load(path).names == names
  header, first = (tmp_path / vocabulary.FILE_NAME).read_text().split("\n")[:2]
  assert header == "Index,TrainVideoCount,Name"
  assert first == '0,3,"a, b"'


@pytest.mark.parametrize(
  ["content", "message"],
  [
    (b"", "no name"),
    (b"index,name\n0,a\n0,b\n", "the index 0 comes twice"),
    (b"index,name\n-1,a\n", "'-1' is no index"),
    (b"index,name\n99999999999999999999,a\n", "is no index"),
    (b"\xff\xfe\x00", "is no vocabulary"),
  ],
)
def test_says_what_is_no_vocabulary(tmp_path, content, message):
  path = tmp_path / "names.csv"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as raised:
    vocabulary.load(str(path))
  assert str(path) in str(raised.value)
