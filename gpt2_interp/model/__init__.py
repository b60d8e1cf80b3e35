"""GPT-2: loading, from scratch, the names of its parts, its base weights, packed batches, precision."""
