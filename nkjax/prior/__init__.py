"""The developmental prior: what poses of toddlers look like, without any picture."""
