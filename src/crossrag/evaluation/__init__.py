"""Judged questions and a search -> measures with their certainty, comparisons, a gate, better settings.

Receives what it measures, a `Rag` or a callable; builds no stage of its own.
"""
