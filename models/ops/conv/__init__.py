"""Convolution, bias, addition and activation as one operation."""
