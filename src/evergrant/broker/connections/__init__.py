"""Managing connections: listing, uploading, deleting and revoking them."""
