"""crossrag inside other frameworks.

Each file imports its framework on use and names the extra that brings it.
"""
