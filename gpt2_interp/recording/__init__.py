"""When a snapshot is taken, and what goes into it."""
