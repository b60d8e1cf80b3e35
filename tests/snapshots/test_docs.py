from pathlib import Path

from gpt2_interp.snapshots.docs import markdown
from gpt2_interp.snapshots.table import MEASURES

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_page_is_the_tables():
    written = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == markdown(), "run: python -m gpt2_interp.snapshots.docs > docs/metrics.md"
    assert all(f"### {measure.name}\n" in written for measure in MEASURES)
