"""Losses: pure functions of network outputs and targets, in fp32 whatever the network ran in."""
