"""TFLite runtimes and how they are timed."""
