"""Dynamic filtering as one operation."""
