"""The model server: what a request goes through."""

__version__ = "0.1.0"
