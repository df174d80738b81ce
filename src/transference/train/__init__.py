"""The one training loop, and what turns three functions into a Method."""
