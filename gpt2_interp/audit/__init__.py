"""The check that the embedded corpus keeps its promises."""
