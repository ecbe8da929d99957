"""Training: one pure step over a mesh, and the loop around it."""
