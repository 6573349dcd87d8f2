"""What is merged over partitions."""
