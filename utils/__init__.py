"""What training and testing share: checkpoints, metrics, image conversions, run logs, error messages."""
