"""Print rows of the embedded corpus, or the proof that it keeps its promises (--audit).

python -m gpt2_interp.audit --source synthetic_news --count 3 --split train --seed 0
python -m gpt2_interp.audit --audit
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import argparse
import json

from gpt2_interp.errors import run_script
from gpt2_interp.synthetic.rows import EMBEDDED_ROWS, SPLITS

PRINTED, AUDITED = 3, 200  # rows where --count does not give another number
MOST = 10**9  # rows: what nobody waits for is a slip of the finger


def readable(row: dict) -> str:
    """Return a row as a person reads it: the text, the target, and a line for each fact."""
    text, target = ("article", "highlights") if "article" in row else ("story", "prompt")
    lines = [f"== {row['id']}", row[text], f"-- {target}", row[target], "-- facts"]
    for fact in row["facts"]:
        cues = "; ".join(row[text][a:b] for a, b in fact["cue_spans"])
        lines.append(
            f"{fact['slot']}: {fact['value']} -> {fact['stated']}   at {fact['value_spans']}"
            + (f"   cue: {cues}" if cues else "")
            + f"   distractors: {', '.join(fact['distractors'])}"
        )
    return "\n".join(lines) + "\n"


def print_rows(args: argparse.Namespace) -> None:
    """The rows or texts that the flags ask for."""
    count = args.count or PRINTED
    if args.source == "pretraining":
        from gpt2_interp.synthetic.running_text import pretraining_texts  # it imports this module

        for text in pretraining_texts(count, args.seed):
            print(json.dumps({"text": text}, ensure_ascii=False) if args.jsonl else text + "\n")
        return
    for row in EMBEDDED_ROWS[args.source](count, args.seed, args.split):
        print(json.dumps(row, ensure_ascii=False) if args.jsonl else readable(row))


def print_audit(args: argparse.Namespace) -> None:
    """The audit, as text or JSON."""
    startup.prepare({"--tokenizer_name": args.tokenizer_name} if args.tokenizer_name else {})
    from gpt2_interp.audit.counts import audit  # these import torch, for which rows need not wait
    from gpt2_interp.audit.verdict import report

    result = audit(args.count or AUDITED, args.seed, args.model_path, args.tokenizer_name)
    print(json.dumps(result, indent=2) if args.json else report(result))


def main(argv: list[str] | None = None) -> int:
    """Print rows, or the audit."""
    parser = argparse.ArgumentParser(description="Rows of the embedded synthetic corpus, or its audit.")
    parser.add_argument("--source", choices=[*EMBEDDED_ROWS, "pretraining"], default="synthetic_news")
    parser.add_argument(
        "--count", type=int, default=None, help=f"rows to print ({PRINTED}), or test rows to audit ({AUDITED})"
    )
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jsonl", action="store_true", help="print one JSON object a line")
    parser.add_argument("--audit", action="store_true", help="print the proof that the corpus keeps its promises")
    of_audit = parser.add_argument_group("with --audit")
    of_audit.add_argument("--json", action="store_true", help="print one JSON object")
    of_audit.add_argument("--model_path", help="folder of a model tuned on the news (the quickstart's)")
    of_audit.add_argument("--tokenizer_name", help="count tokens and match twins in this tokenizer too, such as gpt2")
    args = parser.parse_args(argv)
    if args.count is not None and not 1 <= args.count <= MOST:
        parser.error(f"--count must be at least 1 and at most {MOST:,}, but is {args.count}")
    if not args.audit and (args.json or args.model_path or args.tokenizer_name):
        parser.error("--json, --model_path and --tokenizer_name go with --audit")
    (print_audit if args.audit else print_rows)(args)
    return 0


if __name__ == "__main__":
    run_script(main)
