"""Input and output: sources, chunk splitter, Arrow conversion, output formats and stores."""
