"""One sample through a trained model, step by step: what comes in, what is read and written, what comes out."""
