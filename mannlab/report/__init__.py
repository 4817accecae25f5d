"""Runs compared: what lies in folders, as tables and as one page."""
