"""The engine: local Hugging Face models behind the OpenAI protocol. Plain Python, without Django."""
