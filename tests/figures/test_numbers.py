"""Numbers and intervals as text."""

from gpt2_interp.figures.numbers import Cell, number, rounded, signed


def test_digits():
    assert number(3.14159) == "3.142" and number(123456.7) == "123,457"
    assert rounded(0.012345) == "0.0123" and rounded(12345) == "12,300" and signed(0.5) == "+0.5"
    assert rounded(None) == signed(None) == str(Cell())


def test_a_cell_keeps_the_number_and_its_interval_apart():
    cell = Cell(40.06, 38, 42, "{:.1f}".format)
    assert (cell.text, cell.bounds, str(cell)) == ("40.1", "38.0 to 42.0", "40.1 (38.0 to 42.0)")
    assert str(Cell(-0.2, -0.25, None, signed, remark="no interval")) == "-0.2 (no interval)"
    assert Cell(1.0, float("nan"), float("nan")).bounds == ""
