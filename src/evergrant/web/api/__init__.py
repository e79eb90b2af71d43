"""JSON under /v1. Each file holds a group of calls with their wire models."""
