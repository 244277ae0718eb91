"""Python values to Arrow and back, without loss."""
