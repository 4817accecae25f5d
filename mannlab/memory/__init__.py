"""The memories, one file each: state first, then the class."""
