"""The networks, as pure functions over plain dicts of arrays. Only this folder knows flax."""
