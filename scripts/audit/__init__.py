"""What public packages say about the providers of the app library, and how that compares with what we say."""
