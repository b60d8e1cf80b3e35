#!/usr/bin/env python
"""Draw where each head of each layer looks while GPT-2 reads a text: a picture of all heads, and a page to choose one
in.

    python examples/attention_maps.py --model_path assets/tiny_gpt2 --text "The mayor of Oslo opened the bridge."

Writes attention_maps.png and attention_maps.html to visualizations/; the page needs no network. The maps come from
`attention_step_by_step` in gpt2_interp/model/gpt2_from_scratch.py. They show where a head reads, not what it does with
what it finds, nor whether the output depends on it (Jain & Wallace 2019): an illustration, no explanation.
"""

from __future__ import annotations

from gpt2_interp import startup

if __name__ == "__main__":
    startup.begin()

import argparse
import html
import json
import sys
from pathlib import Path

from gpt2_interp.errors import InputError, run_script


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", required=True, help="folder of a model, or its name on the Hub")
    parser.add_argument("--text", required=True, help="what the model reads")
    parser.add_argument("--max_tokens", type=int, default=64, help="tokens read at most; more are hard to see (64)")
    parser.add_argument("--output_dir", default="visualizations", help="folder for the two files (visualizations)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(parse_arguments)  # --help and mistakes don't wait for torch

import matplotlib
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.colors import PowerNorm, to_hex
from matplotlib.figure import Figure

from gpt2_interp.figures.attention_patterns import readable, token_ticks
from gpt2_interp.figures.draw_html import figure_page, plain_look
from gpt2_interp.figures.draw_png import png_bytes
from gpt2_interp.figures.panels import NO_VALUE, STYLE, color_map
from gpt2_interp.model.load import load_trained
from gpt2_interp.probes.probe_set import readable_token

COLORS, TICKS = "magma", [0, 0.05, 0.25, 0.5, 1]  # square-root scale: most weights are small
CAVEAT = "Where heads read, not what they do with it: no explanation of what the model says."


@torch.no_grad()
def attention_patterns(model, ids: list[int]) -> np.ndarray:
    """Return the patterns [layer, head, query_pos, key_pos]: row q says how much of what token q gathers comes from
    each token up to q."""
    model.set_attn_implementation("eager")  # the fused kernel never holds a whole pattern
    attentions = model(torch.tensor([ids], device=model.device), output_attentions=True, use_cache=False).attentions
    return torch.cat(attentions).cpu().numpy()  # n_layer of [1, head, query_pos, key_pos]


def without_later(patterns: np.ndarray) -> np.ndarray:
    """NaN where a query can't look, which is drawn grey: a 0 there would be no choice of the head's."""
    return np.where(np.tri(patterns.shape[-1], dtype=bool), patterns, np.nan)


def picture(patterns: np.ndarray, labels: list[str]) -> bytes:
    """PNG: a row of maps for each layer, a column for each head, one colour range."""
    n_layer, n_head, n_token, _ = patterns.shape
    side = float(np.clip(0.09 * n_token, 1.1, 3.2)) * min(1.0, (6 / max(n_layer, n_head)) ** 0.5)
    with matplotlib.rc_context(STYLE):
        width, height = max(7, n_head * side + 1.6), max(4, n_layer * (side + 0.2) + 1.4)
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(n_layer, n_head, squeeze=False, sharex=True, sharey=True)
        for layer, head in np.ndindex(n_layer, n_head):
            ax = axes[layer, head]
            image = ax.imshow(
                without_later(patterns[layer, head]), color_map(COLORS), PowerNorm(0.5, 0, 1), interpolation="nearest"
            )
            ax.set_title(f"layer {layer}, head {head}", fontsize=8)
            ax.grid(False)
        token_ticks(axes, labels, side)
        bar = {"fraction": 0.03, "pad": 0.01, "aspect": 30, "shrink": 0.7, "ticks": TICKS}
        figure.colorbar(image, ax=axes, label="attention weight (square-root scale)", **bar)
        figure.suptitle(f"Rows are queries, columns the keys they attend to; grey: later tokens.\n{CAVEAT}", fontsize=9)
        return png_bytes(figure, dpi=110)


def page(patterns: np.ndarray, labels: list[str]) -> bytes:
    """HTML: one map with a layer and a head to choose, all tokens named."""
    n_layer, n_head, n_token, _ = patterns.shape
    colors = [[p**2, to_hex(matplotlib.colormaps[COLORS](p))] for p in np.linspace(0, 1, 33)]
    names = [html.escape(label) for label in labels]
    hover = [[f"{q} {names[q]} attends to {k} {names[k]}" for k in range(n_token)] for q in range(n_token)]
    bar = {"title": {"text": "attention weight<br>(square-root scale)"}, "tickvals": TICKS}
    heat = go.Heatmap(z=[[0.0]], text=hover, zmin=0, zmax=1, colorscale=colors, colorbar=bar,
                      hoverongaps=False, hovertemplate="%{text}: %{z:.3f}<extra></extra>")  # fmt: skip
    figure = plain_look(go.Figure(heat))
    ticks = {"tickvals": list(range(n_token)), "ticktext": names, "showgrid": False, "zeroline": False}
    figure.update_xaxes(title_text="key (attended to)", tickangle=-90, constrain="domain", **ticks)
    figure.update_yaxes(title_text="query", autorange="reversed", scaleanchor="x", constrain="domain", **ticks)
    size = int(np.clip(16 * n_token, 420, 1600))
    figure.update_layout(width=size + 300, height=size + 160, plot_bgcolor=NO_VALUE, margin={"t": 20}, font_size=11)
    shown = np.round(patterns, 4).astype(object)
    shown[..., ~np.tri(n_token, dtype=bool)] = None  # JSON has no NaN
    choice = "".join(
        f'<label>{name} <select id="{name}">{"".join(f"<option>{i}</option>" for i in range(count))}</select></label> '
        for name, count in (("layer", n_layer), ("head", n_head))
    )
    controls = f'<div style="font: 14px sans-serif; margin: 1em">{choice}<p>{CAVEAT} Grey: later tokens.</p></div>'
    script = f"""<script>
const patterns = {json.dumps(shown.tolist())};
const chosen = name => document.getElementById(name).value;
const draw = () => Plotly.restyle("attention_maps", {{z: [patterns[chosen("layer")][chosen("head")]]}});
for (const name of ["layer", "head"]) document.getElementById(name).onchange = draw;
draw();
</script>"""
    text = figure_page(figure, "attention_maps").decode()
    return text.replace("<body>", f"<body>{controls}", 1).replace("</body>", f"{script}</body>").encode()


def main() -> None:
    given = parse_arguments()
    model, tokenizer = load_trained(given.model_path, "scratch")
    limit = min(given.max_tokens, model.config.n_positions)
    ids = tokenizer(given.text, verbose=False)["input_ids"]
    if limit < 1 or not ids:
        raise InputError("there is nothing to read: give --text a word, and --max_tokens at least 1.")
    if len(ids) > limit:
        print(f"note: {len(ids)} tokens, of which the first {limit} are read (--max_tokens)", file=sys.stderr)
    ids = ids[:limit]
    patterns, labels = attention_patterns(model, ids), [readable(readable_token(i, tokenizer)) for i in ids]
    folder = Path(given.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, draw in (("png", picture), ("html", page)):
        (folder / f"attention_maps.{kind}").write_bytes(draw(patterns, labels))
        print(folder / f"attention_maps.{kind}")


if __name__ == "__main__":
    run_script(main)
