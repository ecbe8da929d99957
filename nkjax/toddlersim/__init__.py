"""A simulated world of toddlers and adults, written to disk as a lab would hand it over."""
