"""Outbound apps: definitions, providers' habits, registration, health and checks."""
