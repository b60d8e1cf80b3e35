"""The door between writing and reading: the table of measures, the store, the schedule and the glossary."""
