"""From snapshots to what may be claimed: the reader of a run, changes, claims, projection."""
