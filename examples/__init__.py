"""Examples: worlds and models that are not part of the library."""
