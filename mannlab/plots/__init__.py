"""Pictures, made without a display."""
