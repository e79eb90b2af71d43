"""docs/scale.md says what benchmarks/scale.py works out."""

from pathlib import Path

from benchmarks.scale import Size, rows

PAGE = Path(__file__).parents[1] / "docs/scale.md"


def test_the_page_has_the_numbers_that_the_script_works_out() -> None:
    table = "\n".join(f"| {what} | {much} |" for what, much in rows(Size()))
    assert f"| what | how much |\n|---|---:|\n{table}\n" in PAGE.read_text()
