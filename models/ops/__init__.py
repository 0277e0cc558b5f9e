"""Operations of the networks, one folder each: the definition in plain PyTorch and its kernels (README.md)."""
