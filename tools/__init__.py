"""Secondary commands, each run as `python -m tools.NAME`."""
