"""What a lab hands over: checked, split by child, packed."""
