"""Prompts in words: text segmenters, what they answer to lists of prompts, and refinement of their masks."""
