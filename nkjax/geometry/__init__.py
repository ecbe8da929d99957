"""Coordinates: crops (affine), maps (heatmaps) and reads (sampling)."""
