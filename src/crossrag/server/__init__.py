"""The same engine over HTTP, for clients that exist already and for people. Thin over `Rag`."""
