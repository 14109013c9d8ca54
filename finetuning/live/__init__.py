"""The sockets of the pages about jobs: frames, what is new, and the nudge that something is."""
