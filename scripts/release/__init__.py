"""What belongs to a release: images by digest, a bill of materials, and known vulnerabilities."""
