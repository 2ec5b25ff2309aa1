"""crossrag inside other frameworks; each file imports its framework on use and names the extra that brings it."""
