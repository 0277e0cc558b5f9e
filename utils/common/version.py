"""The version that checkpoints and run logs record."""

__version__ = "0.1.0"
