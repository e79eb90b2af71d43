"""Webhooks: events told to the operator's servers, signed, retried and logged."""
