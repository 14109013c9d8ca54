"""Settings, entry points and process management."""
