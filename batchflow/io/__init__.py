"""Reading and writing: sources and their splitter, Arrow conversion, output formats, stores."""
