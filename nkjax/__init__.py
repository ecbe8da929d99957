"""Sapiens pose estimation of toddlers in JAX."""
