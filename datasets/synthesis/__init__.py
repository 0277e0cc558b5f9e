"""Pairs of blurry and sharp images, synthesised from sharp ones."""
