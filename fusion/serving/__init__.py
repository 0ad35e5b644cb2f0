"""The HTTP server that workers and coordinators are."""
