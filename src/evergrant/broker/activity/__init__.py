"""What was done and how it is: counts by the hour, and what somebody has to do something about."""
