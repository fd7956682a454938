"""Verdicts without a caller: files of any size in, rows in order out, in constant memory."""
