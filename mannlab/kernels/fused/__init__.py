"""Whole sequences of a controller and a memory as one autograd node, for CPUs.

The reads of a step feed the controller at the next, so time cannot run in parallel; but it need not run in
hundreds of small autograd nodes a step either. Here one node holds the history of all steps in memory that is
used again, and its backward pass is written by hand: a few matrix products and compiled functions a step, and
the gradients of weights in one product over all steps.

A controller and a memory each bring a cell (see ``cells.py``); whatever has none runs step by step.
"""
