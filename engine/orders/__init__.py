"""Orders over RabbitMQ."""
