"""Reading and mending TFLite files."""
