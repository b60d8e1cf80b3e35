"""The embedded corpus' wordings, read from `wordings/`: what can be said of each event and plot, one wording a line.

A line that ends in ":" begins a part. "~" marks a wording that only split "test" uses, "(a|b)" is a choice.

News (`wordings/news/`): "[...]" is the cue, the words that make a value the answer, and "{E}" the event by name. {who}
{where} {n} {d} are the four facts; in a distractor sentence {l} {n} {d} are the distractor's own values. " // " parts
the two sentences of a highlight. A held-out wording says its cue in words that the others use too: a new sentence, but
no new language. No wording holds a number, a month or a weekday of its own.

Stories (`wordings/stories/`): {who} is the hero, then {she}, {her}, {his}; {friend} another person, {where} the hero's
town, {other} a town nearby, {thing} what it all turns on ("{a} {thing}"). {goal} and {ends} are the plot and the ending
as the prompt tells them. The prompt fixes plot, hero, place, thing and ending; the rest is chance.

`wordings/common.txt` is for pre-training only: what stands before an article's facts in other words (retold), and pages
of records, where {0} is a value as an article writes it and {1} as a highlight does, or a list.
"""

from __future__ import annotations

from pathlib import Path

Wordings = tuple[tuple[str, ...], tuple[str, ...]]  # (of the other splits, of split "test")


def parse_block(block: str) -> dict[str, Wordings]:
    """part -> its wordings."""
    parts: dict[str, tuple[list[str], list[str]]] = {}
    for line in filter(None, map(str.strip, block.splitlines())):
        if line.endswith(":") and " " not in line.removeprefix("ending "):
            current = parts.setdefault(line[:-1], ([], []))
        else:
            current[line.startswith("~")].append(line.removeprefix("~").strip().replace(" // ", "\n"))
    return {name: (tuple(seen), tuple(test)) for name, (seen, test) in parts.items()}


def _read(name: str) -> dict[str, Wordings]:
    return parse_block((Path(__file__).parent / "wordings" / f"{name}.txt").read_text(encoding="utf-8"))


# The order of events and plots is part of the corpus: row i draws one by its place.
EVENT_NAMES = (
    "election",
    "fire",
    "flood",
    "exhibition",
    "match",
    "bridge",
    "theft",
    "festival",
    "dig",
    "clinic",
    "strike",
    "birds",
)
PLOT_NAMES = (
    "stolen",
    "storm",
    "treasure",
    "repair",
    "contest",
    "mountain",
    "ghost",
    "debt",
    "feud",
    "animal",
    "inheritance",
    "voyage",
)
EVENTS = {name: _read(f"news/{name}") for name in EVENT_NAMES}
PLOTS = {name: _read(f"stories/{name}") for name in PLOT_NAMES}
NEWS, STORIES = _read("news/common"), _read("stories/common")  # what all events, all plots share

# How many sentences of each part a story has, in order.
STORY_ORDER = {
    "open": 1, "setting": 1, "problem": 1, "meet": 1, "middle": 2, "talk": 1, "turn": 1, "ending": 1, "close": 1,
}  # fmt: skip
# What the prompt promises, for each kind of ending.
ENDINGS = {
    "gives": "the {thing} is given away to (a friend|someone in need)",
    "keeps": "{she} keeps the {thing} for (life|good)",
    "loses": "the {thing} is lost for ever",
    "leaves": "{she} leaves the town for ever with the {thing}",
    "shares": "the {thing} belongs to the whole town",
}

_pages = {name: seen for name, (seen, _) in _read("common").items()}
RETOLD, REFRAINS, LISTS, LOOK_UP = (_pages[name] for name in ("retold", "refrains", "lists", "look_up"))
RECORDS = {kind: _pages[f"record_{kind}"] for kind in ("number", "date")}
