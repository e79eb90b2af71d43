"""Ciphertexts, keys and the opaque strings we issue. The only importer of `cryptography`."""
