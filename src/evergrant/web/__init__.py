"""The HTTP face. The only importer of the web framework and of the template engine, with the practice provider."""
