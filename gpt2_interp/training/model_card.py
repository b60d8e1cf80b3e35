"""The model card, README.md of a trained model: what it is, how to load it, what it was trained on, its scores."""

from __future__ import annotations

import jinja2

from gpt2_interp.data.examples import TEMPLATES
from gpt2_interp.files import write_atomically
from gpt2_interp.run_paths import RunPaths


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
        text = environment.get_template("model_card_template.md").render(
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
            keys=[key for key in metrics["tuned"] if not key.endswith(("_low", "_high"))],
        )
        write_atomically(paths.model_outputs / f"{which}_model" / "README.md", text.encode())
