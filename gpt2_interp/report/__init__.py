"""From pictures and tables to pages."""
