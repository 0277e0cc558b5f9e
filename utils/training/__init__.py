"""What a training run needs besides its algorithm: data, states, logs, guards, validation."""
