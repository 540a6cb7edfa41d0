"""Ouzel: the OpenAI API over open weights, on your own machine."""

__version__ = "0.1.0"
