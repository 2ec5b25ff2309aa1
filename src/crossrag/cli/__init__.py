"""The command line: each command parses, calls the library and prints. stdout is data, stderr is talk."""

from .app import main as main
