"""Bodies, what they can do, and the postures of toddlers and adults."""
