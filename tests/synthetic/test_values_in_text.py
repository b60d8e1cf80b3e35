"""Values that a text writes: found whole, by type, whether the world has them or not."""

from __future__ import annotations

import pytest

from gpt2_interp.evaluation.facts import known_values
from gpt2_interp.synthetic import world
from gpt2_interp.synthetic.rows import SPLITS, news_rows
from gpt2_interp.synthetic.values_in_text import is_blend, ordinary_words, stated, values_in

KNOWN = {
    "person": {"Linard Fennant", "Calek Oxidge"},
    "place": {"Quarrythorpe", "Old Millford"},
    "number": {"58", "543"},
    "date": {"21 June", "17 May"},
}


def read(text: str) -> list[tuple[str, str]]:
    return [(one.type, one.value) for one in values_in(text, KNOWN)]


@pytest.mark.parametrize("split", SPLITS)
def test_articles_and_highlights_have_the_values_of_their_plan_and_no_others(split):
    for row in news_rows(100, 5, split):
        known = known_values(row["facts"])
        of_plan = {(kind, value) for kind, values in known.items() for value in values}
        found = values_in(row["article"], known)
        assert {(one.type, one.value) for one in found} == of_plan
        for fact in row["facts"]:
            spans = [(one.start, one.end) for one in found if one.value == fact["stated"]]
            assert len(spans) == len(fact["value_spans"])
            assert all(a < end and start < b for (a, b), (start, end) in zip(fact["value_spans"], spans, strict=True))
        values = [(one.type, one.value) for one in values_in(row["highlights"], known)]
        assert sorted(values) == sorted((fact["type"], fact["stated"]) for fact in row["facts"])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("It was designed by Linard Fennant.", [("person", "Linard Fennant")]),
        ("Fennant, who had come early, left.", [("person", "Linard Fennant")]),
        ("It was designed by Ba Fennant.", [("person", "Ba Fennant")]),
        ("as byanne Fennant struck", [("person", "byanne Fennant")]),
        ("designed by Below Fennant.", [("person", "Below Fennant")]),
        ("The baker Fennant left.", [("person", "Linard Fennant")]),
        ("designed by Linard and", [("person", "Linard")]),
        ("It was designed by Nole and opened.", [("person", "Nole")]),
        ("A museum in Eurst has it.", [("place", "Eurst")]),
        ("The museum in Quarrythorpe.", [("place", "Quarrythorpe")]),
        ("Old Millford hosts a festival.", [("place", "Old Millford")]),
        ("The old bridge. Old men saw Millford.", [("place", "Millford")]),
        ("Millford Calek Oxidge", [("place", "Millford"), ("person", "Calek Oxidge")]),
        ("Seven came, fifty-eight left, one stayed.", [("number", "7"), ("number", "58")]),
        ("58-metre, 58x and 17 May", [("date", "17 May")]),
        ("On the twenty-first of June 543 came.", [("date", "21 June"), ("number", "543")]),
        ("May 3, Monday the 3rd of May, 58 October", [("date", "3 May"), ("date", "3 May"), ("date", "58 October")]),
        ("in May or on Monday", []),
        ("", []),
    ],
)
def test_what_a_text_writes(text, values):
    assert read(text) == values


def test_every_way_of_writing_a_value_is_the_same_value():
    for number in (3, 14, 40, 47, 99, 352):
        value = world.number_value(number)
        assert {stated("number", form) for form in (value.text, *value.forms)} == {value.stated}
    for style in world.DATE_STYLES:
        for day in range(1, 29):
            value = world.date_value(day, day % 12, style)
            assert {stated("date", form) for form in (value.text, *value.forms)} == {value.stated}
    with pytest.raises(ValueError, match="soon"):
        stated("date", "soon")


def test_names_of_the_world_are_no_ordinary_words():
    for kind in ("first", "surname", "place"):
        for test in (False, True):
            assert not ordinary_words() & {name.lower() for name in world._pool(kind, test)}


@pytest.mark.parametrize(
    ("kind", "value", "yes"),
    [
        ("person", "Linard Oxidge", True),
        ("person", "Linard Fennant", False),
        ("person", "Linard Tovick", False),
        ("person", "Linard", False),
        ("place", "Quarryford", True),
        ("place", "Old Quarrythorpe", True),
        ("place", "Old Ashford", False),
        ("place", "Eurst", False),
        ("date", "17 June", True),
        ("date", "18 June", False),
        ("number", "53", False),
        ("number", "43", False),
    ],
)
def test_a_blend_has_all_its_parts_from_values_of_the_article(kind, value, yes):
    assert is_blend(kind, value, KNOWN[kind]) is yes


def test_a_number_is_a_blend_of_numbers_with_as_many_digits():
    assert is_blend("number", "41", {"45", "51"}) and not is_blend("number", "415", {"45", "51"})
