"""Colours, clothes, rooms, light, and what a camera does to a picture."""
