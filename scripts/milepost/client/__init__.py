"""The asynchronous OpenAI-compatible client."""
