"""The same work done by demur and by what people use today, in one process, on the same weights and prompts."""
