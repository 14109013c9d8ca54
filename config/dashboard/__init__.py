"""The admin's first page: people, replies, tokens, first-token times, failures, training and storage."""
