"""Restoring and scoring images with a network."""
