"""The model card, README.md of a trained model: what it is, how to load it, what it was trained on, its scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from gpt2_interp.data.embedded import EMBEDDED
from gpt2_interp.data.examples import TEMPLATES
from gpt2_interp.data.mixture import SOURCES, mixture_shares, pairs
from gpt2_interp.files import write_atomically
from gpt2_interp.run_paths import REPOSITORY, RunPaths, here_or_in_repository

# What the header tells the Hub of the scores: key in metrics.json -> the Hub's name for this kind.
HUB_METRICS = {
    **{name: "rouge" for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")},
    **{
        name: name for name in ("fact_recall", "fact_precision", "rows_right", "source_precision", "loss", "perplexity")
    },
}
# Scores by kind of fact that a card leaves out: the same for all facts are there.
ONLY_IN_METRICS = ("fact_recall_lenient_", "fact_distractor_", "fact_blend_", "fact_made_up_")


def write_model_cards(
    paths: RunPaths,
    run_info: dict,
    sizes: dict,
    metrics: dict,
    steps: dict[str, int],
    training_seconds: float,
    plain_text: bool,
) -> None:
    """Write README.md of best_model/ and final_model/: what it is, how to load it, what it was trained on, its scores.

    steps: {"best": optimizer step, "final": optimizer step}.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gpt2_interp.training", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )  # markdown: nothing to escape
    arguments = run_info["arguments"]
    shape = " ".join(filter(None, (arguments["config_name"], arguments["config_overrides"])))
    for which, step in steps.items():
        folder = paths.model_outputs / f"{which}_model"
        text = environment.get_template("model_card_template.md").render(
            header=card_header(paths.run_name, run_info, metrics if step == metrics["best_step"] else None),
            folder=repr(str(folder.resolve())),
            new_tokens=min(arguments["max_target_length"], sizes["n_positions"] // 2),
            run_name=paths.run_name,
            which=which,
            step=step,
            last_step=steps["final"],
            run=run_info,
            arguments=arguments,
            task=run_info["task"].replace("_", " "),
            lora=run_info["tuning"] == "lora",
            base=arguments["model_name_or_path"] or f"random weights of the shape {shape}",
            plain_text=plain_text,
            template=repr(TEMPLATES[run_info["task"]]),
            sizes=sizes,
            training_seconds=training_seconds,
            metrics=metrics,
            names=[
                name for name, entry in metrics.items() if isinstance(entry, dict) and {"n", "texts"} & entry.keys()
            ],
            keys=[
                key
                for key in metrics["tuned"]
                if not key.endswith(("_low", "_high")) and not key.startswith(ONLY_IN_METRICS)
            ],
        )
        write_atomically(folder / "README.md", text.encode())


def card_header(run_name: str, run_info: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    """Return what the Hub reads of a card, as YAML. metrics: metrics.json of the very model, None if another has it.

    What is not known stays out: the license of other people's data, their language, and a base that is not on the Hub.
    """
    arguments = run_info["arguments"]
    base, dataset = arguments["model_name_or_path"], arguments["dataset_name"]
    embedded = dataset in EMBEDDED
    mixed = mixture_shares(arguments["mixture"]) if arguments["mixture"] else {}
    streamed = [name for name in mixed if name not in pairs("--source_files", arguments["source_files"])]
    local = Path(here_or_in_repository(base)).resolve() if base else None
    ours = embedded and (local is None or local.is_relative_to(REPOSITORY / "assets"))
    results = [
        EvalResult(
            task_type="summarization" if run_info["task"] == "summarization" else "text-generation",
            dataset_type=dataset or "local",
            dataset_name=metrics["test"]["source"],
            metric_type=HUB_METRICS[name],
            metric_name=name,
            metric_value=round(metrics["tuned"][name], 4),
        )
        for name in (HUB_METRICS if metrics else ())
        if metrics and name in metrics["tuned"]
    ]
    return ModelCardData(
        model_name=run_name,
        license="mit" if ours else "unknown",
        library_name="peft" if run_info["tuning"] == "lora" else "transformers",
        pipeline_tag="text-generation",
        language="en" if embedded or mixed else None,
        base_model=base if local is not None and not local.is_dir() else None,
        datasets=[dataset] if dataset and not embedded else [SOURCES[name].hub_id for name in streamed] or None,
        eval_results=results or None,
    ).to_yaml()
