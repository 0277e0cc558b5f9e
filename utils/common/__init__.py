"""Errors, files, signals, memory, threads: what everything else may use."""
