"""The graph of a flow: analysis, text, drawing."""
