"""One sample through a trained model, step by step: what comes in, is read and written, and comes out."""
