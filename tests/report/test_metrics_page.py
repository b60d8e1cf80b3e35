from pathlib import Path

from gpt2_interp.figures.registry import PICTURES
from gpt2_interp.report.metrics_page import markdown
from gpt2_interp.snapshots.scalars import SCALARS, SCORES
from gpt2_interp.snapshots.table import MEASURES

REPOSITORY = Path(__file__).resolve().parents[2]


def entry(page: str, name: str) -> str:
    return page.split(f"\n### {name}\n")[1].split("\n#")[0]


def test_the_page_is_the_tables():
    written = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == markdown(), "run: python -m gpt2_interp.report.metrics_page > docs/metrics.md"


def test_each_number_is_defined_once():
    page = markdown()
    for measure in MEASURES:
        assert page.count(f"\n### {measure.name}\n") + page.count(f"`{measure.name}` [") == 1, measure.name
    assert all(f"| `{scalar.name}` |" in page for scalar in (*SCALARS, *SCORES))


def test_a_measure_names_the_pictures_that_show_it():
    page = markdown()
    for picture in PICTURES:
        for name in picture.measures:
            assert picture.name in entry(page, name.removeprefix("control_"))
    assert "- pictures:" not in entry(page, "qk_change")  # in none
