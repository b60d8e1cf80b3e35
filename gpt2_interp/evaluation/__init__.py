"""Scores of the test rows: losses, ROUGE, facts."""
