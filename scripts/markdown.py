"""Tables in Markdown."""


def table(titles: list[str], rows: list[list[str]]) -> str:
  """A table of cells, its first column to the left, the others to the right."""
  lines = [titles, ["---"] + ["---:"] * (len(titles) - 1), *rows]
  lines = [[cell.replace("|", "\\|") for cell in cells] for cells in lines]
  return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
