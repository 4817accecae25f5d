"""Training and testing: the only room that knows Lightning."""
