"""Services: a model, a tokenizer and a memory that people call, and that use artifacts."""
