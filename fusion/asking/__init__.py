"""The HTTP client that coordinators and programs ask with."""
