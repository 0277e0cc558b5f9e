"""Convolution with bias, addition and activation, and the predictors of an ASPDC."""
