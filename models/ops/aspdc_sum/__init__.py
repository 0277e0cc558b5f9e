"""The weighted sum of an ASPDC's four deformable convolutions."""
