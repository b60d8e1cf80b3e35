"""Sources, their rows, and the tokenized examples that training reads."""
