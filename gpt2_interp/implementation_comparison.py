"""GPT-2 and its decoding written out against Hugging Face's, on one prompt: `generate_text.py --compare_implementations`.

compare(model_path, prompt, settings, *, task="text", base_model=None) -> ImplementationComparison
str(comparison) is what is printed, dataclasses.asdict(comparison) what --json writes, comparison.agrees whether own
implementation and Hugging Face's gave the same tokens. Raises InputError.
"""
