"""Sweeps: every job in a process of its own, one file that says how each of them is.

Jobs that share a process leak distributed state and seeds from one to the next; Lightning then trains
on the wrong share of the data without an error.
"""
