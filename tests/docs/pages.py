"""The pages that README and docs are, and what stands in them."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
# In the order in which they are run: what one trains, another evaluates.
ALL = [
  "README.md",
  "CONTRIBUTING.md",
  *(
    f"docs/{name}.md"
    for name in (
      "training",
      "recipes",
      "evaluation",
      "extraction",
      "many_machines",
      "own_data",
      "own_features",
      "predictions",
      "data",
      "comparison",
      "distributed",
      "performance",
      "models",
      "reliability",
      "faq",
    )
  ),
]


def blocks(page, language):
  """The code of a page in a language."""
  text = (ROOT / page).read_text()
  return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def prose(page):
  """The page without its blocks of code."""
  text = (ROOT / page).read_text()
  return re.sub(r"^```\w*\n.*?^```\n", "", text, flags=re.M | re.S)


def spans(page):
  """What stands between backquotes, in one line each."""
  return [
    " ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))
  ]
