"""Simulated pictures as the folder that a lab would hand over."""
