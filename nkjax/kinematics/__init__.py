"""What bodies of the labelled people measure and how far they bend, from points of pictures."""
