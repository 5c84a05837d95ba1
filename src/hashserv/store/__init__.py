"""Where mappings and outhash rows are kept: the `Store` interface and its engines."""
