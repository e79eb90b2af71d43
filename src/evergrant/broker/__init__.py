"""What evergrant does: connect, keep, refresh and hand out. No HTTP framework and no command line in here."""
