"""Pictures, and packed people on their way to the device."""
