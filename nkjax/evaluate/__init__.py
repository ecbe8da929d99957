"""From a trained or converted model to numbers and pictures."""
