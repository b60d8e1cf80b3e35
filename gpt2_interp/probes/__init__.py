"""The fixed examples that snapshots measure, and where their answers stand."""
