"""Training of models in plain Python with a progress callback, for a child process or a notebook. Without Django."""
