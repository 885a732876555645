"""What README and docs say: links, names of files, pictures, quoted errors."""

import ast
import re
import runpy

import pytest

from tests.docs import pages


def test_every_page_is_run():
  found = {
    str(path.relative_to(pages.ROOT))
    for path in pages.ROOT.glob("docs/**/*.md")
  }
  assert found == {page for page in pages.ALL if page.startswith("docs/")}


def test_the_picture_is_the_one_that_its_script_draws(tmp_path):
  pytest.importorskip("matplotlib")
  script = pages.ROOT / "docs/figures/draw_architectures.py"
  runpy.run_path(str(script))["main"](tmp_path)
  drawn = sorted(tmp_path.iterdir())
  assert len(drawn) == 2
  for path in drawn:
    assert path.read_bytes() == (script.parent / path.name).read_bytes()


@pytest.mark.parametrize("page", [*pages.ALL, "CHANGELOG.md"])
def test_links_lead_somewhere(page):
  text = pages.prose(page)
  links = re.findall(r"\]\(([^)\s]+)\)", text)
  links += re.findall(r'(?:src|srcset)="([^"]+)"', text)
  for link in links:
    if "://" in link:
      continue
    path, _, anchor = link.partition("#")
    target = (pages.ROOT / page).parent / path if path else pages.ROOT / page
    assert target.exists(), link
    if anchor:
      titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
      anchors = [
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in titles
      ]
      assert anchor in anchors, link


@pytest.mark.parametrize("page", pages.ALL)
def test_files_and_functions_that_pages_name_are_there(page):
  rooms = ["", "docs/", "pooling/"]
  for span in pages.spans(page):
    if re.fullmatch(r"[\w/.-]+\.(py|sh|txt|toml|cff|yaml)", span):
      if not span.endswith(".unread.txt"):
        assert any((pages.ROOT / f"{room}{span}").exists() for room in rooms), (
          span
        )
    elif match := re.fullmatch(r"([a-z_]+)\.(\w+)", span):
      module = pages.ROOT / "pooling" / f"{match[1]}.py"
      if module.exists():
        assert re.search(
          rf"^(def |class )?{match[2]}\b", module.read_text(), re.M
        ), span


def _said_by_the_code():
  """All strings of the product; what is put into them is a NUL."""
  rooms = [path.parent for path in pages.ROOT.glob("*/__init__.py")]
  files = [
    path
    for room in (pages.ROOT, *rooms)
    if room.name not in ("scripts", "tests")
    for path in room.glob("*.py")
  ]
  strings = []
  for path in files:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.JoinedStr):
        strings.append(
          "".join(
            part.value if isinstance(part, ast.Constant) else "\0"
            for part in node.values
          )
        )
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        strings.append(node.value)
  return " ".join("\n".join(strings).split())


def test_errors_of_the_faq_are_those_of_the_code():
  text, said = (pages.ROOT / "docs/faq.md").read_text(), _said_by_the_code()
  quotes = [
    " ".join(quote.split())
    for quote in re.findall(r"^\*\*`([^`]+)`", text, re.M)
  ]
  quotes += re.findall(r"^\| `\w+` \| `([^`]+)`", text, re.M)
  assert len(quotes) > 15
  for quote in quotes:
    if quote.startswith("OOM when"):
      continue  # TensorFlow's.
    # What is put in: numbers, names of flags and files, values in quotes.
    parts = re.split(
      r"\.\.\.|\[.*?\]|'[^']*'|\w*\d\w*|--\w+(?:=\S+)?|[A-Z]\w*Model\w*|\w+_\w+"
      r"|\w+\.csv\S*",
      quote,
    )
    parts = [part.strip(" .:") for part in parts]
    assert any(parts), quote
    for part in parts:
      words = [rf"(?:{re.escape(word)}|\S*\0\S*)" for word in part.split()]
      assert re.search(" ".join(words), said), (quote, part)
