"""What vectors are good for besides search: labels, groups, copies, measuring and checking models."""
