"""How an answer is shown to a reader."""

import io

from gpt2_interp.generation.answers import Page, for_reader

HOSTILE = "a\x1b[2Jb\x9b31m\x07\r\n\tc"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_reach_a_file_but_no_terminal():
    assert for_reader(HOSTILE, io.StringIO()) == HOSTILE
    assert for_reader(HOSTILE, Terminal()) == "a\\x1b[2Jb\\x9b31m\\x07\\x0d\n\tc"


def test_a_page_at_a_terminal_spells_them_out_in_lead_and_text():
    page = Page(Terminal(), HOSTILE, strip=False)
    page.begin(0, 1, None)
    page.write(HOSTILE)
    page.end()
    assert not set(page.out.getvalue()) & {"\x1b", "\x9b", "\x07", "\r"}
    assert page.out.getvalue().count("\\x1b[2J") == 2
