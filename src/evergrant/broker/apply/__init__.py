"""What `evergrant apply` does: a plan that makes a project what a file says, and carrying it out."""
