"""The embedded world: words, templates, and rows with known answers."""
