"""Operations of the networks, one folder each: the definition in plain PyTorch beside its kernels (README.md)."""
