"""crossrag inside other frameworks; each file imports its framework on use and names its extra."""
